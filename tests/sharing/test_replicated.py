"""Replicated shares: linear operations are exact mod 2^64, copies agree, scales are checked."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.errors import ScaleError
from mpc_ray.sharing.deal import Secret, deal, receive
from mpc_ray.sharing.replicated import Shared, Summand, concatenate, reconstruct, summand

ring = st.integers(-(2**63), 2**63 - 1)
vectors = st.lists(ring, min_size=3, max_size=3).map(torch.tensor)


def shared(x: torch.Tensor, scale: int = 4) -> list[Shared]:
    parcels = deal({"x": Secret(x.numpy(), scale)})
    return [receive(i, p.header, p.tensors)["x"] for i, p in enumerate(parcels)]


@given(x=vectors, y=vectors)
def test_sums_are_exact(x: torch.Tensor, y: torch.Tensor) -> None:
    parts = [a + b for a, b in zip(shared(x), shared(y), strict=True)]
    assert torch.equal(reconstruct(parts), x + y)
    assert sum(summand(p).value for p in parts).tolist() == (x + y).tolist()  # type: ignore[union-attr]


@given(x=vectors, bits=st.integers(0, 63))
def test_rescaling_multiplies_by_a_power_of_two(x: torch.Tensor, bits: int) -> None:
    parts = [a.rescaled(bits) for a in shared(x)]
    assert torch.equal(reconstruct(parts), x << bits)
    assert {p.scale for p in parts} == {4 + bits}


@pytest.mark.parametrize("bits", [-1, 64])
def test_rescaling_never_drops_bits(bits: int) -> None:
    with pytest.raises(ScaleError, match="truncate it"):
        shared(torch.tensor([1]))[0].rescaled(bits)


def test_slices_shapes_and_concatenation() -> None:
    x = torch.arange(24).reshape(4, 6) - 7
    parts = shared(x)
    assert parts[0].shape == x.shape
    assert torch.equal(reconstruct([p[1:3, ::2] for p in parts]), x[1:3, ::2])
    assert torch.equal(reconstruct([p.map(lambda t: t.transpose(0, 1)) for p in parts]), x.T)
    assert torch.equal(reconstruct([concatenate([p, p[:1]]) for p in parts]), torch.cat([x, x[:1]]))
    assert torch.equal(reconstruct([concatenate([p, p], 1) for p in parts]), torch.cat([x, x], 1))
    assert concatenate([parts[0]]) is parts[0]


def test_scales_are_checked_everywhere() -> None:
    a, b = shared(torch.tensor([1]), 4)[0], shared(torch.tensor([1]), 5)[0]
    for wrong in (lambda: a + b, lambda: concatenate([a, b]), lambda: summand(a) + summand(b)):
        with pytest.raises(ScaleError, match="scale 5 where 4"):
            wrong()
    with pytest.raises(ScaleError, match="party 1's half"):
        reconstruct([Shared(a.own, a.own, 4), Shared(a.own, a.own, 5), Shared(a.own, a.own, 4)])


def test_reconstruct_sees_copies_that_disagree() -> None:
    parts = shared(torch.tensor([1, 2]))
    parts[1] = Shared(parts[1].own + 1, parts[1].next, 4)
    with pytest.raises(ValueError, match="parties 0 and 1 disagree"):
        reconstruct(parts)


def test_summands_are_linear() -> None:
    z = Summand(torch.tensor([[1, 2], [3, 4]]), 3)
    assert (z + z).value.tolist() == [[2, 4], [6, 8]]
    assert z[1].value.tolist() == [3, 4]
    assert z.map(torch.flatten).shape == (4,)
