"""Windows: cells, usable range, what is refused, and where calibrated windows lie."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mpc_ray.functions.window import Window, window_around


def test_measures() -> None:
    window = Window(low=-2.0, n=4, t=18, scale=20)
    assert window.cell == 0.25
    assert window.width == 4.0
    assert window.high == 1.75  # the last cell is a guard
    assert window.low_units == -2 * 2**20


@pytest.mark.parametrize(("n", "t"), [(2, 10), (17, 10), (8, -1), (8, 56), (16, 48)])
def test_does_not_fit(n: int, t: int) -> None:
    with pytest.raises(ValueError, match="does not fit the ring"):
        Window(0.0, n, t, 20)


@pytest.mark.parametrize(("n", "t"), [(3, 0), (16, 47), (8, 55)])
def test_just_fits(n: int, t: int) -> None:
    assert Window(0.0, n, t, 20).width == math.ldexp(1.0, n + t - 20)


ends = st.integers(-(2**30), 2**30).map(lambda i: i / 2**20)


@given(ends, ends, st.sampled_from([0.25, 0.5, 1.0]))
@example(0.0, 0.4375, 0.25)
@example(-8.125, 7.875, 0.25)  # exactly half of 32: no room to move the window
def test_middle_half_holds_the_range(a: float, b: float, cell: float) -> None:
    low, high = min(a, b), max(a, b)
    window = window_around(low, high, 40, cell)
    assert window.cell <= cell
    assert window.width >= 2 * (high - low)
    assert window.low + window.width / 4 <= low
    assert high <= window.low + 3 * window.width / 4
    assert math.ldexp(window.low_units, -40) == window.low
