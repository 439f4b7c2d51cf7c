"""What anyone may know of a shared model: the digest of its public record, and the facts that clients ask for.

On numpy alone: whoever only keeps or checks shares needs no more (``record`` makes records and reads them).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mpc_ray.errors import ModelError


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
