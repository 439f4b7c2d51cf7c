"""Boolean replicated sharing: 64 gates a word, XOR free, an AND one round and one bit a party.

⟨b⟩ = b_0 ⊕ b_1 ⊕ b_2, P_i holds (b_i, b_{i+1}), in bit planes (``kernels.planes``). z_i = x_i & y_i ⊕ x_i & y_{i+1} ⊕
x_{i+1} & y_i ⊕ F(S_i) ⊕ F(S_{i+1}) goes to P_{i-1}, as for products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from mpc_ray.kernels.planes import and_summand, pair_summand
from mpc_ray.protocols.aby3.claims import Draw, Pieces, Words
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.product import zero_masks
from mpc_ray.protocols.runtime import Protocol


@dataclass(frozen=True)
class Bits:
    """One party's two pieces of planes: int64 (planes, …, words). Its text form holds no share."""

    own: torch.Tensor = field(repr=False)
    next: torch.Tensor = field(repr=False)

    @property
    def shape(self) -> torch.Size:
        return self.own.shape

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, index: object) -> Bits:
        return Bits(self.own[index], self.next[index])  # type: ignore[index]

    def __xor__(self, other: Bits) -> Bits:
        return Bits(self.own ^ other.own, self.next ^ other.next)

    def flipped(self, me: int) -> Bits:
        """¬b: piece 0 is complemented, by its two holders. Spare bits are complemented too."""
        return Bits(~self.own if me == 0 else self.own, ~self.next if me == 2 else self.next)


def stack(parts: Sequence[Bits]) -> Bits:
    """Single planes (…, words) as planes."""
    return Bits(torch.stack([p.own for p in parts]), torch.stack([p.next for p in parts]))


def join(parts: Sequence[Bits], dim: int = 0) -> Bits:
    """Concatenation along ``dim``."""
    if len(parts) == 1:
        return parts[0]
    return Bits(torch.cat([p.own for p in parts], dim), torch.cat([p.next for p in parts], dim))


def and_(place: Place, x: Bits, y: Bits) -> Protocol[Bits]:
    """⟨x & y⟩, one shape. 1 round, 8 bytes a word (64 gates) a party."""
    (f0, first), (f1, second) = zero_masks(place, x.shape, "and")
    z = and_summand(x.own, x.next, y.own, y.next, f0, f1)
    return (yield from _reshared(place, x, y, z, (first, second)))


def majority(place: Place, x: Bits) -> Protocol[Bits]:
    """The majority of x_0, x_1, x_2, each known to the two parties that hold it: x's pieces as three numbers' bits.

    1 round, 8 bytes a word a party.
    """
    (f0, first), (f1, second) = zero_masks(place, x.shape, "and")
    return (yield from _reshared(place, x, None, pair_summand(x.own, x.next, f0, f1), (first, second)))


def _reshared(
    place: Place, x: Bits, y: Bits | None, z: torch.Tensor, masks: tuple[Draw, Draw]
) -> Protocol[Bits]:
    place.send(place.me - 1, z, "and")
    arrival = place.expect(place.me + 1, z.numel())
    yield
    result = Bits(z, arrival.int64(z.shape))
    if place.proving:
        right = None if y is None else Pieces(y.own, y.next)
        left, out = Pieces(x.own, x.next), Pieces(result.own, result.next)
        place.claim(Words(place.label, left, right, out, masks))
    return result
