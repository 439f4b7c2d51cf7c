"""Handing out shares: what an owner (of a text, of a model) sends to each party.

Summands 0 and 1 of every tensor are expanded from two fresh seeds, only summand 2 is data. P0 gets both seeds
and no data; P1 seed 1 and summand 2; P2 summand 2 and seed 0. Each message is uniform by itself: a seed and a
one-time-padded tensor, or two seeds.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mpc_ray.correlation.prf import derive, expand
from mpc_ray.errors import InputError
from mpc_ray.sharing.replicated import Shared

MAX_BYTES = 4 << 30  # of one summand of all tensors of a parcel


@dataclass(frozen=True)
class Secret:
    """A ring tensor to be shared, int64, at ``scale``. Its text form holds no value."""

    value: torch.Tensor = field(repr=False)
    scale: int


@dataclass(frozen=True)
class Parcel:
    """What one party receives: ``header`` (JSON, with its seeds) and ``tensors`` (int64). Its text form has neither."""

    header: dict[str, Any] = field(repr=False)
    tensors: dict[str, np.ndarray] = field(repr=False)


def deal(secrets: Mapping[str, Secret], entropy: tuple[bytes, bytes] | None = None) -> list[Parcel]:
    """Three parcels, for P0, P1, P2, from two fresh seeds. ``entropy`` (tests only) fixes the two 32-byte seeds.

    8 bytes an element to P1 and P2 each, none to P0.
    """
    first, second = entropy if entropy is not None else (os.urandom(32), os.urandom(32))
    data: dict[str, np.ndarray] = {}
    for name, secret in secrets.items():
        shape = tuple(secret.value.shape)
        rest = secret.value - _expand(first, name, shape) - _expand(second, name, shape)
        data[name] = rest.numpy()
    seeds = ({"0": first.hex(), "1": second.hex()}, {"1": second.hex()}, {"0": first.hex()})
    return [
        Parcel({"shares": _public(secrets), "seeds": seeds[i]}, {} if i == 0 else dict(data))
        for i in range(3)
    ]


def _public(secrets: Mapping[str, Secret]) -> dict[str, Any]:
    return {name: {"shape": list(s.value.shape), "scale": s.scale} for name, s in secrets.items()}


def receive(
    me: int, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray], max_bytes: int = MAX_BYTES
) -> dict[str, Shared]:
    """A party's halves from its parcel. Raises InputError where a tensor is missing or has another shape, or where the
    parcel is another party's: with two parcels a party would hold everything."""
    _bounded(header, max_bytes)
    seeds = _seeds(me, header)
    return {name: _held(me, name, public, seeds, tensors) for name, public in header["shares"].items()}


def receive_one_by_one(
    me: int, header: Mapping[str, Any], tensors: MutableMapping[str, np.ndarray]
) -> Callable[[str], Shared | None]:
    """As ``receive``, but expands a tensor only when it is asked for, and lets go of its data: each can be had once.

    A model need not be in memory twice. The function returned answers None for a name the parcel lacks.
    """
    _bounded(header, MAX_BYTES)
    seeds = _seeds(me, header)

    def take(name: str) -> Shared | None:
        public = header["shares"].get(name)
        if public is None:
            return None
        shared = _held(me, name, public, seeds, tensors)
        tensors.pop(name, None)
        return shared

    return take


def _bounded(header: Mapping[str, Any], max_bytes: int) -> None:
    """What would be expanded from seeds is checked before memory is taken: a short header can name any shape."""
    total = 0
    for name, public in header["shares"].items():
        shape = public["shape"]
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise InputError(
                f"shares of {name[:40]} have no shape", remedy="client and party differ in version"
            )
        total += 8 * math.prod(shape)
    if total > max_bytes:
        raise InputError(
            f"shares of {total} bytes, at most {max_bytes} are taken", remedy="send less at once"
        )


def _seeds(me: int, header: Mapping[str, Any]) -> dict[int, bytes]:
    seeds = {int(i): bytes.fromhex(seed) for i, seed in header["seeds"].items()}
    if seeds.keys() != {me, (me + 1) % 3} & {0, 1} or any(len(seed) != 32 for seed in seeds.values()):
        raise InputError(f"these shares are not party {me}'s", remedy="send each party its own")
    return seeds


def _held(
    me: int,
    name: str,
    public: Mapping[str, Any],
    seeds: Mapping[int, bytes],
    tensors: Mapping[str, np.ndarray],
) -> Shared:
    shape = tuple(int(n) for n in public["shape"])
    own, following = (_piece(i % 3, name, shape, seeds, tensors) for i in (me, me + 1))
    return Shared(own, following, int(public["scale"]))


def _piece(
    i: int, name: str, shape: tuple[int, ...], seeds: Mapping[int, bytes], tensors: Mapping[str, np.ndarray]
) -> torch.Tensor:
    if i in seeds:
        return _expand(seeds[i], name, shape)
    array = tensors.get(name)
    if array is None or array.dtype != np.int64 or array.shape != shape:
        found = "missing" if array is None else f"{array.dtype} {array.shape}"
        raise InputError(
            f"shares of {name} are {found}, not int64 {shape}", remedy="client and party differ in version"
        )
    return torch.from_numpy(array)


def _expand(seed: bytes, name: str, shape: tuple[int, ...]) -> torch.Tensor:
    key = derive(seed, b"mpc-ray shares|" + name.encode())
    count = math.prod(shape)
    return torch.from_numpy(expand(key, 0, 0, 8 * count).view(np.int64)).reshape(shape)
