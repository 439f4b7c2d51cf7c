"""Exact comparison, selection, ReLU, maximum and argmax: every value of the ring, ties, exact costs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import run, xored
from test_primitives import crafted, numbers
from three import share

from mpc_ray.errors import InputError, ScaleError
from mpc_ray.protocols.aby3 import compare

seeds = st.integers(0, 2**31)


@settings(max_examples=10)
@given(seed=seeds)
def test_the_sign_of_every_number(seed: int) -> None:
    x = numbers(seed, 2, 60)
    shares = crafted(x, seed)
    found = run(lambda place, me: compare.less_than_zero(place, shares[me]))
    assert torch.equal(xored(found.results, 120)[0], (x < 0).to(torch.int64).reshape(-1))
    assert found.rounds == compare.SIGN_ROUNDS == 8
    assert found.payload == [8 * 2 * compare.sign_gates()] * 3
    found.claims()


@settings(max_examples=5)
@given(seed=seeds)
def test_comparison_selection_and_relu(seed: int) -> None:
    x, y = numbers(seed, 70, bits=62), numbers(seed + 1, 70, bits=62)
    y[:20] = x[:20]
    xs, ys = share(x, 20), share(y, 20, 5)
    found = run(lambda place, me: compare.less_than(place, xs[me], ys[me]))
    assert torch.equal(xored(found.results, 70)[0], (x < y).to(torch.int64))
    bit = numbers(seed + 2, 70) & 1
    bits = share(bit, 0, 6)
    found = run(lambda place, me: compare.select(place, bits[me], xs[me], ys[me]))
    assert torch.equal(found.value, torch.where(bit == 1, x, y)) and found.payload == [560] * 3
    found = run(lambda place, me: compare.relu(place, xs[me]))
    assert torch.equal(found.value, x.clamp(min=0)) and found.rounds == 11 and found.results[0].scale == 20
    found.claims()


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8])
def test_maximum_and_argmax(n: int) -> None:
    x = numbers(n, 9, n, bits=62)
    x[0] = 5  # ties: the first
    shares = share(x, 11)
    found = run(lambda place, me: compare.maximum(place, shares[me]))
    levels = (n - 1).bit_length()
    assert torch.equal(found.value, x.amax(-1)) and found.results[0].scale == 11
    assert found.rounds == compare.LEVEL_ROUNDS * levels
    found = run(lambda place, me: compare.argmax(place, shares[me]))
    wanted = torch.tensor([int((row == row.max()).nonzero()[0, 0]) for row in x])
    assert torch.equal(found.value, wanted) and found.results[0].scale == 0
    assert found.rounds == compare.LEVEL_ROUNDS * levels
    if n > 1:
        found.claims()


def test_what_does_not_fit_is_refused() -> None:
    shares, other = share(numbers(1, 3), 4), share(numbers(1, 3), 5)
    with pytest.raises(ScaleError):
        run(lambda place, me: compare.less_than(place, shares[me], other[me]))
    nothing = share(numbers(1, 3, 0), 4)
    with pytest.raises(InputError):
        run(lambda place, me: compare.maximum(place, nothing[me]))
