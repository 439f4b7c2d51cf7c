"""Fixed point: exact where it can be, refused where it cannot, with the index of what was refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.errors import InputError, ScaleError
from mpc_ray.sharing.fixed import check_scale, decode, encode, prove_fits

scales = st.integers(-20, 60)


@given(n=st.integers(-(2**52), 2**52), scale=scales)
def test_integers_at_any_scale_round_trip(n: int, scale: int) -> None:
    x = math.ldexp(n, -scale)
    assert encode(x, scale, bits=63).item() == n
    assert decode(torch.tensor(n), scale) == x


@given(x=st.floats(-1000, 1000), scale=st.integers(0, 40))
def test_encoding_is_off_by_half_a_unit_at_most(x: float, scale: int) -> None:
    assert abs(decode(encode(x, scale), scale) - x) <= 2.0 ** -(scale + 1)


@pytest.mark.parametrize(("x", "n"), [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2)])
def test_ties_go_to_even(x: float, n: int) -> None:
    assert encode(x, 0).item() == n


@given(scale=scales)
def test_the_limits_are_exact(scale: int) -> None:
    limit = 2.0 ** (62 - scale)
    inside = float(np.nextafter(limit, 0))
    assert abs(encode(inside, scale).item()) < 2**62
    assert encode(-inside, scale).item() == -encode(inside, scale).item()
    for outside in (limit, -limit):
        with pytest.raises(InputError, match=r"out of range"):
            encode(outside, scale)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_with_its_place(bad: float) -> None:
    x = np.zeros((2, 3, 4))
    x[1, 2, 3] = bad
    x[1, 2, 0] = 1.0
    with pytest.raises(InputError, match=r"weights: -?(nan|inf) at index \[1, 2, 3\] \(only finite"):
        encode(x, 20, name="weights")
    with pytest.raises(InputError, match=r"value: -?(nan|inf) at the scalar"):
        encode(bad, 20)


def test_what_is_out_of_range_is_refused_with_its_place_and_without_itself() -> None:
    """The number may be a weight, or part of a text: errors end up in logs."""
    x = torch.zeros(5, 5, dtype=torch.float64)
    x[3, 1] = -98765.4321
    x[4, 0] = 1e9
    with pytest.raises(
        InputError, match=r"bias: the number at index \[3, 1\] is out of range.*scale 50"
    ) as caught:
        encode(x, 50, name="bias")
    assert "98765" not in str(caught.value)
    assert "rescale" in caught.value.remedy


def test_nothing_and_float32_can_be_encoded() -> None:
    assert encode(np.zeros((0, 3)), 10).shape == (0, 3)
    assert (
        encode(np.float32(0.1) * np.ones(2, np.float32), 40).tolist()
        == [round(float(np.float32(0.1)) * 2**40)] * 2
    )


@pytest.mark.parametrize("scale", [-64, 64, 1000])
def test_a_scale_outside_the_ring_is_refused(scale: int) -> None:
    with pytest.raises(ScaleError, match=f"scale {scale} is outside"):
        encode(1.0, scale)


def test_scales_must_match() -> None:
    check_scale(7, 7, "here")
    with pytest.raises(ScaleError, match="here: scale 7 where 8 is needed"):
        check_scale(7, 8, "here")


@given(scale=st.integers(0, 60))
def test_a_range_fits_up_to_its_last_bit(scale: int) -> None:
    prove_fits("product", 2.0 ** (62 - scale) * (1 - 2**-50), scale)
    with pytest.raises(ScaleError, match=r"product: .* needs 2\^62\.0, the ring allows 2\^62"):
        prove_fits("product", 2.0 ** (62 - scale), scale)
    with pytest.raises(ScaleError):
        prove_fits("product", math.nan, scale)
