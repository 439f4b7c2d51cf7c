"""What a model's owner gives to its clients: the tokenizer, the embedding tables, and the scales to share at.

A folder of client.json, tokenizer.json and embeddings.safetensors. client.json holds the SHA-256 of the other two, so
its own SHA-256, the bundle's digest, names all of it. The embedding tables are in the clear: whoever has the bundle
has them. Nothing else of the weights is in it. Read and written with numpy alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mpc_ray.errors import ConfigError, ModelError
from mpc_ray.models import tokenize
from mpc_ray.models.inputs import InputScales
from mpc_ray.models.tokenize import Limits, Tokenizer
from mpc_ray.models.weights import Array, Embeddings, Pooling, Table

SETTINGS = "client.json"
TABLES = "embeddings.safetensors"
FILES = (tokenize.FILE, TABLES)
_REMEDY = "get the bundle from the model's owner again"

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=1, le=1 << 24)]
Scale = Annotated[int, Field(ge=0, le=62)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Scales(_Strict):
    centre: Scale
    score: Scale
    pool: Scale
    depth: Annotated[float, Field(ge=0, le=1024)]


class _Settings(_Strict):
    format: Literal["mpc-ray client bundle v1"]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$")]
    model_digest: Hex
    hidden: Size
    vocab: Size
    max_positions: Size
    max_tokens: Size
    lower_case: bool
    lengths: Annotated[list[Size], Field(min_length=1, max_length=64)]
    pooling: Pooling
    normalize: bool
    scales: _Scales
    files: dict[str, Hex]

    @model_validator(mode="after")
    def _fits(self) -> _Settings:
        if sorted(set(self.lengths)) != self.lengths or self.lengths[-1] > self.max_positions:
            raise ValueError("lengths must ascend, up to max_positions")
        if self.max_tokens > self.max_positions or set(self.files) != set(FILES):
            raise ValueError("max_tokens or files do not fit")
        return self


@dataclass(frozen=True, eq=False)
class Lookup:
    """The tables that are looked up: ``word`` (vocab, h), ``position`` (max_positions, h), ``token_type`` (1, h)."""

    word: Table
    position: Array
    token_type: Array


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model as its clients know it. ``model_digest`` (hex) names the record that the parties hold, ``digest`` (hex)
    the bundle itself. ``lengths``: what texts may be padded to, ascending.
    """

    name: str
    model_digest: str
    digest: str
    hidden: int
    lengths: tuple[int, ...]
    pooling: Pooling
    normalize: bool
    scales: InputScales
    tables: Lookup
    tokenizer: Tokenizer

    @property
    def vocab(self) -> int:
        """How many token ids there are."""
        return self.tokenizer.limits.vocab

    @property
    def max_tokens(self) -> int:
        """What truncation cuts a text to, special tokens included."""
        return min(self.lengths[-1], self.tokenizer.max_tokens)

    @staticmethod
    def load(folder: str | os.PathLike[str], digest: str | None = None) -> Bundle:
        """Read a bundle. Memory: the tables, 4 bytes a number of ``word``.

        Raises ModelError if it is incomplete, changed, or not the one of ``digest`` where that is given.
        """
        root = Path(folder).expanduser()
        try:
            data = (root / SETTINGS).read_bytes()
            said = _Settings.model_validate_json(data)
            found = hashlib.sha256(data).hexdigest()
            if digest is not None and digest != found:
                raise ModelError(f"{root} is the bundle {found}, not {digest}", remedy=_REMEDY)
            for name, wanted in said.files.items():
                with (root / name).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != wanted:
                        raise ModelError(f"{root / name} is damaged, or of another bundle", remedy=_REMEDY)
            tables = load_file(root / TABLES)
        except OSError as error:
            raise ModelError(f"{root} is no client bundle: {error.strerror}", remedy=_REMEDY) from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "content"
            raise ModelError(f"{root / SETTINGS}: {where}: {first['msg']}", remedy=_REMEDY) from None
        except SafetensorError as error:
            raise ModelError(f"{root / TABLES} is no safetensors file", remedy=_REMEDY) from error
        limits = Limits(said.max_positions, said.max_tokens, said.vocab, said.lower_case)
        scales = InputScales(said.scales.centre, said.scales.score, said.scales.pool, said.scales.depth)
        return Bundle(
            name=said.name,
            model_digest=said.model_digest,
            digest=found,
            hidden=said.hidden,
            lengths=tuple(said.lengths),
            pooling=said.pooling,
            normalize=said.normalize,
            scales=scales,
            tables=_lookup(root, said, tables),
            tokenizer=Tokenizer(root, limits),
        )


def write_bundle(
    folder: Path,
    *,
    name: str,
    model_digest: str,
    embeddings: Embeddings,
    tokenizer: Tokenizer,
    lengths: tuple[int, ...],
    pooling: Pooling,
    normalize: bool,
    scales: InputScales,
) -> str:
    """Write a bundle as ``folder``, whole or not at all; its digest. Raises ConfigError if that exists or cannot be
    written.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists", remedy="name another folder")
    limits = tokenizer.limits
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            tokenizer.save(temporary)
            tables = {
                "word": embeddings.word,
                "position": _narrow(embeddings.position),
                "token_type": _narrow(embeddings.token_type[:1]),
            }
            save_file({key: np.ascontiguousarray(table) for key, table in tables.items()}, temporary / TABLES)
            settings = _Settings(
                format="mpc-ray client bundle v1",
                name=name,
                model_digest=model_digest,
                hidden=embeddings.word.shape[1],
                vocab=limits.vocab,
                max_positions=limits.max_positions,
                max_tokens=limits.max_tokens,
                lower_case=limits.lower_case,
                lengths=list(lengths),
                pooling=pooling,
                normalize=normalize,
                scales=_Scales(
                    centre=scales.centre, score=scales.score, pool=scales.pool, depth=scales.depth
                ),
                files={file: hashlib.sha256((temporary / file).read_bytes()).hexdigest() for file in FILES},
            )
            data = json.dumps(settings.model_dump(), indent=2).encode() + b"\n"
            (temporary / SETTINGS).write_bytes(data)
            for path in (*temporary.iterdir(), temporary):  # it is for others to read
                path.chmod(0o755 if path == temporary else 0o644)
            os.rename(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written: {error.strerror}", remedy="name another folder"
        ) from None
    return hashlib.sha256(data).hexdigest()


def _narrow(table: Array) -> Table:
    """As float32 where that loses nothing, as it does for what came from a float32 file."""
    narrow = table.astype(np.float32)
    return narrow if np.array_equal(narrow, table) else table


def _lookup(root: Path, said: _Settings, tables: dict[str, np.ndarray]) -> Lookup:
    shapes = {
        "word": (said.vocab, said.hidden),
        "position": (said.max_positions, said.hidden),
        "token_type": (1, said.hidden),
    }
    for name, shape in shapes.items():
        table = tables.get(name)
        if table is None or table.shape != shape or table.dtype not in (np.float32, np.float64):
            raise ModelError(f"{root / TABLES}: no table {name} of shape {shape}", remedy=_REMEDY)
        if not np.isfinite(table).all():
            raise ModelError(f"{root / TABLES}: table {name} is not finite", remedy=_REMEDY)
    wide = {name: tables[name].astype(np.float64) for name in ("position", "token_type")}
    return Lookup(tables["word"], wide["position"], wide["token_type"])
