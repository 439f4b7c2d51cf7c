"""Handing out shares: what an owner (of a text, of a model) sends to each party. Needs numpy alone.

Summands 0 and 1 of every tensor are expanded from two fresh seeds, only summand 2 is data. P0 gets both seeds
and no data; P1 seed 1 and summand 2; P2 summand 2 and seed 0. Each message is uniform by itself: a seed and a
one-time-padded tensor, or two seeds.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc_ray.channel.interface import byte_view
from mpc_ray.correlation.stream import derive, fill
from mpc_ray.errors import InputError
from mpc_ray.kernels.memory import empty
from mpc_ray.sharing.integers import Integers

MAX_BYTES = 4 << 30  # of one summand of all tensors of a parcel
SEED_BYTES = 32
_VERSIONS = "client and party differ in version"


@dataclass(frozen=True)
class Secret:
    """A ring tensor to be shared, int64, at ``scale``. Its text form holds no value."""

    value: Integers = field(repr=False)
    scale: int


@dataclass(frozen=True)
class Parcel:
    """What one party receives: ``header`` (JSON, with its seeds) and ``tensors`` (int64). Its text form has neither."""

    header: dict[str, Any] = field(repr=False)
    tensors: dict[str, Integers] = field(repr=False)


def deal(secrets: Mapping[str, Secret], entropy: tuple[bytes, bytes] | None = None) -> list[Parcel]:
    """Three parcels, for P0, P1, P2, from two fresh seeds. ``entropy`` (tests only) fixes the two 32-byte seeds.

    8 bytes an element to P1 and P2 each, none to P0.
    """
    first, second = entropy if entropy is not None else (os.urandom(SEED_BYTES), os.urandom(SEED_BYTES))
    data: dict[str, Integers] = {}
    for name, secret in secrets.items():
        # Flat, since numpy warns of what wraps around in a 0-d array.
        rest = secret.value.reshape(-1) - expanded(first, name, (secret.value.size,))
        rest -= expanded(second, name, (secret.value.size,))
        data[name] = rest.reshape(secret.value.shape)
    seeds = ({"0": first.hex(), "1": second.hex()}, {"1": second.hex()}, {"0": first.hex()})
    return [
        Parcel({"shares": _public(secrets), "seeds": seeds[i]}, {} if i == 0 else dict(data))
        for i in range(3)
    ]


def _public(secrets: Mapping[str, Secret]) -> dict[str, Any]:
    return {name: {"shape": list(s.value.shape), "scale": s.scale} for name, s in secrets.items()}


def bounded(header: Mapping[str, Any], max_bytes: int = MAX_BYTES) -> None:
    """What would be expanded from seeds is checked before memory is taken: a short header can name any shape.

    Raises InputError for a shape or scale that is none, and above ``max_bytes``.
    """
    shares = header.get("shares")
    if not isinstance(shares, dict):
        raise InputError("a parcel without shares", remedy=_VERSIONS)
    total = 0
    for name, public in shares.items():
        if not isinstance(public, dict) or not _is_shape(public.get("shape")):
            raise InputError(f"shares of {name[:40]} have no shape", remedy=_VERSIONS)
        if type(public.get("scale")) is not int or abs(public["scale"]) > 63:
            raise InputError(f"shares of {name[:40]} have no scale", remedy=_VERSIONS)
        total += 8 * math.prod(public["shape"])
    if total > max_bytes:
        raise InputError(
            f"shares of {total} bytes, at most {max_bytes} are taken", remedy="send less at once"
        )


def seeds_of(me: int, header: Mapping[str, Any]) -> dict[int, bytes]:
    """The seeds of a parcel, by summand. Raises InputError unless they are exactly those that party ``me`` may have:
    with two parcels a party would hold everything."""
    seeds = header.get("seeds")
    wanted = {str(i) for i in {me, (me + 1) % 3} & {0, 1}}
    if not isinstance(seeds, dict) or seeds.keys() != wanted or not all(map(_is_seed, seeds.values())):
        raise InputError(f"these shares are not party {me}'s", remedy="send each party its own")
    return {int(i): bytes.fromhex(seed) for i, seed in seeds.items()}


def _is_shape(shape: object) -> bool:
    return isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)


def _is_seed(seed: object) -> bool:
    return isinstance(seed, str) and re.fullmatch(f"[0-9a-f]{{{2 * SEED_BYTES}}}", seed) is not None


def expanded(seed: bytes, name: str, shape: tuple[int, ...]) -> Integers:
    """The summand of tensor ``name`` that ``seed`` stands for."""
    key = derive(seed, b"mpc-ray shares|" + name.encode())
    out: Integers = empty(shape, np.int64)
    fill(byte_view(out), key, bytes(16))
    return out
