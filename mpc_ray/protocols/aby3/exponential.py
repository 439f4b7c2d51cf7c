"""e^x of shared numbers below zero, as one one-party sum (``functions.exp_digits`` has the formula)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mpc_ray.functions.exp_digits import CELL_LOG, EXP_RAW_SCALE, LEVELS, factor_table, level_steps
from mpc_ray.kernels.planes import WORD, spread
from mpc_ray.kernels.replicated import EXP_POSITION, exp_others, exp_owner
from mpc_ray.kernels.ring import shift_right_logical
from mpc_ray.protocols.aby3.convert import window
from mpc_ray.protocols.aby3.one_party import one_party_sums
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.thresholds import at_least
from mpc_ray.protocols.aby3.truncate import truncate
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.sharing.replicated import Shared

EXP_TRUNCATED = 32
EXP_SCALE = EXP_RAW_SCALE - EXP_TRUNCATED


@dataclass(frozen=True)
class _Exp:
    """Π e^(a_i)·Σ_j steps[j]·[H ≥ -LEVELS + j]."""

    own: torch.Tensor
    next: torch.Tensor
    own_levels: torch.Tensor  # planes (LEVELS, words)
    next_levels: torch.Tensor
    top: int
    parts: int = LEVELS + 1
    outputs: int = 1

    def _planes(self, side: int, part: slice) -> torch.Tensor:
        return (self.own_levels, self.next_levels)[side][:, part.start // WORD : part.stop // WORD]

    def _factor(self, side: int, part: slice) -> torch.Tensor:
        shifted = shift_right_logical((self.own, self.next)[side][part], self.top - EXP_POSITION)
        return factor_table()[shifted & ((1 << EXP_POSITION) - 1)]

    def _bit(self, side: int, part: slice, j: int) -> torch.Tensor:
        return spread(self._planes(side, part)[j], part.stop - part.start)

    def owner(self, k: int, part: slice, masks: torch.Tensor) -> torch.Tensor:
        planes = self._planes(0, part), self._planes(1, part)
        return exp_owner(self.own[part], self.next[part], 0, 0, self.top, factor_table(), *planes, masks)

    def others(self, k: int, which: int, part: slice, d: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        side = 1 if which == 1 else 0
        piece = (self.own, self.next)[side][part]
        planes = self._planes(side, part)
        return exp_others(piece, 0, self.top, factor_table(), level_steps(), planes, d, masks[0]).unsqueeze(0)

    def terms(self, r: int) -> int:
        return 1 if r == 0 else 2

    def left(self, side: int, k: int, part: slice, r: int) -> Sequence[torch.Tensor]:
        e = self._factor(side, part)
        if r == 0:
            return [e]
        b = self._bit(side, part, r - 1)
        return [e * b, e * (1 - 2 * b)]

    def right(self, side: int, k: int, part: slice, r: int) -> Sequence[torch.Tensor]:
        e = self._factor(side, part)
        return [e] if r == 0 else [e, e * self._bit(side, part, r - 1)]

    def factors(self, side: int, k: int, part: slice, output: int) -> Sequence[torch.Tensor]:
        e, steps = self._factor(side, part), level_steps()
        bits = [self._bit(side, part, j) for j in range(LEVELS)]
        first = sum((steps[j] * bits[j] for j in range(LEVELS)), torch.zeros_like(e))
        return [e * first, *(e * steps[j] * (1 - 2 * bits[j]) for j in range(LEVELS))]

    def values(self, side: int, k: int, which: int, part: slice, d: torch.Tensor) -> Sequence[torch.Tensor]:
        return list(d)


def exp_below_zero(place: Place, x: Shared, bits: int) -> Protocol[Shared]:
    """⟨e^x⟩ at EXP_SCALE for flat x (whole words) at its scale, -4·2^bits + 12 < x < 0.

    Rounds: those of a window of ``bits`` bits and its thresholds, 2, and 2 for the truncation. Bytes an element, all
    parties together: the gates', 8·(LEVELS + 3) and 16.
    """
    top = x.scale + CELL_LOG
    high = yield from window(place, x, top, bits)
    levels = yield from at_least(place, high, [(1 << bits) - LEVELS + j for j in range(LEVELS)])
    form = _Exp(x.own, x.next, levels.own, levels.next, top)
    raw = yield from one_party_sums(place, form, len(x.own))
    return (yield from truncate(place, Shared(raw.own[0], raw.next[0], EXP_RAW_SCALE), EXP_TRUNCATED))
