"""Weights that all parties know: E0 and E1 of each third multiply alone, exactly; D takes no part."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_product import PARTIES, clear, edge_shares, random, total

from mpc_ray.errors import ScaleError
from mpc_ray.protocols.semi_honest.product import PublicLinear, PublicVector, Residual, add, multiply
from mpc_ray.protocols.semi_honest.thirds import Halves, thirds_of
from mpc_ray.sharing.replicated import Shared, Summand

seeds = st.integers(0, 2**31)
widths = st.integers(1, 20)


def value_of(parts: list[Halves]) -> torch.Tensor:
    """What the two evaluators hold of one third, added up; the dealer holds nothing."""
    held = [part.value for part in parts if part.value is not None]
    assert len(held) == 2
    return held[0] + held[1]


def whole(layers: list[PublicLinear], *shared: list[Shared]) -> torch.Tensor:
    """The product's value, from all parties' thirds; each third's dealer is the party that design says."""
    outs = [layer.thirds(*(x[i] for x in shared)) for i, layer in enumerate(layers)]
    rows = shared[0][0].shape[0]
    assert [[(k, where) for k, where, _ in out] for out in outs] == [thirds_of(rows)] * 3
    found = []
    for third, (k, where) in enumerate(thirds_of(rows)):
        parts = [out.parts[third][2] for out in outs]
        assert all(isinstance(part, Halves) for part in parts)
        assert parts[(k + 2) % 3].value is None
        assert {tuple(part.shape) for part in parts} == {(where.stop - where.start, layers[0].packed.columns)}
        assert {part.scale for part in parts} == {layers[0].bias.scale}
        found.append(value_of(parts))  # type: ignore[arg-type]
    return torch.cat(found)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 11), widths, widths, st.booleans())
def test_a_product(seed: int, m: int, k: int, n: int, narrow: bool) -> None:
    x, w, bias = random(seed, m, k), random(seed + 1, k, n), random(seed + 2, n)
    if narrow:
        w = (w >> 33).to(torch.int32)
    shared = edge_shares(x, 4, seed + 3)
    layers = [PublicLinear(i, w, PublicVector(bias, 9), (4,)) for i in PARTIES]
    assert torch.equal(whole(layers, shared), clear(x, w.to(torch.int64)) + bias)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 11), widths, st.integers(2, 20))
def test_a_product_with_a_residual_is_one_with_the_whole_matrix(seed: int, m: int, k: int, n: int) -> None:
    a, y, w, bias = random(seed, m, k), random(seed + 1, m, n), random(seed + 2, k, n), random(seed + 3, n)
    diagonal, mean = random(seed + 4, n), random(seed + 5, n)
    shared = [edge_shares(a, 6, seed + 6), edge_shares(y, 4, seed + 7)]
    layers = [PublicLinear(i, w, PublicVector(bias, 9), (6, 4), Residual(diagonal, mean)) for i in PARTIES]
    square = torch.diag(diagonal) - mean.unsqueeze(1)
    want = clear(torch.cat([a, y], 1), torch.cat([w, square])) + bias
    assert torch.equal(whole(layers, *shared), want)


def test_columns_of_the_thirds() -> None:
    shared, w = edge_shares(random(1, 5, 3), 4, 2), random(3, 3, 8)
    for i in PARTIES:
        out = PublicLinear(i, w, PublicVector(random(4, 8), 9), (4,)).thirds(shared[i])
        for (_, _, whole_part), (_, _, part) in zip(out, out.columns(slice(2, 7)), strict=True):
            assert part.shape == torch.Size((whole_part.shape[0], 5))
            if isinstance(part, Halves) and part.value is not None:
                assert torch.equal(part.value, whole_part.value[:, 2:7])  # type: ignore[index]


@settings(max_examples=30)
@given(seeds, widths, widths)
def test_multiply_and_add(seed: int, m: int, n: int) -> None:
    x, gain, bias = random(seed, m, n), random(seed + 1, n), random(seed + 2, n)
    shared = edge_shares(x, 3, seed + 3)
    parts = [add(i, multiply(i, shared[i], PublicVector(gain, 5)), PublicVector(bias, 8)) for i in PARTIES]
    assert torch.equal(total(parts, 8), x * gain + bias)


def test_another_scale_is_refused() -> None:
    shared, vector = edge_shares(random(1, 2, 3), 4, 2), PublicVector(random(2, 3), 5)
    with pytest.raises(ScaleError, match="input of a linear layer: scale 4 where 6 is needed"):
        PublicLinear(0, random(3, 3, 3), vector, (6,)).thirds(shared[0])
    with pytest.raises(ScaleError, match="addition"):
        add(1, Summand(shared[1].own, 4), vector)


def test_no_text_form_holds_a_share() -> None:
    shared = edge_shares(torch.full((3, 2), 123456789), 4, 2)
    out = PublicLinear(0, random(3, 2, 2), PublicVector(random(4, 2), 9), (4,)).thirds(shared[0])
    assert "tensor" not in repr(out)
