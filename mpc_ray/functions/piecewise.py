"""Piecewise polynomials with few public knots, as comparison-based protocols evaluate them.

A value's *index* is ⌊(x - low)/cell⌋ of n bits, known up to one more or less; [index ≥ T] for every knot T selects
the piece, so coefficient k of x's piece is constants[k] + Σ_j steps[k, j]·[index ≥ T_j]. Every piece is therefore
fitted one cell beyond its knots. All integers; coefficients are rounded one after the other, each fit making up for
the rounding before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import torch

from mpc_ray.errors import ScaleError
from mpc_ray.functions.spline import Function

POINTS = 33
ARGUMENT_SCALE = 11  # of an activation's argument: its square needs no truncation
FOURTH_SCALE = 20  # of its fourth power, truncated
STEEPEST_FOURTH = 64  # its coefficient, which multiplies its rounding too
LARGEST_FOURTH = 16.0  # beyond, the fourth power leaves the ring's truncation, and is not used
ROW_FINER = 4  # bits below a cell that a row function's argument keeps
ROW_INDEX_FINER = 6  # bits of the index below the smallest argument
CURVATURE_BITS = 9
VALUE_BITS = 58  # a row function's value before its truncation
MOST_KNOTS = 128


@dataclass(frozen=True)
class Piecewise:
    """``knots``: 0 < T < 2^n, increasing; steps (terms, J) and constants (terms,) int64; ``cell`` = 2^t units at
    ``scale``.

    ``low_units``: what is subtracted from x, in units of ``scale``. ``max_error``: against the function that was
    fitted. ``square_shift``: bits that a row function's square loses, so that its small coefficients keep some.
    """

    low_units: int
    t: int
    n: int
    scale: int
    knots: tuple[int, ...]
    steps: torch.Tensor
    constants: torch.Tensor
    out_scale: int
    max_error: float
    square_shift: int = 0

    @property
    def constant(self) -> int:
        """What is added to x before bits t … t+n-1 are taken: one cell more, so that an index low by 0, 1 or 2
        becomes one that is off by one at most.
        """
        return (1 << self.t) - self.low_units

    def coefficients(self, index: np.ndarray) -> np.ndarray:
        """(terms, …) int64 of the pieces that the indices select."""
        chosen = (np.asarray(index)[..., None] >= np.array(self.knots)).astype(np.int64)
        return np.asarray(
            self.constants.numpy()[:, None] + self.steps.numpy() @ chosen.reshape(-1, len(self.knots)).T
        )


def activation(
    f: Function, low: float, high: float, width_log: int, scale: int, out_scale: int, tolerance: float = 5e-4
) -> Piecewise:
    """f on [low, high] in 1, x, x², x⁴: x at ARGUMENT_SCALE, x⁴ at FOURTH_SCALE, the sum at ``out_scale``.

    The index has the window [low, low + 2^width_log). Cells of 1/16, or finer where f has a kink: down to the
    argument's own precision. Raises ScaleError for a function that needs more than MOST_KNOTS knots.
    """
    scales = [out_scale, out_scale - ARGUMENT_SCALE, out_scale - 2 * ARGUMENT_SCALE, out_scale - FOURTH_SCALE]
    best: Piecewise | None = None
    for cell_log in (-4, -7, -ARGUMENT_SCALE):
        cell = 2.0**cell_log

        def piece(a: int, b: int, cell: float = cell) -> tuple[list[int], float]:
            first, last = max(low, low + (a - 1) * cell), min(high, low + (b + 1) * cell)
            x = _nodes(first, max(last, first + cell))
            basis, wanted = np.stack([x**k for k in (0, 1, 2, 4)]), f(x)
            if max(abs(first), abs(last)) <= LARGEST_FOURTH:
                found = _rounded(basis, wanted, scales)
                if abs(found[0][3]) <= STEEPEST_FOURTH << scales[3]:
                    return found
            return _rounded(basis[:3], wanted, scales[:3])

        count = math.ceil((high - low) / cell)
        made = _joined(
            _greedy(piece, 0, count, tolerance),
            4,
            round(math.ldexp(low, scale)),
            cell_log,
            width_log,
            scale,
            out_scale,
        )
        if best is None or made.max_error < best.max_error / 2:
            best = made
        if best.max_error <= tolerance:
            break
    assert best is not None
    if len(best.knots) > MOST_KNOTS:
        raise ScaleError(
            f"a function of {len(best.knots)} pieces",
            remedy="aby3 evaluates smooth functions; take semi_honest_3pc",
        )
    return best


def row_function(
    f: Function,
    top: int,
    scale: int,
    smallest: float,
    *,
    high: float | None = None,
    tolerance: float = 1e-4,
    noise: float = 0.0,
) -> Piecewise:
    """f > 0 on [0, 2^top) at ``scale`` in 1, v, v²/2^s, with v the argument in units of 2^-ROW_FINER cells.

    Relative error ``tolerance`` from ``smallest`` to ``high`` (by default 2^top), and ``noise``, which is f's own;
    f's value at ``smallest`` below. The value comes out at the largest scale at which it stays below 2^VALUE_BITS,
    and is to be truncated. Raises ScaleError for a range that is too wide.
    """
    n = math.ceil(top - math.log2(smallest)) + ROW_INDEX_FINER
    if scale + top - n <= ROW_FINER:
        raise ScaleError(
            f"a function of rows from {smallest:.3g} to 2^{top} at scale {scale}", remedy="narrow the range"
        )
    cell_log = top - n
    cell, unit = 2.0**cell_log, 2.0 ** (cell_log - ROW_FINER)
    end = 2.0**top if high is None else high
    count = math.ceil(end / cell)
    grid = np.geomspace(smallest / 2, end, 1000)
    out_scale = math.floor(VALUE_BITS - math.log2(float(np.abs(f(grid)).max())))
    # The curvature of the flattest piece, in units, must keep CURVATURE_BITS.
    u = np.array([0.9, 0.95, 1.0]) * end
    bend = abs(float(np.diff(f(u), 2)[0])) / 2 / (end * 0.05 / unit) ** 2
    shift = max(0, math.ceil(CURVATURE_BITS - out_scale - math.log2(max(bend, 1e-300))))

    def piece(a: int, b: int) -> tuple[list[int], float]:
        x = _nodes(max(0.0, (a - 1) * cell), min((b + 1) * cell, end))
        wanted, v = np.ldexp(f(x), out_scale), x / unit
        middle = round(float(v.mean()))
        p = v - middle
        bend = round(float(_least(np.stack([p**0, p, p * p]), wanted, wanted)[2]) * 2.0**shift)
        rest = wanted - bend * np.ldexp(v * v, -shift)
        slope = round(float(_least(np.stack([p**0, p]), rest, wanted)[1]))
        rest = rest - slope * v
        offset = round(float(_least(p[None] ** 0, rest, wanted)[0]))
        return [offset, slope, bend], float(np.abs((rest - offset) / wanted).max())

    start = max(1, math.floor(smallest / cell) - 2)
    below: _Piece = (0, [round(math.ldexp(float(f(np.array([smallest]))[0]), out_scale)), 0, 0], 0.0)
    ratio = _ratio(tolerance)
    while True:
        pieces = [below, *_geometric(piece, start, count, ratio)]
        made = _joined(pieces, 3, 0, cell_log, top, scale, out_scale, shift)
        if made.max_error <= tolerance + noise:
            return made
        if len(made.knots) > MOST_KNOTS:
            raise ScaleError(
                f"a function of rows from {smallest:.3g} to 2^{top} needs {len(made.knots)} pieces",
                remedy="narrow the range",
            )
        ratio = 1 + (ratio - 1) * 0.95


@cache
def _ratio(tolerance: float) -> float:
    """How far apart a piece's ends may be for 1/x: powers of x need pieces of one ratio, gentler ones longer
    pieces.
    """
    ratio = 1.5
    while True:
        x = _nodes(1.0, ratio)
        solved = _least(np.stack([x**0, x, x * x]), 1 / x, 1 / x)
        error = float(np.abs((solved[0] + solved[1] * x + solved[2] * x * x) * x - 1).max())
        if error <= tolerance:
            return ratio
        ratio = 1 + (ratio - 1) * min(0.99, (tolerance / error) ** (1 / 3))


# ------------------------------------------------------------------------------------------------------

_Piece = tuple[int, list[int], float]  # first index, coefficients, error


def _greedy(
    fitted: Callable[[int, int], tuple[list[int], float]], start: int, count: int, tolerance: float
) -> list[_Piece]:
    """Pieces of [start, count) from the left, each as long as the tolerance lets it be: as few as can be.

    No more are looked for than one above what is refused for being too many.
    """
    pieces: list[_Piece] = []
    step = 1
    while start < count and len(pieces) <= MOST_KNOTS + 1:
        good, bad = start + 1, count + 1
        coefficients, error = fitted(start, good)
        while bad - good > 1:
            end = good + min(step, bad - 1 - good)
            found, size = fitted(start, end)
            if size <= tolerance:
                good, coefficients, error, step = end, found, size, 2 * step
            else:
                bad = end
                step = max(1, (bad - good) // 2)
        pieces.append((start, coefficients, error))
        step = max(1, (good - start) * 7 // 8)  # the next is likely to be about as long
        start = good
    return pieces


def _geometric(
    fitted: Callable[[int, int], tuple[list[int], float]], start: int, count: int, ratio: float
) -> list[_Piece]:
    """Pieces of [start, count) whose ends, and the cell beyond them, are at most ``ratio`` apart."""
    pieces: list[_Piece] = []
    while start < count:
        end = min(count, max(start + 1, math.floor((start - 1) * ratio) - 1))
        pieces.append((start, *fitted(start, end)))
        start = end
    return pieces


def _joined(
    pieces: Sequence[_Piece],
    terms: int,
    low_units: int,
    cell_log: int,
    width_log: int,
    scale: int,
    out_scale: int,
    square_shift: int = 0,
) -> Piecewise:
    columns = [[*c, *[0] * (terms - len(c))] for _, c, _ in pieces]
    steps = [[_wrap(after[k] - before[k]) for before, after in pairwise(columns)] for k in range(terms)]
    return Piecewise(
        low_units,
        scale + cell_log,
        width_log - cell_log,
        scale,
        tuple(start for start, _, _ in pieces[1:]),
        torch.tensor(steps, dtype=torch.int64).reshape(terms, -1),
        torch.tensor([_wrap(v) for v in columns[0]], dtype=torch.int64),
        out_scale,
        max(error for _, _, error in pieces),
        square_shift,
    )


def _rounded(basis: np.ndarray, wanted: np.ndarray, scales: Sequence[int]) -> tuple[list[int], float]:
    """Integers c_k at ``scales`` with Σ c_k·basis_k ≈ wanted; the largest error."""
    rest, out = wanted.astype(np.float64), [0] * len(scales)
    for k in range(len(scales) - 1, -1, -1):
        out[k] = round(float(np.ldexp(_least(basis[: k + 1], rest)[k], scales[k])))
        rest = rest - np.ldexp(float(out[k]), -scales[k]) * basis[k]
    return out, float(np.abs(rest).max())


def _least(basis: np.ndarray, wanted: np.ndarray, size: np.ndarray | None = None) -> np.ndarray:
    """Least squares, in units of ``size``, with columns brought to one size first."""
    if size is not None:
        basis, wanted = basis / size, wanted / size
    norms = np.maximum(np.abs(basis).max(1), 1e-300)
    return np.asarray(np.linalg.lstsq((basis / norms[:, None]).T, wanted, rcond=None)[0] / norms)


def _nodes(first: float, last: float) -> np.ndarray:
    """Chebyshev's, where least squares come close to the smallest largest error; the ends included."""
    t = np.cos(np.pi * np.arange(POINTS) / (POINTS - 1))
    return np.asarray((first + last) / 2 + (last - first) / 2 * t)


def _wrap(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
