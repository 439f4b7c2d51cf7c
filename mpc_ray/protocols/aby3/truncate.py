"""Exact truncation without a dealer: two rounds, four messages of f bits an element among the three.

x' = x + 7·2^61 as a number in [3·2^62, 2^64), for |x| < 2^61; x'_0 + x'_1 + x'_2 = x' + W·2^64 with W = 0, 1 or 2, so

    x >> f  =  Σ (x'_i >> f) - W·2^(64-f) - 7·2^(61-f),  low by 0, 1 or 2,

and only W mod 2^f is wanted. Of pieces k and k+1 take the two top bits, h = 2t + l, of piece k+2 the top bit t_{k+2}:

    W = κ + t_{k+2}·(t_k + t_{k+1} + λ - 2κ),   κ = [h_k + h_{k+1} ≥ 4],   λ = l_k·l_{k+1}.

For: v = h_k + h_{k+1} is x'_k + x'_{k+1} over 2^62 but for less than 2, and v = 4κ + 2m + …, m = t_k + t_{k+1} + λ -
2κ its middle bit. Were v exact, the sum of three would wrap beyond κ when m and t_{k+2} are both 1 and not when both
are 0, and with x' in the top quarter one of the two holds (a sum whose top bit is 1 has a carry exactly where both
top bits are 1). v's error moves m only where t_{k+2} decides alike on both sides of the step. All 64 cases are in the
tests.

P_k knows κ and λ and is the owner of a one-party sum (``one_party``); κ is three products of piece k and piece k+1, λ
one. A quarter of the ring is lost: with |x| < 2^62 the middle bit would be wrong where both low halves carry.
The result is rounded: 1.5 units are added first, so it is off by less than 1.5 units either way, 0 on average, with a
variance of a quarter; never by a multiple of 2^(64-f), as the local truncations of SecureML and ABY3 §5.1 are at
times.

Two rounds where ABY3's text has none and the usual sharing of the two top bits of all pieces (three ANDs, two
conversions) has four; four messages of f bits, not six and three gates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mpc_ray.kernels.planes import WORD
from mpc_ray.kernels.replicated import top_bits_table, truncate_others, truncate_owner, truncated_piece
from mpc_ray.protocols.aby3.one_party import Halves, one_party_sums
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.sharing.replicated import Shared

RANGE_BITS = 61  # |x| < 2^61
OFFSET = 7 << 61


# What claims need of a piece's two top bits h = 2t + l, a column for each h.
_IS = torch.tensor([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # h = 1, 2, 3
_CARRIES_WITH = torch.tensor([[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]])  # h + 1, 2, 3 ≥ 4
_LOWER, _UPPER = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
_FACTORS = torch.tensor([[1, 1, -1, -1], [0, 0, 1, 1]])  # 1 - 2t, t


@dataclass(frozen=True)
class _Wraps:
    """W of x + ``constant`` (added to piece 0)."""

    own: torch.Tensor
    next: torch.Tensor
    me: int
    constant: int
    parts: int = 2
    outputs: int = 1

    def _at(self, side: int) -> tuple[torch.Tensor, int]:
        piece = self.own if side == 0 else self.next
        return piece, self.constant if (self.me + side) % 3 == 0 else 0

    def owner(self, k: int, part: slice, masks: torch.Tensor) -> torch.Tensor:
        (x0, c0), (x1, c1) = self._at(0), self._at(1)
        return truncate_owner(x0[part], x1[part], c0, c1, masks)

    def others(self, k: int, which: int, part: slice, d: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        (x2, c2), (y, cy) = (self._at(1), self._at(0)) if which == 1 else (self._at(0), self._at(1))
        return truncate_others(x2[part], c2, y[part], cy, d, masks[0]).unsqueeze(0)

    def terms(self, r: int) -> int:
        return 3 if r == 0 else 1

    def _of_top(self, side: int, part: slice, table: torch.Tensor) -> list[torch.Tensor]:
        piece, constant = self._at(side)
        return list(top_bits_table(piece[part], constant, table))

    def left(self, side: int, k: int, part: slice, r: int) -> Sequence[torch.Tensor]:
        return self._of_top(side, part, _IS if r == 0 else _LOWER)

    def right(self, side: int, k: int, part: slice, r: int) -> Sequence[torch.Tensor]:
        return self._of_top(side, part, _CARRIES_WITH if r == 0 else _LOWER)

    def factors(self, side: int, k: int, part: slice, output: int) -> Sequence[torch.Tensor]:
        return self._of_top(side, part, _FACTORS)

    def values(self, side: int, k: int, which: int, part: slice, d: torch.Tensor) -> Sequence[torch.Tensor]:
        (t,) = self._of_top(side, part, _UPPER)
        return [d[0], t.add_(d[1])]


def truncate(place: Place, x: Shared, f: int) -> Protocol[Shared]:
    """⟨x⟩ → ⟨x / 2^f⟩ at x.scale - f, for |x| + 2^(f+1) < 2^61 and 1 ≤ f < 60; off by less than 1.5, 0 on average.

    2 rounds; 4·⌈f/8⌉ bytes an element, all parties together, a third each.
    """
    if not 1 <= f < 60:
        raise ValueError(f"cannot truncate by {f} bits")
    shape, me = x.shape, place.me
    own, following, count = flat(x)
    constant = OFFSET + (3 << (f - 1))
    form = _Wraps(own, following, me, constant)
    w: Halves = yield from one_party_sums(place, form, len(own), -(-f // 8))
    shift = OFFSET >> f
    pieces = [
        truncated_piece(piece, constant if i % 3 == 0 else 0, wraps[0], f, shift if i % 3 == 0 else 0)[
            :count
        ].reshape(shape)
        for i, piece, wraps in ((me, own, w.own), (me + 1, following, w.next))
    ]
    return Shared(pieces[0], pieces[1], x.scale - f)


def flat(x: Shared) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Both pieces as lines of whole words, zeros appended, and how many elements are x's."""
    count = x.own.numel()
    missing = -count % WORD
    lines = []
    for piece in (x.own, x.next):
        line = piece.reshape(-1)
        lines.append(torch.nn.functional.pad(line, (0, missing)) if missing else line.contiguous())
    return lines[0], lines[1], count
