"""Piecewise polynomials with few public knots, as comparison-based protocols evaluate them.

A value's *index* is ⌊(x - low)/cell⌋ of n bits, known up to one more or less; [index ≥ T] for every knot T selects the
piece, so coefficient k of x's piece is constants[k] + Σ_j steps[k, j]·[index ≥ T_j]. Every piece is therefore fitted one cell
beyond its knots. All integers; coefficients are rounded one after the other, each fit making up for the rounding before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mpc_ray.errors import ScaleError
from mpc_ray.functions.spline import Function

POINTS = 65
ARGUMENT_SCALE = 11  # of an activation's argument: its square needs no truncation
FOURTH_SCALE = 20  # of its fourth power, truncated
LARGEST_FOURTH = 16.0  # beyond, the fourth power leaves the ring's truncation, and is not used
ROW_BITS = 20  # of a row function's argument
ROW_INDEX_BITS = 16
VALUE_BITS = 58  # a row function's value before its truncation
MOST_KNOTS = 96


@dataclass(frozen=True)
class Piecewise:
    """``knots``: 0 < T < 2^n, increasing; steps (terms, J) and constants (terms,) int64; ``cell`` = 2^t units at ``scale``.

    ``low_units``: what is subtracted from x, in units of ``scale``. ``max_error``: against the function that was fitted.
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

    @property
    def constant(self) -> int:
        """What is added to x before bits t … t+n-1 are taken: one cell more, so that an index low by 0, 1 or 2 becomes
        one that is off by one at most."""
        return (1 << self.t) - self.low_units

    def coefficients(self, index: np.ndarray) -> np.ndarray:
        """(terms, …) int64 of the pieces that the indices select."""
        chosen = (np.asarray(index)[..., None] >= np.array(self.knots)).astype(np.int64)
        return np.asarray(self.constants.numpy()[:, None] + self.steps.numpy() @ chosen.reshape(-1, len(self.knots)).T)


def activation(f: Function, low: float, width_log: int, scale: int, out_scale: int, tolerance: float = 5e-4) -> Piecewise:
    """f on [low, low + 2^width_log) in 1, x, x², x⁴: x at ARGUMENT_SCALE, x⁴ at FOURTH_SCALE, the sum at ``out_scale``.

    Cells of 1/16, or finer where f has a kink: down to the argument's own precision. Raises ScaleError for a function that
    needs more than MOST_KNOTS knots.
    """
    scales = [out_scale, out_scale - ARGUMENT_SCALE, out_scale - 2 * ARGUMENT_SCALE, out_scale - FOURTH_SCALE]
    best: Piecewise | None = None
    for cell_log in (-4, -7, -ARGUMENT_SCALE):
        cell = 2.0**cell_log
        n = width_log - cell_log

        def fitted(first: float, last: float, points: int = POINTS) -> tuple[list[int], float]:
            x = _nodes(first, last, points)
            terms = 4 if max(abs(first), abs(last)) <= LARGEST_FOURTH else 3
            basis = np.stack([x**k for k in (0, 1, 2, 4)[:terms]])
            return _rounded(basis, f(x), scales[:terms])

        def piece(a: int, b: int) -> tuple[list[int], float]:
            return fitted(low + (a - 1) * cell, low + (b + 1) * cell)

        pieces = _greedy(piece, 0, 1 << n, tolerance)
        made = _joined(pieces, 4, round(math.ldexp(low, scale)), scale + cell_log, n, scale, out_scale)
        if best is None or made.max_error < best.max_error / 2:
            best = made
        if best.max_error <= tolerance:
            break
    assert best is not None
    if len(best.knots) > MOST_KNOTS:
        raise ScaleError(
            f"a function of {len(best.knots)} pieces", remedy="aby3 evaluates smooth functions; take semi_honest_3pc"
        )
    return best


