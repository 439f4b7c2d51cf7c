"""The owner's side of a service: a model to three sealed share files, one a party, and a bundle for clients."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpc_ray.channel.packed import Message, parts
from mpc_ray.errors import ConfigError, InputError, ModelError
from mpc_ray.models import query
from mpc_ray.models.bundle import write_bundle
from mpc_ray.models.export import Export
from mpc_ray.models.plan import input_scales
from mpc_ray.models.public import facts
from mpc_ray.models.share_file import MAGIC, MAX_BYTES, PURPOSE, SHARING, ShareHeader
from mpc_ray.models.tokenize import Tokenizer
from mpc_ray.models.weights import BertModel
from mpc_ray.trust import atrest, hpke
from mpc_ray.trust.directory import Directory, PartyRecord
from mpc_ray.trust.secret import Secret


@dataclass(frozen=True)
class SharedModel:
    """What ``share_model`` wrote. ``digest``: of the public record, hex; ``bundle_digest``: of the clients' bundle."""

    name: str
    digest: str
    bundle_digest: str
    shares: tuple[Path, Path, Path]
    bundle: Path


def share_model(
    bert: BertModel,
    export: Export,
    directory: Directory,
    set: str,
    out: Path,
    *,
    name: str = "",
    progress: Callable[[str, float], None] = lambda what, part: None,
) -> SharedModel:
    """Write NAME.party0.share … NAME.party2.share and NAME.client/ into ``out``: all of them or none.

    ``directory`` must be verified. ``name`` is the model's own unless given. Shares are fresh at every call; only
    those of one call go together. Memory: twice 8 bytes a weight. Disk: 8 bytes a weight for parties 1 and 2 each, of
    public weights 4 for each party.
    Raises CertificateError if the set is not whole, ConfigError if a file is there already or cannot be written.
    """
    records = directory.parties(set)
    name = name or bert.config.name
    if bert.folder is None:
        raise ModelError(f"model {name} has no folder, so no tokenizer", remedy="save it with one first")
    hidden, lengths = facts(export.record)
    federation, seen = directory.federation, export.visibility
    heads = [
        ShareHeader(name, export.digest.hex(), federation, set, index, hidden, lengths, seen)
        for index in range(3)
    ]
    heads[0].encode()  # a name that cannot be one is refused before anything is written
    bundle = out / f"{name}.client"
    paths = (out / f"{name}.party0.share", out / f"{name}.party1.share", out / f"{name}.party2.share")
    tokenizer = Tokenizer(bert.folder)
    with _new(out, [*paths, bundle]):
        bundle_digest = write_bundle(
            bundle,
            name=name,
            model_digest=export.digest.hex(),
            embeddings=bert.embeddings,
            tokenizer=tokenizer,
            lengths=lengths,
            pooling=bert.pooling,
            normalize=bert.normalize,
            scales=input_scales(export.plan),
        )
        for index, message in enumerate(share_messages(export, name)):
            progress("sealing the shares", index / 3)
            _write(paths[index], message, heads[index], records[index])
    return SharedModel(name, export.digest.hex(), bundle_digest, paths, bundle)


def share_messages(export: Export, name: str) -> list[Message]:
    """The three load messages of a fresh sharing, without a job, which the parties name themselves."""
    sharing = np.frombuffer(os.urandom(16), np.uint8)
    marked = replace(export, tables={**export.tables, SHARING: sharing})
    return [
        Message({key: value for key, value in message.header.items() if key != "job"}, message.tensors)
        for message in query.load_messages(marked, name, b"")
    ]


def _write(path: Path, message: Message, head: ShareHeader, record: PartyRecord) -> None:
    def wrap(key: Secret, context: bytes) -> bytes:
        return hpke.seal(key.reveal(), record.key(), PURPOSE, context)

    with atrest.whole_file(path) as file:
        writer = atrest.begin(file, MAGIC, head.encode(), wrap)
        for piece in parts(message, MAX_BYTES):
            writer.write(piece)
        writer.finish()


@contextlib.contextmanager
def _new(out: Path, paths: list[Path]) -> Iterator[None]:
    """``out`` exists, ``paths`` do not; if the block fails, none of them stays."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out} cannot be made: {error.strerror}", remedy="name another folder") from None
    for path in paths:
        if path.exists():
            raise InputError(f"{path} exists", remedy="name another folder, or move what is there")
    try:
        yield
    except BaseException:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        raise
