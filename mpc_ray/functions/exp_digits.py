"""e^x as a product of one factor for each piece of a shared x, and of one for its high bits: no polynomial.

With pieces a_i = x_i mod h, x = h·H + Σ a_i exactly, where H = Σ ⌊x_i/h⌋ modulo the window, and

    e^x  =  e^(a_0)·e^(a_1)·e^(a_2)·e^(h·H),      0 ≤ Σ a_i < 3h.

Each e^(a_i) is a table of what two parties know. For x < 0 only H = -1 … -LEVELS count: below, x < h·(3 - LEVELS - 1)
and e^x is taken as 0. The result is at EXP_RAW_SCALE; relative error about 2^-10, and 2^-16 absolute.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import torch

from mpc_ray.kernels.replicated import EXP_POSITION

CELL_LOG = 2  # h = 4
LEVELS = 5  # all x > -12 count, and some down to -20
FACTOR_SCALE = 9  # of e^(a_i), from 1 to e^4
HIGH_SCALE = 32  # of e^(h·H)
EXP_RAW_SCALE = 3 * FACTOR_SCALE + HIGH_SCALE


@cache
def factor_table() -> torch.Tensor:
    """e^a at FACTOR_SCALE for a in the middle of each of 2^EXP_POSITION parts of [0, h); int64.

    math.exp is correct to an ulp, and no value lies that close to a rounding boundary; the parties compare
    ``digest``s of all tables nevertheless.
    """
    h, count = 2.0**CELL_LOG, 1 << EXP_POSITION
    return torch.tensor([round(math.exp((p + 0.5) / count * h) * 2**FACTOR_SCALE) for p in range(count)])


@cache
def level_steps() -> torch.Tensor:
    """What e^(h·H), at HIGH_SCALE, grows by at H = -LEVELS, …, -1; int64."""
    h = 2.0**CELL_LOG
    values = [0, *(round(math.exp(h * level) * 2**HIGH_SCALE) for level in range(-LEVELS, 0))]
    return torch.tensor([after - before for before, after in pairwise(values)])
