"""What anyone may know of a shared model: the digest of its public record, and the facts that clients ask for.

On numpy alone: whoever only keeps or checks shares needs no more (``record`` makes records and reads them).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc_ray.errors import ModelError

WEIGHTS = "weights/"  # of a message's tensors that are public weights


@dataclass(frozen=True)
class PublicTensor:
    """A weight tensor that all parties hold in the clear: how it is stored, and SHA-256 of its bytes (hex)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: int
    sha256: str


def describe_tensor(name: str, array: np.ndarray, scale: int) -> PublicTensor:
    """What the record says of an integer tensor."""
    return PublicTensor(name, str(array.dtype), array.shape, scale, _hash(array))


def check_tensor(public: PublicTensor, array: np.ndarray | None) -> None:
    """Raises ModelError unless ``array`` is there and is the one that the record means."""
    if array is None or (str(array.dtype), array.shape) != (public.dtype, public.shape):
        found = "missing" if array is None else f"{array.dtype} {array.shape}"
        raise ModelError(
            f"public weights {public.name} are {found}, not {public.dtype} {public.shape}",
            remedy="client and party differ in version",
        )
    if _hash(array) != public.sha256:
        raise ModelError(
            f"public weights {public.name} are not those of the public record", remedy="share the model again"
        )


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def weights_of(record: Mapping[str, Any]) -> tuple[PublicTensor, ...]:
    """The public weights that a record names; none where weights are secret. Raises ModelError for no record."""
    try:
        return tuple(
            PublicTensor(
                **{**{k: v for k, v in entry.items() if k != "type"}, "shape": tuple(entry["shape"])}
            )
            for entry in record.get("weights", ())
        )
    except (AttributeError, KeyError, TypeError):
        raise ModelError(
            "the model's public record names no weights that can be", remedy="share the model again"
        ) from None


def digest(record: Mapping[str, Any], tables: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 over the JSON and the tables' names, dtypes, shapes and data, in one order."""
    total = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name in sorted(tables):
        table = tables[name]
        total.update(json.dumps([name, str(table.dtype), table.shape]).encode() + table.tobytes())
    return total.digest()


def tables_of(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The public tables among the tensors of a load message, by the names that its record uses."""
    return {name.removeprefix("public/"): t for name, t in tensors.items() if name.startswith("public/")}


def facts(record: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Hidden size, and the padded lengths, ascending, that a record has a plan for. Raises ModelError for no record."""
    try:
        hidden, entries = record["hidden"], record["reciprocals"]["map"]
        lengths = sorted(length for length, _ in entries)
    except (KeyError, TypeError, ValueError):
        hidden, lengths = None, []
    if type(hidden) is not int or not lengths or not all(type(length) is int for length in lengths):
        raise ModelError("the model's public record is not an encoder's", remedy="share the model again")
    return hidden, tuple(lengths)
