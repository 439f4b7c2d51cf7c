"""Integer splines on a window, in the form the dealt look-up evaluates.

For the index j of an opened value the argument is low + (j + v/2^b)·h with v = ĉ - r̂ an integer,
|v| < 2^b, h the cell: the cell on either side of j·h, because j is the true index or one more. So each
cell's polynomial is fitted over [-1, 1] around j·h, weighted by how often each point occurs (1 - |v|). Table k holds
round(coefficient_k · 2^(scale - k·b)), so Σ_k T_k[j]·v^k is f at ``scale`` without any truncation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mpc_ray.functions.window import Window
from mpc_ray.kernels.lookup import PreparedTables, prepare

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Spline:
    """Tables (degree+1, 2^n) int64 of a function on ``window``, output at ``scale``.

    ``flags``: int64 (2^n,), 1 in cells that lie below the calibrated range, for functions whose window begins at 0.

    Every party must hold the same bits: they are part of the model's public record and of its digest.
    """

    window: Window
    tables: torch.Tensor
    fraction: int
    scale: int
    max_error: float
    mean_error: float
    flags: torch.Tensor | None = None
    _prepared: list[PreparedTables] = field(default_factory=list, compare=False, repr=False)
    _elsewhere: dict[torch.device, PreparedTables] = field(default_factory=dict, compare=False, repr=False)
    _coarser: dict[tuple[int, torch.device], tuple[Spline, PreparedTables]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def degree(self) -> int:
        return int(self.tables.shape[0]) - 1

    @property
    def prepared(self) -> PreparedTables:
        """The tables in the kernel's layout, made once."""
        if not self._prepared:
            flags = [] if self.flags is None else [self.flags.unsqueeze(0)]
            prepared = prepare(torch.cat([self.tables, *flags]))
            # The same numbers, held once: a model's tables are tens of megabytes.
            object.__setattr__(self, "tables", prepared.tables[: len(self.tables)])
            self._prepared.append(prepared)
        return self._prepared[0]

    def prepared_on(self, place: torch.device) -> PreparedTables:
        """``prepared`` on a device, made once for each."""
        if place.type == "cpu":
            return self.prepared
        if place not in self._elsewhere:
            self._elsewhere[place] = prepare(self.prepared.tables.to(place))
        return self._elsewhere[place]

    def coarser(self, bits: int, place: torch.device) -> tuple[Spline, PreparedTables]:
        """The same function at a scale smaller by ``bits``, half of them taken from the position; and this spline's
        tables, its flags and the other's as one set on a device, for one look-up. Made once.

        Integers from integers, so it is the same at all parties that hold the same spline. No flags.
        """
        if (bits, place) not in self._coarser:
            fraction = max(1, self.fraction - bits // 2)
            less = self.fraction - fraction
            tables = torch.stack([_shifted(table, bits - k * less) for k, table in enumerate(self.tables)])
            other = Spline(self.window, tables, fraction, self.scale - bits, self.max_error, self.mean_error)
            joint = torch.cat([self.prepared.tables, tables]).to(place)
            self._coarser[bits, place] = other, prepare(joint)
        return self._coarser[bits, place]


def fit(
    f: Function,
    window: Window,
    *,
    degree: int,
    fraction: int,
    scale: int,
    relative: bool = False,
    used: tuple[float, float] | None = None,
    flag_below: bool = False,
) -> Spline:
    """Weighted least squares on Chebyshev points, rounded to integers; errors measured with those integers.

    ``fraction``: the b bits of the position inside a cell. ``used``: the range over which the error is
    reported, absolute (mean over x) or ``relative`` (mean over log x). ``f`` must be finite on the whole window.
    ``flag_below``: flag the cells whose argument, on either side of the index, is below ``used``.
    """
    coefficients = _coefficients(f, window, degree)
    return _rounded(f, window, coefficients, fraction, scale, relative, used, flag_below)


def fit_finest(
    f: Function,
    window: Window,
    *,
    degree: int,
    fractions: Sequence[int],
    scale: int,
    relative: bool,
    used: tuple[float, float],
    flag_below: bool = False,
) -> Spline:
    """As ``fit`` with the best of several ``fractions``: more position bits cost coefficient bits."""
    coefficients = _coefficients(f, window, degree)
    made = [_rounded(f, window, coefficients, b, scale, relative, used, flag_below) for b in fractions]
    return min(made, key=total_error)


def total_error(spline: Spline) -> float:
    """One number to choose by: the mean error, and a share of the largest."""
    return spline.mean_error + spline.max_error / 16


def _coefficients(f: Function, window: Window, degree: int) -> np.ndarray:
    """(degree+1, 2^n) float64, of v in [-1, 1] around each cell's left edge."""
    points = 4 * degree + 9
    v = np.cos(np.pi * (np.arange(points) + 0.5) / points)
    weight = np.sqrt(1.03 - np.abs(v))
    solve = np.linalg.pinv(np.vander(v, degree + 1, increasing=True) * weight[:, None]) * weight
    left = window.low + window.cell * np.arange(1 << window.n)
    return np.asarray(solve @ f(left + window.cell * v[:, None]))


def _rounded(
    f: Function,
    window: Window,
    coefficients: np.ndarray,
    fraction: int,
    scale: int,
    relative: bool,
    used: tuple[float, float] | None,
    flag_below: bool,
) -> Spline:
    exponents = scale - fraction * np.arange(len(coefficients))
    tables = torch.from_numpy(np.rint(np.ldexp(coefficients, exponents[:, None])).astype(np.int64))
    maximum, mean = _errors(f, window, tables, fraction, scale, relative, used)
    flags = None
    if flag_below and used is not None:
        flags = torch.zeros(1 << window.n, dtype=torch.int64)
        flags[: max(0, math.floor((used[0] - window.low) / window.cell))] = 1
    return Spline(window, tables, fraction, scale, maximum, mean, flags)


def evaluate(spline: Spline, x: np.ndarray, high: np.ndarray | bool = False) -> np.ndarray:
    """What the protocol computes for x, in floats: ``high`` says where the index is one too high."""
    units = (np.asarray(x) - spline.window.low) / spline.window.cell
    j = np.floor(units).astype(np.int64) + np.asarray(high, dtype=np.int64)
    v = np.floor((units - j) * 2.0**spline.fraction)
    j &= (1 << spline.window.n) - 1
    return _polynomial(spline.tables, j, v, spline.scale)


def _polynomial(tables: torch.Tensor, j: np.ndarray, v: np.ndarray, scale: int) -> np.ndarray:
    coefficients = tables.numpy().astype(np.float64)
    total = np.zeros(np.broadcast(j, v).shape)
    for k in range(coefficients.shape[0] - 1, -1, -1):
        total = total * v + coefficients[k][j]
    return np.ldexp(total, -scale)


def _errors(
    f: Function,
    window: Window,
    tables: torch.Tensor,
    fraction: int,
    scale: int,
    relative: bool,
    used: tuple[float, float] | None,
) -> tuple[float, float]:
    low, high = used if used is not None else (window.low + window.cell, window.high - window.cell)
    spread = np.geomspace if relative else np.linspace  # a relative error is judged by orders of magnitude
    x = spread(max(low, window.low), min(high, window.high), 30_011)[:-1]
    units = (x - window.low) / window.cell
    floor = np.floor(units)
    part = units - floor
    size = np.abs(f(x)) if relative else 1.0
    mean = np.zeros_like(x)
    maximum = 0.0
    for j, v, chance in ((floor, part, 1 - part), (floor + 1, part - 1, part)):
        value = _polynomial(tables, j.astype(np.int64), np.floor(v * 2.0**fraction), scale)
        error = np.abs(value - f(x)) / size
        mean += chance * error
        # What is rarer than 1 in 100 counts in the mean alone.
        maximum = max(maximum, float(error[chance > 0.01].max()))
    return maximum, float(mean.mean())


def _shifted(table: torch.Tensor, bits: int) -> torch.Tensor:
    """table / 2^bits, rounded; exact where ``bits`` is negative."""
    return (table + (1 << bits >> 1)) >> bits if bits > 0 else table << -bits
