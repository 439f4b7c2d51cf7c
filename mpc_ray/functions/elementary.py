"""Splines for the elementary functions: windows, degrees and scales found from a range and a tolerance.

Each function here returns the public plan that `protocols.semi_honest.elementary` evaluates on shares. The argument's
range [low, high] becomes the middle half of the window, or its lower half where arguments are positive; the range check
flags what lies outside. Tails need no clamp: a saturating function is fitted over the whole window.

Among windows of 2^n cells and degrees 1 to 3 the cheapest that meets the tolerance is taken. ``Spline.max_error`` of
the result bounds the error for every argument in [low, high]: both cells and both roundings that the protocol may
take are measured on a dense grid (``worst_error``).

Cost: 3 rounds; all parties together 64 + 24·d bytes an element (d the degree) and the one-hot, 2^n/8 bytes up to
n = 10, above that two keys of `kernels.dpf.key_bytes(n)` (326 bytes at n = 16). The flag of a
positive function takes 32 bytes more. ``cost`` is that formula.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from mpc_ray.errors import ScaleError
from mpc_ray.functions.spline import Function, Spline, fit
from mpc_ray.functions.window import Window
from mpc_ray.kernels.dpf import key_bytes

TOLERANCE = 1e-4
OUT_SCALE = 40
MOST_BITS = 16
PLAIN_BITS = 10  # one-hots above are distributed point functions
VALUE_BITS = 62  # a result stays below 2^62
ROW_BYTES = 12  # of one more degree, for each element of a row that the result scales


def gelu(
    low: float, high: float, scale: int, *, out_scale: int = OUT_SCALE, tolerance: float = TOLERANCE
) -> Spline:
    """x·Φ(x) for x in [low, high] at ``scale``; absolute error ≤ tolerance. [-8, 8]: n = 9, d = 2, 176 bytes."""
    return _centred("gelu", _gelu, low, high, scale, out_scale, tolerance)


def silu(
    low: float, high: float, scale: int, *, out_scale: int = OUT_SCALE, tolerance: float = TOLERANCE
) -> Spline:
    """x/(1 + e^-x) for x in [low, high] at ``scale``; absolute error ≤ tolerance. [-8, 8]: n = 8, d = 2, 144 bytes."""
    return _centred("silu", lambda x: x * _sigmoid(x), low, high, scale, out_scale, tolerance)


def sigmoid(
    low: float, high: float, scale: int, *, out_scale: int = OUT_SCALE, tolerance: float = TOLERANCE
) -> Spline:
    """1/(1 + e^-x) for x in [low, high] at ``scale``; absolute error ≤ tolerance. [-8, 8]: n = 8, d = 2, 144 bytes."""
    return _centred("sigmoid", _sigmoid, low, high, scale, out_scale, tolerance)


def tanh(
    low: float, high: float, scale: int, *, out_scale: int = OUT_SCALE, tolerance: float = TOLERANCE
) -> Spline:
    """tanh(x) for x in [low, high] at ``scale``; absolute error ≤ tolerance. [-8, 8]: n = 9, d = 2, 176 bytes."""
    return _centred("tanh", np.tanh, low, high, scale, out_scale, tolerance)


def exp(
    low: float, high: float, scale: int, *, out_scale: int | None = None, tolerance: float = TOLERANCE
) -> Spline:
    """e^x for x in [low, high] at ``scale``; absolute error ≤ tolerance·e^high.

    The window reaches to high + (high - low), rounded up to a power of two, and e^x must fit the ring there: a
    ScaleError says so where it does not. ``out_scale`` by default: 40 bits below e^high, fewer where that needs it.
    """
    window = _window(low, high, scale, 3)
    top = (window.low + window.width) / math.log(2)
    if out_scale is None:
        out_scale = min(OUT_SCALE - math.ceil(high / math.log(2)), math.floor(VALUE_BITS - 1 - top))
    if top + out_scale > VALUE_BITS:
        raise ScaleError(
            f"exp: e^{window.low + window.width:.0f}, the window's end, does not fit the ring at scale {out_scale}",
            remedy="use a narrower range or a smaller scale of the result",
        )
    return _centred("exp", np.exp, low, high, scale, out_scale, tolerance * math.exp(high))


def reciprocal(
    low: float,
    high: float,
    scale: int,
    *,
    out_scale: int | None = None,
    tolerance: float = TOLERANCE,
    row: int = 0,
) -> Spline:
    """1/x for 0 < low ≤ x ≤ high at ``scale``; relative error ≤ tolerance, high/low up to about 1,000.

    Below ``low`` the result tends to that of low/4. The range check flags what lies two cells or more below ``low``,
    negative arguments too, or two cells or more above the window's lower half. ``out_scale`` by default: 34 bits of
    the smallest result. ``row``: the elements of the row that the result scales, if it does; each costs about 12 bytes
    a degree.
    """
    if out_scale is None:
        out_scale = 34 + math.ceil(math.log2(high))
    return positive("reciprocal", lambda x: 1 / x, low, high, scale, out_scale, tolerance, row)


def rsqrt(
    low: float,
    high: float,
    scale: int,
    *,
    out_scale: int | None = None,
    tolerance: float = TOLERANCE,
    row: int = 0,
) -> Spline:
    """1/√x for 0 < low ≤ x ≤ high at ``scale``; relative error ≤ tolerance, high/low up to about 2,000.

    Below ``low`` as ``reciprocal``. ``out_scale`` by default: 34 bits of the smallest result.
    """
    if out_scale is None:
        out_scale = 34 + math.ceil(math.log2(high) / 2)
    return positive("rsqrt", lambda x: x**-0.5, low, high, scale, out_scale, tolerance, row)


@dataclass(frozen=True)
class Cost:
    """Bytes an element: each evaluator's, and D's to E0 and to E1."""

    evaluator: int
    to_e0: int
    to_e1: int

    @property
    def total(self) -> int:
        return 2 * self.evaluator + self.to_e0 + self.to_e1


def cost(n: int, degree: int, flag: bool = False) -> Cost:
    """Bytes an element of a spline of ``degree`` over 2^n cells, from opening to resharing (3 rounds)."""
    plain = n <= PLAIN_BITS
    one_hot = (1 << n) // 8 if plain else key_bytes(n)
    parts = degree + 1
    return Cost(16 + 8 * (parts + flag), 0 if plain else one_hot, one_hot + 8 * (parts + 1 + 2 * flag))


def worst_error(spline: Spline, f: Function, low: float, high: float, relative: bool = False) -> float:
    """Largest error over [low, high]: index true or one high, position rounded down or up; sampled densely.

    Samples: 20,000 over the range, evenly and, where ``relative``, also by orders of magnitude.
    """
    window, b = spline.window, spline.fraction
    x = np.linspace(low, high, 20_001)
    if relative:
        x = np.concatenate([x, np.geomspace(low, high, 20_001)])
    units = (x - window.low) / window.cell
    exact = f(x)
    worst = 0.0
    for high_index in (0, 1):
        j = np.floor(units).astype(np.int64) + high_index
        v = np.ldexp(units - j, b)
        for position in (np.floor(v), np.ceil(v)):
            error = np.abs(_value(spline, j, position) - exact)
            worst = max(worst, float((error / np.abs(exact) if relative else error).max()))
    return worst


def _value(spline: Spline, j: np.ndarray, v: np.ndarray) -> np.ndarray:
    tables = spline.tables.numpy()
    total = np.zeros(j.shape)
    for row in tables[::-1]:
        total = total * v + row[j & ((1 << spline.window.n) - 1)]
    return np.asarray(np.ldexp(total, -spline.scale))


# -- the search ----------------------------------------------------------------------------------------


def positive(
    name: str,
    f: Function,
    low: float,
    high: float,
    scale: int,
    out_scale: int,
    tolerance: float,
    row: int = 0,
    flag: bool = True,
) -> Spline:
    """A decreasing function of positive arguments in [low, high] on a window from 0; relative error.

    ``flag``: the window is twice as wide as high, and arguments outside are flagged; False where they cannot occur.
    """
    if not 0 < low < high:
        raise ScaleError(
            f"{name}: the range [{low:g}, {high:g}] is not positive", remedy="give 0 < low < high"
        )
    clamped = lambda x: f(np.maximum(x, low / 4))  # noqa: E731
    width = math.ceil(math.log2(2 * high if flag else high))
    windows = lambda n: Window(0.0, n, scale + width - n, scale)  # noqa: E731
    spline = _search(
        name, clamped, low, high, windows, scale + width, out_scale, tolerance, True, flag, ROW_BYTES * row
    )
    if spline.flags is None:
        return spline
    flags = spline.flags.clone()
    flags[len(flags) // 2 + 2 :] = 1  # small negative arguments wrap to the window's end
    return replace(spline, flags=flags)


def _centred(
    name: str, f: Function, low: float, high: float, scale: int, out_scale: int, tolerance: float
) -> Spline:
    if not low < high:
        raise ScaleError(f"{name}: the range [{low:g}, {high:g}] is empty", remedy="give low < high")
    width = math.ceil(math.log2(2 * (high - low)))
    windows = lambda n: _window(low, high, scale, n)  # noqa: E731
    return _search(name, f, low, high, windows, scale + width, out_scale, tolerance, False)


def _window(low: float, high: float, scale: int, n: int) -> Window:
    """Middle half ⊇ [low, high], to the last ring unit."""
    width = math.ceil(math.log2(2 * (high - low)))
    start = (low + high) / 2 - 2.0 ** (width - 1)
    return Window(math.ldexp(round(math.ldexp(start, scale)), -scale), n, scale + width - n, scale)


def _search(
    name: str,
    f: Function,
    low: float,
    high: float,
    windows: Callable[[int], Window],
    bits: int,
    out_scale: int,
    tolerance: float,
    relative: bool,
    flag: bool = False,
    degree_bytes: int = 0,
) -> Spline:
    """The cheapest (n, degree) that meets the tolerance, for windows of 2^``bits`` ring units."""
    if bits > 63:
        raise ScaleError(
            f"{name}: a window of 2^{bits} ring units does not fit the ring",
            remedy="use a narrower range or a smaller scale of the argument",
        )
    reached: dict[tuple[int, int], float] = {}
    candidates = [
        (cost(n, d).total + degree_bytes * d, n, d) for n in range(4, MOST_BITS + 1) for d in (1, 2, 3)
    ]
    for _, n, degree in sorted(candidates):
        if n > bits:
            continue
        # Half the cell makes a spline 2^(d+1) times better: one that is far off is not worth a fit.
        hope = reached.get((n - 1, degree), 0.0) / 2 ** (degree + 3)
        if hope > tolerance:
            reached[n, degree] = hope
            continue
        for fraction in _fractions(out_scale, degree):
            spline = fit(
                f,
                windows(n),
                degree=degree,
                fraction=fraction,
                scale=out_scale,
                relative=relative,
                used=(low, high),
                flag_below=flag,
            )
            error = worst_error(spline, f, low, high, relative)
            if error <= tolerance:
                return replace(spline, max_error=error)
            reached[n, degree] = min(error, reached.get((n, degree), math.inf))
    raise ScaleError(
        f"{name}: no window of up to 2^{MOST_BITS} cells over [{low:g}, {high:g}] is accurate to {tolerance:.2g}",
        remedy="narrow the range, raise the tolerance, or raise the scale of the result",
    )


def _fractions(out_scale: int, degree: int) -> range:
    """Bits of the position: more of them cost coefficient bits, degree·b of the result's scale."""
    middle = min(14, max(4, round((out_scale - 4) / (degree + 1))))
    return range(max(4, middle - 3), middle + 2)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _gelu(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * 0.5 * (1 + torch.erf(torch.from_numpy(np.ascontiguousarray(x)) / 2**0.5).numpy()))
