"""Where a sub-protocol is at work: its streams, its messages, and whose bytes they are.

Seed S_i is held by P_{i-1} and P_i, the two holders of piece x_i. A party holds S_me and S_{me+1}; it lacks S_{me+2},
which is what masks whatever it receives.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from mpc_ray.kernels.elementwise import pack_low_bytes, unpack_low_bytes
from mpc_ray.protocols.aby3.claims import Claim, Draw
from mpc_ray.protocols.runtime import Arrival, Runtime

ALL = 0  # the role of what all three do alike; what is P_k's own has role 1 + k


@dataclass(eq=False)
class Place:
    """One party's streams for one piece of a program. ``layer`` and ``function`` name it and decide nothing else."""

    runtime: Runtime
    layer: str
    function: str
    site: int = field(init=False)
    _chunks: dict[tuple[int, str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.site = self.runtime.new_site()

    @property
    def me(self) -> int:
        return self.runtime.me

    @property
    def label(self) -> str:
        return f"{self.layer}/{self.function}"

    def bytes(self, seed: int, purpose: str, length: int, role: int = ALL) -> tuple[np.ndarray, Draw]:
        """``length`` fresh bytes of S_seed; its other holder asks for the same in the same order."""
        seed %= 3
        chunk = self._chunks.get((seed, purpose, role), 0)
        self._chunks[seed, purpose, role] = chunk + 1
        draw = Draw(seed, purpose, role, self.site, chunk, length)
        raw = self.runtime.correlation.bytes(seed, purpose, role, self.site, chunk, length)
        return raw, draw

    def words(
        self, seed: int, purpose: str, shape: tuple[int, ...], role: int = ALL, nbytes: int = 8
    ) -> tuple[torch.Tensor, Draw]:
        """Fresh elements of Z_2^(8·nbytes), int64 of ``shape``."""
        count = 1
        for n in shape:
            count *= n
        raw, draw = self.bytes(seed, purpose, nbytes * count, role)
        return as_words(raw, nbytes).reshape(shape), draw

    def send(self, peer: int, data: torch.Tensor, what: str, nbytes: int = 8) -> None:
        """The low ``nbytes`` bytes of every element; ``data`` must not change afterwards."""
        flat = data.reshape(-1)
        packed = flat if nbytes == 8 else pack_low_bytes(flat, nbytes)
        self.runtime.send(peer % 3, packed, f"{self.function}/{what}", self.layer)

    def expect(self, peer: int, count: int, nbytes: int = 8) -> Arrival:
        return self.runtime.expect(peer % 3, nbytes * count)

    def claim(self, record: Claim) -> None:
        """Hand a record to whoever proves (``claims``)."""
        self.runtime.claims.add(record)

    @property
    def proving(self) -> bool:
        return self.runtime.claims is not None


def as_words(raw: np.ndarray, nbytes: int) -> torch.Tensor:
    """Bytes to int64, ``nbytes`` little-endian bytes an element."""
    if nbytes == 8:
        return torch.from_numpy(raw.view(np.int64))
    return unpack_low_bytes(torch.from_numpy(raw), nbytes)
