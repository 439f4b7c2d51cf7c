"""Integer splines: what is fitted, what the tables say, and the error that a fit reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.functions.spline import evaluate, fit
from mpc_ray.functions.window import Window

WINDOW = Window(-4.0, 7, 24, 28)  # cells of 1/16 over [-4, 4)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_polynomials_are_reproduced(degree: int) -> None:
    """A polynomial of the spline's own degree leaves only the rounding of position and coefficients."""
    coefficients = [0.5, -1.25, 0.75, -0.125][: degree + 1]
    f = lambda x: np.polynomial.polynomial.polyval(x, coefficients)  # noqa: E731
    spline = fit(f, WINDOW, degree=degree, fraction=10, scale=44)
    assert tuple(spline.tables.shape) == (degree + 1, 128)
    assert spline.tables.dtype == torch.int64
    assert spline.degree == degree
    x = np.linspace(WINDOW.low, WINDOW.high, 5001)[:-1]
    slope = np.abs(np.polynomial.polynomial.polyval(x, np.polynomial.polynomial.polyder(coefficients))).max()
    bound = slope * WINDOW.cell * 2.0**-10 * 1.01 + degree * 2.0 ** (10 * degree - 44)
    for high in (False, True):
        assert np.abs(evaluate(spline, x, high) - f(x)).max() <= bound


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_coarser_spline_is_the_same_function(degree: int) -> None:
    """Integers from integers: fewer bits in the scale and in the position, one set of tables for both."""
    spline = fit(np.cos, WINDOW, degree=degree, fraction=8, scale=24)
    coarse, tables = spline.coarser(4, torch.device("cpu"))
    assert (coarse.scale, coarse.fraction, coarse.degree, coarse.flags) == (20, 6, degree, None)
    x = np.linspace(WINDOW.low, WINDOW.high, 5001)[:-1]
    for high in (False, True):
        assert np.abs(evaluate(coarse, x, high) - evaluate(spline, x, high)).max() < 2.0**-9
    assert torch.equal(tables.tables, torch.cat([spline.tables, coarse.tables]))
    assert spline.coarser(4, torch.device("cpu"))[0] is coarse


def test_index_may_be_one_too_high() -> None:
    """The guard cell: at the usable end the index one too high is still the window's own last cell."""
    spline = fit(np.sin, WINDOW, degree=2, fraction=12, scale=40)
    last = np.array([WINDOW.high - 2.0**-20])
    assert abs(evaluate(spline, last, True)[0] - np.sin(last[0])) < 1e-4
    beyond = np.array([WINDOW.high + WINDOW.cell / 2])
    assert abs(evaluate(spline, beyond, True)[0] - np.sin(beyond[0])) > 0.1  # wraps to the other end


@given(st.integers(4, 10), st.integers(1, 3), st.integers(6, 12))
def test_reported_error_is_met(n: int, degree: int, fraction: int) -> None:
    window = Window(-4.0, n, 31 - n, 28)
    used = (-2.0, 2.0)
    spline = fit(np.tanh, window, degree=degree, fraction=fraction, scale=44, used=used)
    x = np.linspace(*used, 3001)
    units = (x - window.low) / window.cell
    share = units - np.floor(units)
    error = [np.abs(evaluate(spline, x, high) - np.tanh(x)) for high in (False, True)]
    assert spline.mean_error == pytest.approx(((1 - share) * error[0] + share * error[1]).mean(), rel=0.1)
    often = np.stack([error[0] * (share < 0.98), error[1] * (share > 0.02)])
    assert often.max() <= spline.max_error * 1.02


def test_prepared_once() -> None:
    spline = fit(np.tanh, WINDOW, degree=1, fraction=8, scale=30)
    assert spline.prepared is spline.prepared
    assert torch.equal(spline.prepared.tables, spline.tables)
