"""histogram: bodies equal their references; two shares add up to counts of buckets."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import InputError
from mpc_ray.kernels import histogram

seeds = st.integers(0, 2**31)
rings = st.sampled_from([8, 16])
buckets = st.sampled_from([1, 2, 3, 16, 17, 64, 128])


def draw(seed: int, bits: int, *shape: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randint(0, 1 << bits, shape, generator=source).to(histogram.RINGS[bits])


def integers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(-(2**63), 2**63 - 1, shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(
    bits=rings, rows=st.integers(0, 4), n=st.integers(0, 20), nb=buckets, mask=st.integers(0, 2), seed=seeds
)
def test_counts_equal_the_reference(bits: int, rows: int, n: int, nb: int, mask: int, seed: int) -> None:
    e, c = draw(seed, bits, rows, n, nb), integers(seed, rows, n)
    keep = [None, integers(seed, n).to(torch.uint8) & 1, integers(seed, rows, n).to(torch.uint8) & 1][mask]
    got = histogram.thermometer_counts(e, c, keep, bits)
    assert got.dtype == e.dtype
    want = histogram.thermometer_counts_reference(e, c, keep, bits)
    assert torch.equal(got.to(torch.int64), want.to(torch.int64))


@settings(max_examples=40, deadline=None)
@given(bits=rings, rows=st.integers(0, 5), nb=buckets, seed=seeds)
def test_suffix_sums_and_dealing_equal_their_references(bits: int, rows: int, nb: int, seed: int) -> None:
    e, position = draw(seed, bits, rows, 3, nb), integers(seed, rows, 3)
    for got, want in (
        (histogram.suffix_sum(e), histogram.suffix_sum_reference(e)),
        (histogram.deal_thermometer(e, position), histogram.deal_thermometer_reference(e, position)),
    ):
        assert got.dtype == want.dtype == e.dtype
        assert got.shape == want.shape
        assert torch.equal(got.to(torch.int64), want.to(torch.int64))


@pytest.mark.parametrize(("bits", "n"), [(8, 255), (16, 300)])
def test_shares_add_up_to_the_number_at_or_above_each_bucket(bits: int, n: int) -> None:
    nb, rows = 32, 3
    r, c = integers(1, rows, n) % nb, integers(2, rows, n) % nb
    e0 = draw(3, bits, rows, n, nb)
    e1 = histogram.deal_thermometer(e0, r)
    shares = [histogram.suffix_sum(histogram.thermometer_counts(e, c, None, bits)) for e in (e0, e1)]
    counts = (shares[0].to(torch.int64) + shares[1].to(torch.int64)) % (1 << bits)
    bucket = (c - r) % nb
    want = (bucket[:, :, None] >= torch.arange(nb)).sum(1)
    assert torch.equal(counts, want)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(0, 9), log=st.integers(0, 6), nb=st.integers(1, 40), seed=seeds)
def test_picks_and_rotations_equal_their_references(rows: int, log: int, nb: int, seed: int) -> None:
    e, c = draw(seed, 8, rows, 1 << log), integers(seed, rows)
    assert torch.equal(histogram.pick_bits(e, c), histogram.pick_bits_reference(e, c))
    x = draw(seed + 1, 8, rows, nb)
    turned = histogram.rotate_rows(x, c)
    assert torch.equal(turned, histogram.rotate_rows_reference(x, c))
    assert torch.equal(histogram.rotate_rows(turned, -(c % nb)), x)


def test_a_rotation_by_one_moves_entry_0_to_entry_1() -> None:
    x = torch.tensor([[1, 2, 3]], dtype=torch.uint8)
    assert histogram.rotate_rows(x, torch.tensor([1])).tolist() == [[3, 1, 2]]
    bits = torch.tensor([[0b100, 0b1]], dtype=torch.uint8)
    assert [histogram.pick_bits(bits, torch.tensor([i])).item() for i in (1, 2, 8, 9)] == [0, 1, 1, 0]


def test_refusals() -> None:
    e, c = draw(1, 8, 2, 3, 4), integers(1, 2, 3)
    with pytest.raises(InputError, match="bits = 9"):
        histogram.thermometer_counts(e, c, None, 9)
    with pytest.raises(InputError, match="e is"):
        histogram.thermometer_counts(e, c, None, 16)
    with pytest.raises(InputError, match="keep is"):
        histogram.thermometer_counts(e, c, c[0], 8)
    with pytest.raises(InputError, match=r"counts of torch\.int64"):
        histogram.suffix_sum(c)
