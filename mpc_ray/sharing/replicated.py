"""Replicated secret sharing (RSS) of Z_2^64 and the additive sharings derived from it.

⟨x⟩: x = x_0 + x_1 + x_2, P_i holds (x_i, x_{i+1}). Two parties rebuild x, one learns nothing.
[z]: z = z_0 + z_1 + z_2, P_i holds z_i (what a local product gives).
Linear operations are local and cost no message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from mpc_ray.errors import ScaleError
from mpc_ray.sharing.fixed import check_scale


@dataclass(frozen=True)
class Shared:
    """One party's half of ⟨x⟩: summands x_i (``own``) and x_{i+1} (``next``), int64, at ``scale``.

    The text form holds no share: it may end up in a log or a traceback.
    """

    own: torch.Tensor = field(repr=False)
    next: torch.Tensor = field(repr=False)
    scale: int

    @property
    def shape(self) -> torch.Size:
        return self.own.shape

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> Shared:
        """Apply a linear, shape-only operation (slice, reshape, transpose, sum) to both summands."""
        return Shared(f(self.own), f(self.next), self.scale)

    def __getitem__(self, index: object) -> Shared:
        return self.map(lambda t: t[index])  # type: ignore[index]

    def __add__(self, other: Shared) -> Shared:
        check_scale(other.scale, self.scale, "addition of shared tensors")
        return Shared(self.own + other.own, self.next + other.next, self.scale)

    def rescaled(self, bits: int) -> Shared:
        """The same value at a scale larger by ``bits`` ≥ 0 (an exact power of two, local)."""
        if not 0 <= bits < 64:
            raise ScaleError(f"a shared tensor cannot be raised by {bits} bits", remedy="truncate it instead")
        return Shared(self.own << bits, self.next << bits, self.scale + bits)


@dataclass(frozen=True)
class Summand:
    """One party's z_i of [z], int64, at ``scale``. Its text form holds no share."""

    value: torch.Tensor = field(repr=False)
    scale: int

    @property
    def shape(self) -> torch.Size:
        return self.value.shape

    def map(self, f: Callable[[torch.Tensor], torch.Tensor]) -> Summand:
        return Summand(f(self.value), self.scale)

    def __getitem__(self, index: object) -> Summand:
        return self.map(lambda t: t[index])  # type: ignore[index]

    def __add__(self, other: Summand) -> Summand:
        check_scale(other.scale, self.scale, "addition of summands")
        return Summand(self.value + other.value, self.scale)


def summand(x: Shared) -> Summand:
    """⟨x⟩ → [x], local: every party keeps x_i."""
    return Summand(x.own, x.scale)


def concatenate(parts: Sequence[Shared], dim: int = 0) -> Shared:
    """Concatenation along ``dim``; all parts at one scale."""
    for part in parts[1:]:
        check_scale(part.scale, parts[0].scale, "concatenation")
    if len(parts) == 1:
        return parts[0]
    return Shared(
        torch.cat([p.own for p in parts], dim), torch.cat([p.next for p in parts], dim), parts[0].scale
    )


def reconstruct(parties: Sequence[Shared]) -> torch.Tensor:
    """x from all three parties' halves; checks that common copies agree (tests and the clear side only)."""
    for i in range(3):
        check_scale(parties[i].scale, parties[0].scale, f"party {i}'s half")
        if not torch.equal(parties[i].next, parties[(i + 1) % 3].own):
            raise ValueError(f"parties {i} and {(i + 1) % 3} disagree on their common summand")
    return parties[0].own + parties[1].own + parties[2].own
