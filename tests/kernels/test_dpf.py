"""dpf: equal to the definition bit for bit; two shares make a one-hot; fixed vectors pin the wire form."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import InputError
from mpc_ray.kernels import dpf, lookup
from mpc_ray.kernels.dpf_reference import expand_reference, generate_reference

seeds = st.integers(0, 2**31)


def draw(seed: int, rows: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    source = torch.Generator().manual_seed(seed)
    roots = torch.randint(0, 256, (2, rows, 16), generator=source).to(torch.uint8)
    return roots[0], roots[1], torch.randint(0, 1 << n, (rows,), generator=source)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(8, 11), rows=st.integers(0, 9), seed=seeds)
def test_equal_to_the_definition(n: int, rows: int, seed: int) -> None:
    s0, s1, position = draw(seed, rows, n)
    keys, sign = dpf.generate(s0, s1, position, n)
    want, want_sign = generate_reference(s0, s1, position, n)
    assert torch.equal(keys.data, want.data)
    assert torch.equal(sign, want_sign)
    for party, s in enumerate((s0, s1)):
        assert torch.equal(dpf.expand(s, party, keys, n), expand_reference(s, party, want, n))


@pytest.mark.parametrize("n", range(8, 17))
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_the_two_shares_make_the_one_hot_and_the_sign(n: int, rows: int) -> None:
    s0, s1, position = draw(n, rows, n)
    position[0] = (1 << n) - 1
    position[-1] = 0
    keys, sign = dpf.generate(s0, s1, position, n)
    e0, e1 = dpf.expand(s0, 0, keys, n), dpf.expand(s1, 1, keys, n)
    want, want_sign = lookup.deal_one_hot(e0, position)
    assert torch.equal(e1, want)
    assert torch.equal(sign, want_sign)


@pytest.mark.parametrize(("n", "rows"), [(8, 1), (9, 70), (12, 33), (16, 3)])
def test_evaluated_sums_are_the_sums_of_the_expansion(n: int, rows: int) -> None:
    s0, s1, position = draw(n, rows, n)
    tables = torch.randint(-(2**63), 2**63 - 1, (2, 1 << n), generator=torch.Generator().manual_seed(n))
    c = torch.randint(0, 1 << n, (rows,), generator=torch.Generator().manual_seed(n + 1))
    keys, sign = dpf.generate(s0, s1, position, n)
    prepared = lookup.prepare(tables)
    sums = [dpf.evaluate_sums(s, party, keys, c, prepared, n) for party, s in enumerate((s0, s1))]
    assert torch.equal(sums[0] - sums[1], sign[:, None] * tables[:, (c - position) % (1 << n)].T)


def test_more_rows_than_memory_holds_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpf, "CHUNK_BYTES", 1 << 9)
    monkeypatch.setattr(dpf, "SUMS_BYTES", 1 << 11)
    s0, s1, position = draw(5, 75, 9)
    keys, _ = dpf.generate(s0, s1, position, 9)
    prepared = lookup.prepare(torch.arange(512)[None])
    c = position.flip(0).contiguous()
    want = lookup.lookup_sums(expand_reference(s1, 1, keys, 9), c, prepared)
    assert torch.equal(dpf.evaluate_sums(s1, 1, keys, c, prepared, 9), want)


def test_shares_look_uniform_and_keys_hide_the_position() -> None:
    s0, s1, position = draw(6, 2000, 10)
    keys, sign = dpf.generate(s0, s1, torch.full_like(position, 777), 10)
    for share in (dpf.expand(s0, 0, keys, 10), dpf.expand(s1, 1, keys, 10)):
        hot = lookup.unpack_domain(share).to(torch.float64)
        assert abs(float(hot.mean()) - 0.5) < 0.003
        assert float((hot.mean(0) - 0.5).abs().max()) < 0.06
    assert abs(float(sign.to(torch.float64).mean())) < 0.1
    assert abs(float(lookup.unpack_domain(keys.data[:, 64:65]).to(torch.float64)[:, :6].mean()) - 0.5) < 0.03


def test_the_wire_form_is_pinned() -> None:
    s0 = torch.arange(32, dtype=torch.uint8).reshape(2, 16)
    keys, sign = dpf.generate(s0, s0.flip(0) + 100, torch.tensor([5, 1000]), 10)
    assert [dpf.key_bytes(n) for n in (8, 10, 16)] == [33, 65, 163]
    assert sign.tolist() == SIGN
    assert hashlib.sha256(keys.data.numpy().tobytes()).hexdigest()[:32] == DIGEST


SIGN = [1, 1]
DIGEST = "e69215eabd8bf0ee4cdbf5f8209ebd7e"


def test_refusals() -> None:
    s0, s1, position = draw(7, 2, 8)
    keys, _ = dpf.generate(s0, s1, position, 8)
    with pytest.raises(InputError, match="n = 7"):
        dpf.generate(s0, s1, position, 7)
    with pytest.raises(InputError, match="2 keys over 2\\^8 beside 1 seeds"):
        dpf.expand(s0[:1], 0, keys, 8)
    with pytest.raises(InputError, match="party = 2"):
        dpf.expand(s0, 2, keys, 8)
    with pytest.raises(InputError, match="data is"):
        dpf.Keys(keys.data[:, 1:], 8)
