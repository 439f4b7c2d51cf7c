"""Windows: the interval of a function's argument that a look-up covers.

A window has 2^n cells of 2^t ring units. The argument x at scale s enters as u = x - low; u must lie in
[0, (2^n - 1)·2^t): the last cell is a guard, since the index of an opened value may be one too high.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """``low`` (real), ``n`` bits of index, cells of 2^``t`` ring units at ``scale`` fraction bits."""

    low: float
    n: int
    t: int
    scale: int

    def __post_init__(self) -> None:
        if not (3 <= self.n <= 16 and self.t >= 0 and self.t + self.n <= 63):
            raise ValueError(f"window of {self.n} bits and cells of 2^{self.t} units does not fit the ring")

    @property
    def cell(self) -> float:
        """Width of a cell in real units."""
        return math.ldexp(1.0, self.t - self.scale)

    @property
    def width(self) -> float:
        """Width of the whole window, the guard cell included."""
        return math.ldexp(1.0, self.t + self.n - self.scale)

    @property
    def high(self) -> float:
        """Upper end of the usable range."""
        return self.low + self.width - self.cell

    @property
    def low_units(self) -> int:
        """``low`` as a ring element at ``scale``."""
        return round(math.ldexp(self.low, self.scale))


def window_around(low: float, high: float, scale: int, cell: float, room: float = 2.0) -> Window:
    """A window with cells of at most ``cell`` whose middle half holds [low, high] (``room`` times the span).

    The width is a power of two. ``low`` is not moved to a multiple of the cell: where the range fills the middle half,
    its upper end would fall outside, and the range check would flag it.
    """
    span = max(high - low, 2 * cell)
    width = 2.0 ** math.ceil(math.log2(room * span))
    n = max(3, round(math.log2(width / cell)))
    t = round(math.log2(width)) - n + scale
    start = (low + high - width) / 2
    return Window(start, n, t, scale)
