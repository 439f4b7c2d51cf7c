"""Files that hold one party's share of a model: on their way to it (sealed to its HPKE key), and in its store.

Both are ``trust.atrest`` files: a readable header, then the packed load message in a stream. The name of a model is
what its owner calls it, and its digest is that of the public record: neither is a digest of weights, by which a party
could confirm a guess of them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc_ray.channel.interface import byte_view
from mpc_ray.channel.packed import HEAD_BYTES, Shapes, described, sizes
from mpc_ray.errors import BadFrame, InputError, ModelError, SealError
from mpc_ray.models.public import WEIGHTS, PublicTensor, digest, facts, weights_of
from mpc_ray.sharing.parcel import bounded, seeds_of
from mpc_ray.trust import canonical
from mpc_ray.trust.canonical import Malformed
from mpc_ray.trust.stream import StreamReader, StreamWriter

MAGIC = b"MPCSHAR1"
STORED_MAGIC = b"MPCSTOR1"
PURPOSE = "mpc-ray model share v1"
SHARING = "sharing"
"""The table of 16 random bytes that tells shares of one run of ``mpc-ray model share`` from those of another: parties
compare all tables when they load, so shares of two runs are refused instead of giving garbage."""
MAX_BYTES = 64 << 30
MAX_TABLES = 256 << 20
_PIECE = 1 << 20
_PUBLIC = "public/"


@dataclass(frozen=True)
class ShareHeader:
    """What a share file says in the clear. ``digest``: of the public record, hex; ``lengths``: padded lengths;
    ``weights``: "secret", or "public" where the file holds them as they are."""

    name: str
    digest: str
    federation: str
    set: str
    index: int
    hidden: int
    lengths: tuple[int, ...]
    weights: str = "secret"

    @property
    def place(self) -> str:
        """Whose share it is: ``eu/0``."""
        return f"{self.set}/{self.index}"

    def encode(self) -> bytes:
        """What ``decode`` reads, canonical. Raises InputError if the name cannot be one."""
        fields = {**vars(self), "lengths": list(self.lengths)}
        try:
            canonical.matching(self.name, canonical.MODEL, "name")
        except Malformed:
            raise InputError(
                f"a model cannot be called {self.name[:40]!r}",
                remedy="letters, digits, dots and hyphens: --name",
            ) from None
        return canonical.encode({"format": PURPOSE, **fields})

    @staticmethod
    def decode(data: bytes, source: str) -> ShareHeader:
        """``SealError`` if it is of another form."""
        try:
            known = canonical.take(canonical.parse(data, 1 << 16), _KINDS)
            if known.pop("format") != PURPOSE:
                raise Malformed("is of another format")
            canonical.matching(known["name"], canonical.MODEL, "name")
            canonical.matching(known["federation"], canonical.NAME, "federation")
            canonical.matching(known["set"], canonical.NAME, "set")
            canonical.unhex(known["digest"], 32, "digest")
            canonical.within(known["index"], 0, 2, "index")
            canonical.within(known["hidden"], 1, 1 << 24, "hidden")
            lengths = tuple(canonical.within(n, 1, 1 << 24, "lengths") for n in known["lengths"])
            if known["weights"] not in ("secret", "public"):
                raise Malformed("has weights that are neither secret nor public")
        except Malformed as error:
            raise SealError(
                f"{source}: its header {error}", remedy="use the same release as the owner"
            ) from None
        return ShareHeader(**{**known, "lengths": lengths})


def check_message(header: Any, shapes: Shapes, tables: dict[str, np.ndarray], said: ShareHeader) -> None:
    """What a load message holds is what its file says, and one party's share. Raises ModelError, InputError."""
    if header.get("cmd") != "load" or header.get("model") != said.name:
        raise ModelError("the share is of another model than its file says", remedy="share the model again")
    record = header.get("record")
    plain = {name: table for name, table in tables.items() if name != SHARING}
    if SHARING not in tables or not isinstance(record, dict) or digest(record, plain).hex() != said.digest:
        raise ModelError(
            "the share's public record is not the one its file names", remedy="share the model again"
        )
    if facts(record) != (said.hidden, said.lengths):
        raise ModelError("the share's file says other sizes than its record", remedy="share the model again")
    known = weights_of(record)
    if said.weights != ("public" if known else "secret"):
        raise ModelError(
            f"the share is of a model whose weights are not {said.weights}", remedy="share the model again"
        )
    if known:
        return _check_public(header, shapes, known)
    bounded(header, MAX_BYTES)
    seeds_of(said.index, header)
    held = {name: shape for name, (dtype, shape) in shapes.items() if not name.startswith(_PUBLIC)}
    wanted = {name: tuple(public["shape"]) for name, public in header["shares"].items()} if said.index else {}
    if held != wanted or any(shapes[name][0] != np.dtype("<i8") for name in held):
        raise ModelError("the share lacks a tensor, or has one too many", remedy="share the model again")


def _check_public(header: Any, shapes: Shapes, known: tuple[PublicTensor, ...]) -> None:
    held = {
        name: (str(dtype), shape) for name, (dtype, shape) in shapes.items() if not name.startswith(_PUBLIC)
    }
    if (
        held != {WEIGHTS + tensor.name: (tensor.dtype, tensor.shape) for tensor in known}
        or "shares" in header
    ):
        raise ModelError("the file lacks public weights, or has too many", remedy="share the model again")


def copy_message(reader: StreamReader, writer: StreamWriter, said: ShareHeader, source: str) -> None:
    """Move a packed load message from one stream to another and check it on the way.

    Memory: a few MiB, the message's JSON and the public tables. Nothing may be kept of what was written unless this
    returns. Raises SealError, BadFrame, ModelError, InputError.
    """

    def taken(into: memoryview) -> memoryview:
        reader.fill(into)
        writer.write(into)
        return into

    text_bytes, nbytes = sizes(taken(memoryview(bytearray(HEAD_BYTES))), source, MAX_BYTES)
    header, shapes = described(bytes(taken(memoryview(bytearray(text_bytes)))), nbytes, source)
    public = [name for name in shapes if name.startswith(_PUBLIC)]
    if sum(shapes[name][0].itemsize * math.prod(shapes[name][1]) for name in public) > MAX_TABLES:
        raise BadFrame(f"{source}: its public tables are above the limit of {MAX_TABLES:,} bytes")
    tables: dict[str, np.ndarray] = {}
    hashes: dict[str, str] = {}
    buffer = memoryview(bytearray(_PIECE))
    for name, (dtype, shape) in shapes.items():
        if name in public:
            tables[name.removeprefix(_PUBLIC)] = np.empty(shape, dtype)
            taken(byte_view(tables[name.removeprefix(_PUBLIC)]))
            continue
        left, total = dtype.itemsize * math.prod(shape), hashlib.sha256()
        while left:
            piece = taken(buffer[: min(left, _PIECE)])
            total.update(piece)
            left -= len(piece)
        hashes[name] = total.hexdigest()
    reader.finish()
    check_message(header, shapes, tables, said)
    record: Any = header["record"]
    for tensor in weights_of(record):
        if hashes[WEIGHTS + tensor.name] != tensor.sha256:
            raise ModelError(
                f"public weights {tensor.name} are not those of the public record",
                remedy="share the model again",
            )


_KINDS: dict[str, type] = {
    **dict.fromkeys(("format", "name", "digest", "federation", "set", "weights"), str),
    **dict.fromkeys(("index", "hidden"), int),
    "lengths": list,
}
