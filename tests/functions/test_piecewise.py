"""Piecewise polynomials with few knots, and e^x by digits: errors as stated, right in the cell beside every knot."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mpc_ray.errors import ScaleError
from mpc_ray.functions.exp_digits import (
    CELL_LOG,
    EXP_RAW_SCALE,
    FACTOR_SCALE,
    HIGH_SCALE,
    LEVELS,
    factor_table,
    level_steps,
)
from mpc_ray.functions.piecewise import (
    ARGUMENT_SCALE,
    FOURTH_SCALE,
    MOST_KNOTS,
    ROW_FINER,
    VALUE_BITS,
    Piecewise,
    activation,
    row_function,
)
from mpc_ray.kernels.replicated import EXP_POSITION
from mpc_ray.models.plan import ACTIVATIONS


def activation_values(f: Piecewise, x: np.ndarray, off: int) -> np.ndarray:
    """What integers give for x, with indices that are ``off`` by -1, 0 or 1."""
    units = np.rint(np.ldexp(x, f.scale)).astype(np.int64)
    index = ((units - f.low_units) >> f.t) + off
    c = f.coefficients(index.clip(0, (1 << f.n) - 1))
    a = units >> (f.scale - ARGUMENT_SCALE)
    fourth = (a.astype(np.float64) ** 4 / 2 ** (4 * ARGUMENT_SCALE - FOURTH_SCALE)).astype(np.int64)
    with np.errstate(over="ignore"):
        total = c[0] + c[1] * a + c[2] * (a * a) + c[3] * fourth
    return np.ldexp(total.astype(np.float64), -f.out_scale)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "relu"])
@pytest.mark.parametrize(("low", "width_log"), [(-8.0, 4), (-35.3, 6)])
def test_activations(name: str, low: float, width_log: int) -> None:
    high = low + 2**width_log - 0.25
    f = activation(ACTIVATIONS[name], low, high, width_log, 54, 35)
    assert f.max_error < 1.5e-3 and len(f.knots) <= 12
    x = np.linspace(low + 0.3, high - 0.3, 20_001)
    for off in (-1, 0, 1):
        error = np.abs(activation_values(f, x, off) - ACTIVATIONS[name](x))
        assert error.max() < f.max_error + 2.0**-ARGUMENT_SCALE * 1.2


def row_values(f: Piecewise, u: np.ndarray, off: int) -> np.ndarray:
    units = np.rint(np.ldexp(u, f.scale)).astype(np.int64)
    c = f.coefficients((units >> f.t) + off)
    v = units >> (f.t - ROW_FINER)
    with np.errstate(over="ignore"):
        total = c[0] + c[1] * v + c[2] * ((v * v) >> f.square_shift)
    return np.ldexp(total.astype(np.float64), -f.out_scale)


@pytest.mark.parametrize(
    ("power", "top", "smallest"), [(-1.0, 7, 0.2), (-1.0, 10, 0.2), (-0.5, 12, 9.6), (-0.5, 17, 68.0)]
)
def test_row_functions(power: float, top: int, smallest: float) -> None:
    f = row_function(lambda u: np.maximum(u, smallest / 2) ** power, top, 27, smallest)
    assert f.max_error <= 1e-4 and len(f.knots) <= MOST_KNOTS
    u = np.geomspace(smallest * 1.02, 2**top * 0.99, 20_001)
    for off in (-1, 0, 1):
        value = row_values(f, u, off)
        # Half a unit of the argument, where it is smallest, is 2^-11 of it.
        assert np.abs(value / u**power - 1).max() < 2e-3
        assert np.abs(value / u**power - 1).mean() < 2e-4
        assert value.max() < 2.0 ** (VALUE_BITS + 1 - f.out_scale)


def test_what_needs_too_many_pieces_is_refused() -> None:
    with pytest.raises(ScaleError, match="pieces"):
        activation(lambda x: np.sin(300 * x), -1.0, 0.75, 1, 54, 35)
    with pytest.raises(ScaleError, match="pieces"):
        row_function(lambda u: 2 + np.sin(40 * u), 6, 27, 0.5)
    with pytest.raises(ScaleError, match="narrow"):
        row_function(lambda u: 1 / u, 6, 10, 1e-3)


def test_the_exponential_of_any_three_pieces() -> None:
    """e^x from factors of three pieces and the step of their high bits, for x from -12 to 0; 0 below -20."""
    h, scale = 2**CELL_LOG, 33
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-12, 0, 4000), rng.uniform(-200, -20, 500), [-1e-9, -11.999]])
    units = np.rint(np.ldexp(x, scale)).astype(np.int64)
    pieces = [rng.integers(-(2**62), 2**62, len(x)) for _ in range(2)]
    pieces.append(units - pieces[0] - pieces[1])
    top = scale + CELL_LOG
    product = [1] * len(x)
    for piece in pieces:
        position = (piece >> (top - EXP_POSITION)) & ((1 << EXP_POSITION) - 1)
        factors = factor_table().numpy()[position]
        product = [a * int(b) for a, b in zip(product, factors, strict=True)]
    high = sum((piece >> top) for piece in pieces)
    steps = level_steps().numpy()
    level = [int(steps[: max(0, LEVELS + int(H) + 1)].sum()) if H >= -LEVELS else 0 for H in high]
    value = np.array([a * b / 2.0**EXP_RAW_SCALE for a, b in zip(product, level, strict=True)])
    inside = x >= -12
    error = np.abs(value - np.exp(x))[inside]
    assert (error <= 6e-3 * np.exp(x[inside]) + 2**-15).all()
    assert (value[~inside] < math.exp(-12)).all() and (value[x < -8 * h] == 0).all()
    assert EXP_RAW_SCALE == 3 * FACTOR_SCALE + HIGH_SCALE
