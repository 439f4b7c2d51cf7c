"""elementwise and packing: bodies equal their references, and the formulas do what they are for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import DeviceError, InputError
from mpc_ray.kernels import elementwise as ew
from mpc_ray.kernels import packing

seeds = st.integers(0, 2**31)
sizes = st.sampled_from([0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 200])


def draw(seed: int, *shape: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    x = torch.randint(-(2**63), 2**63 - 1, shape, generator=source)
    ends = torch.tensor([-(2**63), 2**63 - 1, -1, 0, 2**62, -(2**62)])
    pick = torch.randint(0, 6 * len(ends), shape, generator=source)
    return torch.where(pick < len(ends), ends[pick.clamp(max=len(ends) - 1)], x)


@settings(max_examples=40, deadline=None)
@given(n=sizes, constant=st.integers(-(2**63), 2**64), f=st.integers(1, 62), seed=seeds)
def test_opening_and_truncation_equal_their_references(n: int, constant: int, f: int, seed: int) -> None:
    z, rho, g, b = (draw(seed + i, n, 2) for i in range(4))
    want = ew.mask_for_open_reference(z, rho, constant)
    assert torch.equal(ew.mask_for_open(z, rho, constant), want)
    assert torch.equal(ew.mask_for_open(z, rho, constant, out=g.clone()), want)
    assert torch.equal(ew.add_open(z, rho), z + rho)
    for got, expected in (
        (ew.truncate_public(z, f), ew.truncate_public_reference(z, f)),
        (ew.truncate_dealer(z, f), ew.truncate_dealer_reference(z, f)),
    ):
        assert all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))
    for public in (None, z):
        got_share = ew.truncated_share(public, g, rho, b, f)
        assert torch.equal(got_share, ew.truncated_share_reference(public, g, rho, b, f))


def test_masking_in_place_and_into_a_view() -> None:
    z, rho = draw(1, 40), draw(2, 40)
    want = z + rho + 5
    wide = torch.zeros(80, dtype=torch.int64)
    assert torch.equal(ew.mask_for_open(z, rho, 5, out=wide[::2]), want)
    assert torch.equal(wide[::2], want)
    assert ew.mask_for_open(z, rho, 5, out=z) is z
    assert torch.equal(z, want)


@settings(max_examples=60, deadline=None)
@given(f=st.integers(1, 61), seed=seeds)
def test_truncation_is_the_floor_or_one_more(f: int, seed: int) -> None:
    z = draw(seed, 300) >> 1
    r, h0, b0 = draw(seed + 1, 300), draw(seed + 2, 300), draw(seed + 3, 300)
    c = z + (1 << 62) + r
    public, g = ew.truncate_public(c, f)
    high, top = ew.truncate_dealer(r, f)
    y = ew.truncated_share(public, g, h0, b0, f) + ew.truncated_share(None, g, high - h0, top - b0, f)
    error = y - (z >> f)
    assert error.unique().tolist() in ([0], [0, 1], [1])


@settings(max_examples=40, deadline=None)
@given(n=sizes, d=st.integers(0, 4), seed=seeds)
def test_polynomial_parts_and_powers(n: int, d: int, seed: int) -> None:
    a, c, r, s = draw(seed, n, d + 1), draw(seed + 1, n), draw(seed + 2, n), draw(seed + 3, n)
    parts, beta = ew.polynomial_parts(a, c), ew.powers(s, r, d)
    assert torch.equal(parts, ew.polynomial_parts_reference(a, c))
    assert torch.equal(beta, ew.powers_reference(s, r, d))
    value = torch.zeros_like(c)
    for k in range(d, -1, -1):
        value = value * (c - r) + a[:, k]
    assert torch.equal((parts * beta).sum(0), s * value)


@settings(max_examples=80, deadline=None)
@given(n=sizes, nbytes=st.integers(1, 8), seed=seeds)
def test_bytes_are_packed_tight(n: int, nbytes: int, seed: int) -> None:
    x = draw(seed, n)
    data = packing.pack_low_bytes(x, nbytes)
    assert torch.equal(data, packing.pack_low_bytes_reference(x, nbytes))
    back = packing.unpack_low_bytes(data, nbytes)
    assert torch.equal(back, packing.unpack_low_bytes_reference(data, nbytes))
    assert torch.equal(back, x if nbytes == 8 else x & ((1 << 8 * nbytes) - 1))


@settings(max_examples=120, deadline=None)
@given(
    n=sizes,
    bits=st.integers(1, 16),
    seed=seeds,
    kind=st.sampled_from([torch.int64, torch.uint8, torch.uint16]),
)
def test_bits_are_packed_tight(n: int, bits: int, seed: int, kind: torch.dtype) -> None:
    x = draw(seed, n).to(kind)
    data = packing.pack_bits(x, bits)
    assert torch.equal(data, packing.pack_bits_reference(x, bits))
    back = packing.unpack_bits(data, n, bits)
    assert torch.equal(back, packing.unpack_bits_reference(data, n, bits))
    assert torch.equal(back, x.to(torch.int64) & ((1 << bits) - 1))


def test_known_bytes() -> None:
    assert packing.pack_low_bytes(torch.tensor([0x010203, -1]), 2).tolist() == [3, 2, 255, 255]
    assert packing.pack_bits(torch.tensor([0b101, 0b011, 0b1111]), 3).tolist() == [0b11011101, 0b1]


def test_refusals() -> None:
    x = draw(1, 4)
    with pytest.raises(InputError, match="f = 63"):
        ew.truncate_public(x, 63)
    with pytest.raises(InputError, match="beside int64"):
        ew.mask_for_open(x, x[:3], 0)
    with pytest.raises(InputError, match="degree = 5"):
        ew.polynomial_parts(draw(1, 4, 6), x)
    with pytest.raises(DeviceError, match="meta"):
        ew.add_open(x.to("meta"), x)
    with pytest.raises(InputError, match="7 bytes"):
        packing.unpack_low_bytes(torch.zeros(7, dtype=torch.uint8), 2)
    with pytest.raises(InputError, match="data is"):
        packing.unpack_bits(torch.zeros(7, dtype=torch.uint8), 9, 7)
    with pytest.raises(InputError, match="bits = 17"):
        packing.pack_bits(x, 17)