def row_function(f: Function, top: int, scale: int, smallest: float, tolerance: float = 1e-4) -> Piecewise:
    """f > 0 on [0, 2^top) at ``scale`` in 1, v, v², with v the top ROW_BITS bits of the argument, at a scale of its own.

    Relative error ``tolerance`` from ``smallest`` on; f's value there below. The value comes out at the largest scale at
    which it stays below 2^VALUE_BITS, and is to be truncated.
    """
    n = ROW_INDEX_BITS
    cell, unit = 2.0 ** (top - n), 2.0 ** (top - ROW_BITS)
    grid = np.geomspace(smallest / 2, 2.0**top, 1000)
    out_scale = math.floor(VALUE_BITS - math.log2(float(np.abs(f(grid)).max())))

    def piece(a: int, b: int) -> tuple[list[int], float]:
        first, last = max(0.0, (a - 1) * cell), min((b + 1) * cell, 2.0**top)
        middle = round((first + last) / 2 / unit)
        u = _nodes(first, last, POINTS)
        p = u / unit - middle
        wanted = f(u)
        (k0, k1, k2), error = _rounded(np.stack([p**0, p, p * p]), wanted, [out_scale] * 3, np.abs(wanted))
        return [k0 - k1 * middle + k2 * middle * middle, k1 - 2 * k2 * middle, k2], error

    start = max(1, math.floor(smallest / cell) - 2)
    below: _Piece = (0, [round(math.ldexp(float(f(np.array([smallest]))[0]), out_scale)), 0, 0], 0.0)
    pieces = [below, *_greedy(piece, start, 1 << n, tolerance)]
    return _joined(pieces, 3, 0, scale + top - n, n, scale, out_scale)


# ------------------------------------------------------------------------------------------------------

_Piece = tuple[int, list[int], float]  # first index, coefficients, error


def _greedy(
    fitted: Callable[[int, int], tuple[list[int], float]], start: int, count: int, tolerance: float
) -> list[_Piece]:
    """Pieces of [start, count) from the left, each as long as the tolerance lets it be: as few as can be."""
    pieces: list[_Piece] = []
    step = 1
    while start < count:
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


def _joined(
    pieces: Sequence[_Piece], terms: int, low_units: int, t: int, n: int, scale: int, out_scale: int
) -> Piecewise:
    columns = [[*c, *[0] * (terms - len(c))] for _, c, _ in pieces]
    steps = [
        [_wrap(after[k] - before[k]) for before, after in zip(columns, columns[1:], strict=False)]
        for k in range(terms)
    ]
    return Piecewise(
        low_units,
        t,
        n,
        scale,
        tuple(start for start, _, _ in pieces[1:]),
        torch.tensor(steps, dtype=torch.int64).reshape(terms, -1),
        torch.tensor([_wrap(v) for v in columns[0]], dtype=torch.int64),
        out_scale,
        max(error for _, _, error in pieces),
    )


def _rounded(
    basis: np.ndarray, wanted: np.ndarray, scales: Sequence[int], size: np.ndarray | float = 1.0
) -> tuple[list[int], float]:
    """Integers c_k at ``scales`` with Σ c_k·basis_k ≈ wanted, least squares in units of ``size``; the largest error."""
    weight = 1 / np.broadcast_to(np.asarray(size), wanted.shape)
    rest, out = wanted.astype(np.float64), [0] * len(scales)
    for k in range(len(scales) - 1, -1, -1):
        scaled = basis[: k + 1] * weight
        norms = np.maximum(np.abs(scaled).max(1), 1e-300)  # columns of one size, or the least squares are ill-conditioned
        solved = np.linalg.lstsq((scaled / norms[:, None]).T, rest * weight, rcond=None)[0] / norms
        out[k] = round(float(np.ldexp(solved[k], scales[k])))
        rest = rest - np.ldexp(float(out[k]), -scales[k]) * basis[k]
    return out, float(np.abs(rest * weight).max())


def _nodes(first: float, last: float, points: int) -> np.ndarray:
    """Chebyshev's, where least squares come close to the smallest largest error; the ends included."""
    t = np.cos(np.pi * np.arange(points) / (points - 1))
    return np.asarray((first + last) / 2 + (last - first) / 2 * t)


def _wrap(value: int) -> int:
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
