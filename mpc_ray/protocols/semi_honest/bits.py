"""Bits shared by XOR between E0 and E1, eight to a byte, and products of several of them in one round.

Every vector of N bits is ⌈N/8⌉ bytes, low bit first, in memory and on the wire; the spare bits mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray

from mpc_ray.channel.meter import OFFLINE
from mpc_ray.protocols.runtime import Arrival
from mpc_ray.protocols.semi_honest.role import Role

Packed = NDArray[np.uint8]


def packed_bytes(count: int) -> int:
    """Bytes of ``count`` bits."""
    return (count + 7) // 8


def pack(bits: NDArray[np.uint8]) -> Packed:
    """(…, N) of 0 and 1 → (…, ⌈N/8⌉)."""
    return np.packbits(bits, axis=-1, bitorder="little")


def unpack(packed: Packed, count: int) -> torch.Tensor:
    """(⌈count/8⌉,) → int64 (count,) of 0 and 1."""
    return torch.from_numpy(np.unpackbits(packed, count=count, bitorder="little").astype(np.int64))


@dataclass(frozen=True)
class SecretBit:
    """One party's view of XOR-shared bits of ``shape``: an evaluator's packed share; D has none."""

    shape: torch.Size
    share: Packed | None

    @property
    def count(self) -> int:
        return self.shape.numel()

    def flipped(self, role: Role) -> SecretBit:
        """1 - b, local."""
        if self.share is None or role.is_e1:
            return self
        return SecretBit(self.shape, ~self.share)


@dataclass
class DealtBits:
    """An evaluator's XOR share of packed random bits, D's own, that D hands out in this round; D has none.

    E0's half is a stream, E1 receives value XOR half: a one-time pad under S_k, which E1 lacks. D sends as many bytes
    as the value has.
    """

    role: Role
    value: Packed | None
    shape: tuple[int, ...]
    what: str
    _half: Packed | None = field(init=False, default=None)
    _arrival: Arrival | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        role, length = self.role, int(np.prod(self.shape))
        if role.is_e1:
            self._arrival = role.expect(role.d, length)
            return
        self._half = role.bytes_with_e0(self.what, length).reshape(self.shape)
        if role.is_d:
            assert self.value is not None
            role.send(role.e1, self.value ^ self._half, self.what, OFFLINE)

    def share(self) -> Packed:
        """An evaluator's half, after the round."""
        if self._half is None:
            assert self._arrival is not None
            self._half = self._arrival.bytes().reshape(self.shape)
        return self._half


class BitProducts:
    """XOR shares of products of XOR-shared bits, begun in this round and read after it.

    ``inputs`` (v, …, bytes) packed (D: None), ``shape`` theirs; ``terms``: tuples of input numbers. With masks m known
    to D and p = input XOR m opened to E0 and E1,
        ∏_{i in T} (p_i ⊕ m_i)  =  ⊕_{S ⊆ T} ∏_{i in T-S} p_i · ∏_{i in S} m_i,
    where D deals the products of two or more masks. (The several-input AND of ABY2.0, USENIX Security 2021, with a
    dealer.)
    1 round; E0 and E1 send the inputs' bytes each, D those of ``dealt_products(terms)`` inputs.
    Reveals nothing: each half of m is a stream that the receiver of p's half lacks, so p is uniform to it.
    """

    def __init__(
        self,
        role: Role,
        inputs: Packed | None,
        shape: tuple[int, ...],
        terms: Sequence[tuple[int, ...]],
        what: str,
    ) -> None:
        self.role, self.terms, self.shape = role, terms, shape
        self._products = _mask_products(terms)
        dealt = (len(self._products), *shape[1:])
        length = int(np.prod(shape))
        name = f"{what} mask"
        if role.is_d:
            mask = (role.bytes_with_e0(name, length) ^ role.bytes_with_e1(name, length)).reshape(shape)
            value = np.empty(dealt, np.uint8)
            for row, product in enumerate(self._products):
                np.bitwise_and.reduce(mask[list(product)], axis=0, out=value[row])
            DealtBits(role, value, dealt, f"{what} products")
            return
        assert inputs is not None
        self._mask = role.bytes_with_dealer(name, length).reshape(shape)
        self._mine = inputs ^ self._mask
        role.send(role.other, self._mine, what)
        self._arrival = role.expect(role.other, length)
        self._dealt = DealtBits(role, None, dealt, f"{what} products")

    def shares(self) -> list[Packed]:
        """An evaluator's share of every term, each (…, bytes)."""
        public = self._mine ^ self._arrival.bytes().reshape(self.shape)
        known: dict[tuple[int, ...], Packed] = {(i,): self._mask[i] for i in range(self.shape[0])}
        known.update(zip(self._products, self._dealt.share(), strict=True))
        return [self._expanded(term, public, known) for term in self.terms]

    def _expanded(
        self, term: tuple[int, ...], public: Packed, known: dict[tuple[int, ...], Packed]
    ) -> Packed:
        total = np.zeros(self.shape[1:], np.uint8)
        for size in range(len(term) + 1):
            if size == 0 and not self.role.is_e0:
                continue  # the product of public bits is added once
            for subset in combinations(term, size):
                part = known[subset] if subset else np.full(self.shape[1:], 255, np.uint8)
                for i in term:
                    if i not in subset:
                        part = part & public[i]
                total ^= part
        return total


def dealt_products(terms: Sequence[tuple[int, ...]]) -> int:
    """How many products of masks D deals for ``terms``."""
    return len(_mask_products(terms))


def _mask_products(terms: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    subsets = {s for term in terms for size in range(2, len(term) + 1) for s in combinations(term, size)}
    return sorted(subsets, key=lambda s: (len(s), s))
