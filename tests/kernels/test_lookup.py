"""lookup: bodies equal their references; the two sums differ by sign * T[c - r]."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import InputError
from mpc_ray.kernels import lookup, lookup_tile

rows_of = st.sampled_from([0, 1, 2, 31, 32, 33, 64, 65])
seeds = st.integers(0, 2**31)


def draw(seed: int, n: int, rows: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random bits, c (beyond the domain on both sides) and tables."""
    source = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 256, (rows, 1 << (n - 3)), generator=source).to(torch.uint8)
    c = torch.randint(-(2**63), 2**63 - 1, (rows,), generator=source)
    tables = torch.randint(-(2**63), 2**63 - 1, (count, 1 << n), generator=source)
    return bits, c, tables


@settings(max_examples=80, deadline=None)
@given(n=st.integers(3, 11), rows=rows_of, count=st.integers(1, 9), seed=seeds)
def test_sums_equal_the_reference(n: int, rows: int, count: int, seed: int) -> None:
    bits, c, tables = draw(seed, n, rows, count)
    assert torch.equal(
        lookup.lookup_sums(bits, c, lookup.prepare(tables)), lookup.lookup_sums_reference(bits, c, tables)
    )


@pytest.mark.parametrize("n", [12, 13, 14, 15, 16])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_sums_over_long_tables_equal_the_reference(n: int, count: int) -> None:
    bits, c, tables = draw(n, n, 35, count)
    want = lookup.lookup_sums_reference(bits, c, tables)
    assert torch.equal(lookup.lookup_sums(bits, c, lookup.prepare(tables)), want)


@given(n=st.integers(3, 9), rows=rows_of, count=st.integers(1, 3), seed=seeds)
@settings(max_examples=20, deadline=None)
def test_the_plain_body_equals_the_reference(n: int, rows: int, count: int, seed: int) -> None:
    bits, c, tables = draw(seed, n, rows, count)
    plain = lookup.PreparedTables(n, tables, ())
    assert torch.equal(lookup.lookup_sums(bits, c, plain), lookup.lookup_sums_reference(bits, c, tables))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(3, 12), rows=rows_of, seed=seeds)
def test_two_evaluators_find_the_signed_table_value(n: int, rows: int, seed: int) -> None:
    e0, c, tables = draw(seed, n, rows, 2)
    r = torch.randint(0, 1 << n, (rows,), generator=torch.Generator().manual_seed(seed))
    e1, sign = lookup.deal_one_hot(e0, r)
    assert torch.equal(torch.stack(lookup.deal_one_hot_reference(e0, r)[1:]), sign[None])
    assert torch.equal(lookup.deal_one_hot_reference(e0, r)[0], e1)
    prepared = lookup.prepare(tables)
    difference = lookup.lookup_sums(e0, c, prepared) - lookup.lookup_sums(e1, c, prepared)
    assert torch.equal(difference, sign[:, None] * tables[:, (c - r) % (1 << n)].T)


def test_dealing_in_place_and_into_another_tensor() -> None:
    e0, r, _ = draw(1, 8, 40, 1)
    want, sign = lookup.deal_one_hot(e0, r)
    other = torch.zeros_like(e0)
    assert lookup.deal_one_hot(e0, r, out=other)[0] is other
    assert torch.equal(other, want)
    again, sign_again = lookup.deal_one_hot(e0, r, out=e0)
    assert again is e0
    assert torch.equal(e0, want)
    assert torch.equal(sign, sign_again)


def test_rows_that_are_views() -> None:
    bits, c, tables = draw(3, 8, 70, 3)
    wide = torch.zeros((70, 49), dtype=torch.uint8)
    wide[:, 5:37] = bits
    prepared = lookup.prepare(tables)
    want = lookup.lookup_sums_reference(bits, c, tables)
    assert torch.equal(lookup.lookup_sums(wide[:, 5:37], c, prepared), want)
    flat = torch.cat([torch.zeros(3, dtype=torch.uint8), bits.flatten()])[3:].reshape(70, 32)
    assert torch.equal(lookup.lookup_sums(flat, torch.stack([c, c], 1)[:, 0], prepared), want)


def test_a_block_boundary_inside_the_table() -> None:
    bits, c, tables = draw(4, 10, 50, 3)
    if lookup.body() != "permute":
        pytest.skip("needs AVX-512")
    want = lookup.lookup_sums_reference(bits, c, tables).numpy()
    for sums in (
        lookup.prepare(tables).sums[0].numpy(),
        np.zeros((0, 16, 3, 16), np.int64),
    ):  # kept, and made anew
        out = np.zeros((50, 3), np.int64)
        lookup_tile.lookup(bits.numpy().view(np.uint64), c.numpy(), tables.numpy(), sums, 5, out)
        assert np.array_equal(out, want)


def test_long_tables_keep_no_sums() -> None:
    kept = sum(sums.numel() for sums in lookup.prepare(torch.ones((5, 1 << 11), dtype=torch.int64)).sums)
    assert kept == 0


def test_refusals() -> None:
    with pytest.raises(InputError, match="domain of 24"):
        lookup.prepare(torch.zeros((1, 24), dtype=torch.int64))
    with pytest.raises(InputError, match="domain of 131072"):
        lookup.prepare(torch.zeros((1, 1 << 17), dtype=torch.int64))
    prepared = lookup.prepare(torch.zeros((1, 256), dtype=torch.int64))
    with pytest.raises(InputError, match="bits is"):
        lookup.lookup_sums(
            torch.zeros((2, 16), dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), prepared
        )
