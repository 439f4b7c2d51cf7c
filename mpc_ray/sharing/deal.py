"""Receiving shares: a party's halves from its parcel (``parcel`` says what each party is sent)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch

from mpc_ray.errors import InputError
from mpc_ray.sharing.parcel import MAX_BYTES, Parcel, Secret, bounded, deal, expanded, seeds_of
from mpc_ray.sharing.replicated import Shared

__all__ = ["MAX_BYTES", "Parcel", "Secret", "deal", "receive", "receive_one_by_one"]


def receive(
    me: int, header: Mapping[str, Any], tensors: Mapping[str, np.ndarray], max_bytes: int = MAX_BYTES
) -> dict[str, Shared]:
    """A party's halves from its parcel. Raises InputError where a tensor is missing or has another shape, or where the
    parcel is another party's: with two parcels a party would hold everything."""
    bounded(header, max_bytes)
    seeds = seeds_of(me, header)
    return {name: _held(me, name, public, seeds, tensors) for name, public in header["shares"].items()}


def receive_one_by_one(
    me: int, header: Mapping[str, Any], tensors: MutableMapping[str, np.ndarray]
) -> Callable[[str], Shared | None]:
    """As ``receive``, but expands a tensor only when it is asked for, and lets go of its data: each can be had once.

    A model need not be in memory twice. The function returned answers None for a name the parcel lacks.
    """
    bounded(header, MAX_BYTES)
    seeds = seeds_of(me, header)

    def take(name: str) -> Shared | None:
        public = header["shares"].get(name)
        if public is None:
            return None
        shared = _held(me, name, public, seeds, tensors)
        tensors.pop(name, None)
        return shared

    return take


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
        return torch.from_numpy(expanded(seeds[i], name, shape))
    array = tensors.get(name)
    if array is None or array.dtype != np.int64 or array.shape != shape:
        found = "missing" if array is None else f"{array.dtype} {array.shape}"
        raise InputError(
            f"shares of {name} are {found}, not int64 {shape}", remedy="client and party differ in version"
        )
    return torch.from_numpy(array)
