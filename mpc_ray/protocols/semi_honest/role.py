"""Roles of one chunk: E0 = P_k, E1 = P_{k+1}, D = P_{k+2}.

Who can expand what: D and E0 share seed S_k, D and E1 share S_{k+2}, E0 and E1 share S_{k+1} (unknown to D).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mpc_ray.channel.meter import ONLINE
from mpc_ray.correlation.prf import PRIVATE
from mpc_ray.kernels.elementwise import pack_low_bytes, unpack_low_bytes
from mpc_ray.protocols.runtime import Arrival, Runtime


@dataclass(eq=False)
class Role:
    """One party's view of a chunk: who it is there, its streams and its two counterparts.

    ``layer`` and ``function`` say what the bytes were for; they decide nothing.
    """

    runtime: Runtime
    k: int
    layer: str
    function: str
    site: int = field(init=False)
    _draws: dict[tuple[int, str], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.site = self.runtime.new_site()
        me = self.runtime.me
        self.e0, self.e1, self.d = self.k, (self.k + 1) % 3, (self.k + 2) % 3
        self.is_e0, self.is_e1, self.is_d = me == self.e0, me == self.e1, me == self.d

    @property
    def label(self) -> str:
        return f"{self.layer}/{self.function}"

    @property
    def other(self) -> int:
        """The other evaluator (for an evaluator)."""
        return self.e1 if self.is_e0 else self.e0

    # -- streams ---------------------------------------------------------------------------------------

    def _name(self, seed: int, purpose: str) -> tuple[int, str, int, int, int]:
        """The name of this chunk's next stream from a seed for a purpose."""
        chunk = self._draws.get((seed, purpose), 0)
        self._draws[seed, purpose] = chunk + 1
        return (seed if seed == PRIVATE else seed % 3, purpose, self.k, self.site, chunk)

    def _bytes(self, seed: int, purpose: str, length: int) -> np.ndarray:
        return self.runtime.correlation.bytes(*self._name(seed, purpose), length)

    def _drawn(self, seed: int, purpose: str, length: int) -> torch.Tensor:
        return self.runtime.correlation.drawn(*self._name(seed, purpose), length)

    def bytes_with_e0(self, purpose: str, length: int) -> np.ndarray:
        """D and E0's common bytes (S_k)."""
        return self._bytes(self.k, purpose, length)

    def bytes_with_e1(self, purpose: str, length: int) -> np.ndarray:
        """D and E1's common bytes (S_{k+2})."""
        return self._bytes(self.k + 2, purpose, length)

    def bytes_with_dealer(self, purpose: str, length: int) -> np.ndarray:
        """An evaluator's common bytes with D."""
        return self.bytes_with_e0(purpose, length) if self.is_e0 else self.bytes_with_e1(purpose, length)

    def bytes_of_evaluators(self, purpose: str, length: int) -> np.ndarray:
        """E0 and E1's common bytes (S_{k+1}), unknown to D."""
        return self._bytes(self.k + 1, purpose, length)

    def private_bytes(self, purpose: str, length: int) -> np.ndarray:
        """Bytes that only this party knows."""
        return self._bytes(PRIVATE, purpose, length)

    # The same as tensors on this party's device: bytes, then elements of Z_2^64, then what they are added to.

    def drawn_with_e0(self, purpose: str, length: int) -> torch.Tensor:
        return self._drawn(self.k, purpose, length)

    def drawn_with_e1(self, purpose: str, length: int) -> torch.Tensor:
        return self._drawn(self.k + 2, purpose, length)

    def drawn_with_dealer(self, purpose: str, length: int) -> torch.Tensor:
        return self._drawn(self._dealers, purpose, length)

    def drawn_of_evaluators(self, purpose: str, length: int) -> torch.Tensor:
        return self._drawn(self.k + 1, purpose, length)

    def drawn_privately(self, purpose: str, length: int) -> torch.Tensor:
        return self._drawn(PRIVATE, purpose, length)

    def with_e0(self, purpose: str, shape: Sequence[int]) -> torch.Tensor:
        return self.drawn_with_e0(purpose, 8 * _count(shape)).view(torch.int64).reshape(tuple(shape))

    def with_e1(self, purpose: str, shape: Sequence[int]) -> torch.Tensor:
        return self.drawn_with_e1(purpose, 8 * _count(shape)).view(torch.int64).reshape(tuple(shape))

    def with_dealer(self, purpose: str, shape: Sequence[int]) -> torch.Tensor:
        return self.drawn_with_dealer(purpose, 8 * _count(shape)).view(torch.int64).reshape(tuple(shape))

    def add_with_dealer(self, z: torch.Tensor, purpose: str, constant: int = 0) -> torch.Tensor:
        """z + ``with_dealer`` + constant, at an evaluator, in one pass."""
        return self.runtime.correlation.added(z, *self._name(self._dealers, purpose), constant)

    def add_with_e1(self, z: torch.Tensor, purpose: str) -> torch.Tensor:
        """z + ``with_e1``, at D or E1, in one pass."""
        return self.runtime.correlation.added(z, *self._name(self.k + 2, purpose))

    @property
    def _dealers(self) -> int:
        """The seed that an evaluator shares with D."""
        return self.k if self.is_e0 else self.k + 2

    # -- messages --------------------------------------------------------------------------------------

    def send(self, peer: int, data: torch.Tensor | np.ndarray, what: str, phase: str = ONLINE) -> None:
        self.runtime.send(peer, data, f"{self.function}/{what}", self.layer, phase)

    def expect(self, peer: int, length: int) -> Arrival:
        return self.runtime.expect(peer, length)

    def deal(
        self,
        value: torch.Tensor | None,
        shape: Sequence[int],
        what: str,
        nbytes: int = 8,
        phase: str = ONLINE,
    ) -> Dealt:
        """D hands out a 2-of-2 sharing of ``value`` mod 2^(8·nbytes); evaluators pass None.

        ``phase``: OFFLINE if the value depends on nothing but D's randomness, so that it could be dealt ahead.

        E0's half is expanded from S_k, E1 receives value - half: a one-time pad under S_k, which E1 lacks.
        0 rounds of its own, D sends nbytes an element.
        """
        count = _count(shape)
        if self.is_e1:
            return Dealt(tuple(shape), nbytes, arrival=self.expect(self.d, nbytes * count))
        raw = self.drawn_with_e0(what, nbytes * count)
        half = _words(raw, nbytes)
        if self.is_e0:
            return Dealt(tuple(shape), nbytes, half=half)
        assert value is not None
        rest = value.reshape(-1) - half
        self.send(self.e1, pack_low_bytes(rest, nbytes) if nbytes < 8 else rest, what, phase)
        return Dealt(tuple(shape), nbytes)


@dataclass
class Dealt:
    """An evaluator's half of a dealt value; readable after the round. D has none."""

    shape: tuple[int, ...]
    nbytes: int
    half: torch.Tensor | None = None
    arrival: Arrival | None = None

    def share(self) -> torch.Tensor:
        """int64 of ``shape``: the half, mod 2^(8·nbytes)."""
        if self.half is None:
            assert self.arrival is not None
            self.half = _words(self.arrival.tensor(), self.nbytes)
        return self.half.reshape(self.shape)


def _words(raw: torch.Tensor, nbytes: int) -> torch.Tensor:
    """Bytes to int64, nbytes little-endian bytes an element."""
    return unpack_low_bytes(raw, nbytes) if nbytes < 8 else raw.view(torch.int64)


def _count(shape: Sequence[int]) -> int:
    return math.prod(shape)
