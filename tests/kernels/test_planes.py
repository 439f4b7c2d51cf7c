"""planes: bodies equal their references; bits come back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import DeviceError, InputError
from mpc_ray.kernels import planes as pl

seeds = st.integers(0, 2**31)
lengths = st.sampled_from([0, 1, 2, 63, 64, 65, 127, 128, 200])


def draw(seed: int, *shape: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    x = torch.randint(-(2**63), 2**63 - 1, shape, generator=source)
    ends = torch.tensor([-(2**63), 2**63 - 1, -1, 0, 2**62, -(2**62)])
    pick = torch.randint(0, 6 * len(ends), shape, generator=source)
    return torch.where(pick < len(ends), ends[pick.clamp(max=len(ends) - 1)], x)


@settings(max_examples=40, deadline=None)
@given(length=lengths, lines=st.integers(0, 3), t=st.integers(0, 63), seed=seeds, data=st.data())
def test_planes_equal_their_reference_and_come_back(
    length: int, lines: int, t: int, seed: int, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, 64 - t))
    constant = data.draw(st.sampled_from([0, 1, 7 << 61, -(1 << 63), (1 << 64) - 1]))
    x = draw(seed, lines, length)
    got = pl.planes(x, constant, t, n)
    assert torch.equal(got, pl.planes_reference(x, constant, t, n))
    assert torch.equal(pl.spread(got, length), pl.spread_reference(got, length))
    number = (pl.spread(got, length) << torch.arange(n)[:, None, None]).sum(0)
    mask = (1 << n) - 1 if n < 64 else -1
    assert torch.equal(number, ((x + pl.wrap(constant)) >> t) & mask)


@settings(max_examples=20, deadline=None)
@given(length=lengths, seed=seeds)
def test_gates_equal_their_references(length: int, seed: int) -> None:
    x0, x1, y0, y1, f0, f1 = (draw(seed + i, 2, length) for i in range(6))
    got = pl.and_summand(x0, x1, y0, y1, f0, f1)
    assert torch.equal(got, pl.and_summand_reference(x0, x1, y0, y1, f0, f1))
    assert torch.equal(pl.pair_summand(x0, x1, f0, f1), pl.pair_summand_reference(x0, x1, f0, f1))


def test_three_summands_are_the_gate() -> None:
    x, y, f = ([draw(10 * k + i, 50) for i in range(3)] for k in range(3))
    after = [(i, (i + 1) % 3) for i in range(3)]
    z = [pl.and_summand(x[i], x[j], y[i], y[j], f[i], f[j]) for i, j in after]
    assert torch.equal(z[0] ^ z[1] ^ z[2], (x[0] ^ x[1] ^ x[2]) & (y[0] ^ y[1] ^ y[2]))
    m = [pl.pair_summand(x[i], x[j], f[i], f[j]) for i, j in after]
    a, b, c = x
    assert torch.equal(m[0] ^ m[1] ^ m[2], (a & b) | (b & c) | (c & a))


def test_what_does_not_fit_is_refused() -> None:
    x = draw(1, 65)
    for call in (
        lambda: pl.planes(x, 0, 60, 5),
        lambda: pl.planes(x, 0, 0, 0),
        lambda: pl.planes(x.to(torch.int32), 0, 0, 1),
        lambda: pl.planes(torch.tensor(1), 0, 0, 1),
        lambda: pl.spread(x[:1], 65),
        lambda: pl.and_summand(x, x, x, x, x, x[:3]),
    ):
        with pytest.raises(InputError):
            call()
    with pytest.raises(DeviceError):
        pl.planes(torch.empty(3, dtype=torch.int64, device="meta"), 0, 0, 1)
