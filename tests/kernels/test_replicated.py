"""replicated: bodies equal their references, and three places together do what they are for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import InputError
from mpc_ray.kernels import planes as pl
from mpc_ray.kernels import replicated as rp

seeds = st.integers(0, 2**31)
sizes = st.sampled_from([0, 1, 2, 63, 64, 65, 200])
constants = st.sampled_from([0, 7 << 61, -1, 1 << 63, 12345])


def draw(seed: int, *shape: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    x = torch.randint(-(2**63), 2**63 - 1, shape, generator=source)
    ends = torch.tensor([-(2**63), 2**63 - 1, -1, 0, 2**62, -(2**62)])
    pick = torch.randint(0, 6 * len(ends), shape, generator=source)
    return torch.where(pick < len(ends), ends[pick.clamp(max=len(ends) - 1)], x)


@settings(max_examples=30, deadline=None)
@given(n=sizes, seed=seeds)
def test_products_equal_their_references(n: int, seed: int) -> None:
    x0, x1, y0, y1, f0, f1 = (draw(seed + i, n, 2) for i in range(6))
    want = rp.product_summand_reference(x0, x1, y0, y1, f0, f1)
    assert torch.equal(rp.product_summand(x0, x1, y0, y1, f0, f1), want)
    assert torch.equal(rp.masked_summand(x0, f0, f1), rp.masked_summand_reference(x0, f0, f1))


@settings(max_examples=30, deadline=None)
@given(n=sizes, c0=constants, c1=constants, f=st.integers(1, 62), seed=seeds)
def test_truncation_equals_its_references(n: int, c0: int, c1: int, f: int, seed: int) -> None:
    x, y, mask = (draw(seed + i, n) for i in range(3))
    d = draw(seed + 9, 2, n)
    assert torch.equal(rp.truncate_owner(x, y, c0, c1, d), rp.truncate_owner_reference(x, y, c0, c1, d))
    got = rp.truncate_others(x, c0, y, c1, d, mask)
    assert torch.equal(got, rp.truncate_others_reference(x, c0, y, c1, d, mask))
    table = draw(seed + 11, 3, 4)
    assert torch.equal(rp.top_bits_table(x, c0, table), rp.top_bits_table_reference(x, c0, table))
    got = rp.truncated_piece(x, c0, y, f, c1)
    assert torch.equal(got, rp.truncated_piece_reference(x, c0, y, f, c1))


@settings(max_examples=30, deadline=None)
@given(n=sizes, parts=st.integers(1, 5), outputs=st.integers(1, 3), seed=seeds)
def test_sums_of_bits_equal_their_references(n: int, parts: int, outputs: int, seed: int) -> None:
    b0, b1, b2 = (draw(seed + i, parts, pl.words(n)) for i in range(3))
    d, coefficients, mask = (
        draw(seed + 3, parts, n),
        draw(seed + 4, outputs, parts),
        draw(seed + 5, outputs, n),
    )
    coefficients[0, 0] = 0
    assert torch.equal(rp.bits_owner(b0, b1, d), rp.bits_owner_reference(b0, b1, d))
    before = mask.clone()
    got = rp.bits_others(b2, d, coefficients, mask)
    assert torch.equal(got, rp.bits_others_reference(b2, d, coefficients, mask))
    assert torch.equal(mask, before)
    assert torch.equal(rp.bits_sum(b2, coefficients, n), rp.bits_sum_reference(b2, coefficients, n))


@settings(max_examples=30, deadline=None)
@given(n=sizes, parts=st.integers(1, 5), top=st.integers(13, 63), c=constants, seed=seeds)
def test_exp_equals_its_references(n: int, parts: int, top: int, c: int, seed: int) -> None:
    table = draw(seed, 1 << rp.EXP_POSITION)
    x, y, mask = (draw(seed + i, n) for i in range(1, 4))
    b0, b1 = (draw(seed + i, parts, pl.words(n)) for i in (4, 5))
    d, steps = draw(seed + 6, parts + 1, n), draw(seed + 7, parts)
    got = rp.exp_owner(x, y, c, 3, top, table, b0, b1, d)
    assert torch.equal(got, rp.exp_owner_reference(x, y, c, 3, top, table, b0, b1, d))
    got = rp.exp_others(x, c, top, table, steps, b0, d, mask)
    assert torch.equal(got, rp.exp_others_reference(x, c, top, table, steps, b0, d, mask))


def test_three_summands_are_the_product() -> None:
    x, y, f = ([draw(10 * k + i, 50) for i in range(3)] for k in range(3))
    z = sum(rp.product_summand(x[i], x[j], y[i], y[j], f[i], f[j]) for i, j in ((0, 1), (1, 2), (2, 0)))
    assert torch.equal(z, sum(x) * sum(y))


@settings(max_examples=40, deadline=None)
@given(f=st.integers(1, 60), seed=seeds)
def test_the_wraps_of_three_pieces(f: int, seed: int) -> None:
    """|x| < 2^61, offset 7·2^61: the three places' parts give x >> f, low by 0, 1 or 2."""
    x = draw(seed, 400) >> 2
    pieces = [draw(seed + 1, 400), draw(seed + 2, 400)]
    pieces.append(x - pieces[0] - pieces[1])
    offset = 7 << 61
    mask, share, zero = draw(seed + 3, 2, 400), draw(seed + 4, 400), torch.zeros(400, dtype=torch.int64)
    sent = rp.truncate_owner(pieces[0], pieces[1], offset, 0, mask)
    w1 = rp.truncate_others(pieces[2], 0, pieces[1], 0, sent, share)
    w2 = rp.truncate_others(pieces[2], 0, pieces[0], offset, mask, -share)
    total = rp.truncated_piece(pieces[0], offset, w1, f, offset >> f)
    total = total + rp.truncated_piece(pieces[1], 0, w2, f, 0) + rp.truncated_piece(pieces[2], 0, zero, f, 0)
    low = (x >> f) - total
    assert int(low.min()) >= 0 and int(low.max()) <= 2


def test_what_does_not_fit_is_refused() -> None:
    x = draw(1, 65)
    for call in (
        lambda: rp.product_summand(x, x, x, x, x, x[:3]),
        lambda: rp.truncate_owner(x, x, 0, 0, x),
        lambda: rp.truncated_piece(x, 0, x, 0, 0),
        lambda: rp.bits_owner(draw(1, 2, 1), draw(1, 2, 2), draw(1, 2, 65)),
        lambda: rp.exp_owner(x, x, 0, 0, 12, draw(2, 1 << 13), draw(1, 2, 2), draw(1, 2, 2), draw(1, 3, 65)),
        lambda: rp.exp_others(x, 0, 20, draw(2, 1 << 13), draw(1, 2), draw(1, 3, 2), draw(1, 3, 65), x),
    ):
        with pytest.raises(InputError):
            call()
