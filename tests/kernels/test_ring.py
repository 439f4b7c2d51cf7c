"""ring: every body gives torch's bits, on every shape, stride and broadcast."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import DeviceError, InputError
from mpc_ray.kernels import ring

FORMS = ring.bodies()
dims = st.one_of(st.integers(0, 34), st.sampled_from([1, 7, 8, 9, 15, 16, 17, 383, 384, 385, 515]))


def random_ring(seed: int, *shape: int) -> torch.Tensor:
    """Uniform int64, with the ends of the ring mixed in."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(-(2**63), 2**63 - 1, shape, generator=draw)
    ends = torch.tensor([-(2**63), 2**63 - 1, -1, 0, 2**52, -(2**52), 2**52 - 1])
    pick = torch.randint(0, 4 * len(ends), shape, generator=draw)
    return torch.where(pick < len(ends), ends[pick.clamp(max=len(ends) - 1)], x)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=60, deadline=None)
@given(m=dims, k=dims, n=dims, turned=st.booleans(), seed=st.integers(0, 2**31))
def test_packed_product_is_torchs(form: str, m: int, k: int, n: int, turned: bool, seed: int) -> None:
    a = random_ring(seed, m, k)
    b = random_ring(seed + 1, n, k).T if turned else random_ring(seed + 1, k, n)
    packed = ring.pack_for(b, form)
    want = ring.matmul_reference(a, b)
    assert torch.equal(ring.matmul_packed(a, packed), want)
    out = torch.full((m, n), 7)
    assert ring.matmul_packed(a, packed, out) is out
    assert torch.equal(out, want)


@pytest.mark.parametrize("form", FORMS)
def test_strided_left_side_and_strided_out(form: str) -> None:
    b = random_ring(2, 40, 19)
    packed = ring.pack_for(b, form)
    wide = random_ring(1, 21, 100)
    assert torch.equal(ring.matmul_packed(wide[:, 10:50], packed), wide[:, 10:50] @ b)
    assert torch.equal(ring.matmul_packed(wide[:, ::2][:, :40], packed), wide[:, ::2][:, :40] @ b)
    out = torch.zeros((21, 40), dtype=torch.int64)[:, ::2][:, :19]
    ring.matmul_packed(wide[:, :40], packed, out)
    assert torch.equal(out, wide[:, :40] @ b)


def test_packing_keeps_no_view_of_its_argument() -> None:
    for form in FORMS:
        b = random_ring(3, 9, 9)
        packed = ring.pack_for(b, form)
        want = b.clone()
        b.zero_()
        assert torch.equal(ring.matmul_packed(torch.eye(9, dtype=torch.int64), packed), want)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inner", [0, 1, 384, 385, 1000])
def test_a_matrix_that_comes_in_pieces_is_packed_as_a_whole_one(form: str, inner: int) -> None:
    b, asked = random_ring(4, inner, 37), []

    def rows(some: slice) -> torch.Tensor:
        asked.append((some.start, some.stop))
        return b[some].clone()

    packed = ring.pack_rows(inner, 37, rows, form)
    assert torch.equal(packed.data, ring.pack_for(b, form).data)
    assert packed.nbytes == 8 * ((inner + 7) // 8 * 8 * 48 if form != "torch" else inner * 37)
    assert [stop for _, stop in asked[:-1]] == [start for start, _ in asked[1:]]
    assert max((stop - start for start, stop in asked), default=0) <= 384


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=40, deadline=None)
@given(m=dims, k=dims, n=dims, seed=st.integers(0, 2**31))
def test_a_product_with_small_integers(form: str, m: int, k: int, n: int, seed: int) -> None:
    a, wide = random_ring(seed, m, k), random_ring(seed + 1, k, n)
    b = torch.where(wide % 3 == 0, wide.clamp(-(2**31), 2**31 - 1), wide >> 40).to(torch.int32)
    packed = ring.pack_rows(k, n, lambda some: b[some], form, torch.int32)
    assert torch.equal(ring.matmul_packed(a, packed), ring.matmul_reference(a, b.to(torch.int64)))
    if form != "torch":
        assert packed.nbytes == 4 * ((k + 7) // 8 * 8) * ((n + 15) // 16 * 16)


def test_pieces_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match="rows is"):
        ring.pack_rows(10, 4, lambda rows: torch.zeros((10, 3), dtype=torch.int64))
    with pytest.raises(InputError, match="rows is"):
        ring.pack_rows(10, 4, lambda rows: torch.zeros((10, 3), dtype=torch.int32), None, torch.int32)


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.sampled_from(
        [
            ((2, 3), (2, 3)),
            ((1, 3), (2, 1)),
            ((), (4,)),
            ((4,), ()),
            ((0,), (0,)),
            ((2, 2), (2,)),
            ((12,), (12,)),
        ]
    ),
    m=st.integers(0, 20),
    k=st.integers(0, 40),
    n=st.integers(0, 40),
    turned=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_batched_product_broadcasts_like_torch(
    shapes: tuple[tuple[int, ...], tuple[int, ...]], m: int, k: int, n: int, turned: bool, seed: int
) -> None:
    a = random_ring(seed, *shapes[0], m, k)
    b = random_ring(seed, *shapes[1], n, k).mT if turned else random_ring(seed, *shapes[1], k, n)
    assert torch.equal(ring.matmul(a, b), ring.matmul_reference(a, b))


def test_heads_of_attention_as_views() -> None:
    q, k = random_ring(5, 33, 4, 8), random_ring(6, 29, 4, 8)
    scores = ring.matmul(q.transpose(0, 1), k.permute(1, 2, 0))
    assert torch.equal(scores, torch.matmul(q.transpose(0, 1), k.permute(1, 2, 0)))


@given(s=st.integers(0, 63), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_shifts(s: int, seed: int) -> None:
    x = random_ring(seed, 17)
    for value, logical in zip(x.tolist(), ring.shift_right_logical(x, s).tolist(), strict=True):
        assert logical % 2**64 == value % 2**64 >> s


def test_refusals_name_the_cause() -> None:
    a = torch.zeros((2, 3), dtype=torch.int64)
    with pytest.raises(InputError, match="inner dimensions"):
        ring.matmul(a, a)
    with pytest.raises(InputError, match=r"packed \(3, 2\)"):
        ring.matmul_packed(a.T, ring.pack(a.T))
    with pytest.raises(InputError, match="out is"):
        ring.matmul_packed(a, ring.pack(a.T), torch.zeros((2, 3), dtype=torch.int64))
    with pytest.raises(DeviceError, match=r"ring\.matmul has no body for device meta"):
        ring.matmul(a.to("meta"), a.T)
    with pytest.raises(InputError, match="s = 64"):
        ring.shift_right_logical(a, 64)


def test_the_body_is_one_that_the_processor_runs() -> None:
    assert ring.body() in FORMS


@pytest.mark.parametrize(("inner", "columns"), [(1, 1), (8, 16), (13, 17), (400, 33), (780, 48)])
def test_what_was_packed_is_had_again(inner: int, columns: int) -> None:
    b = torch.randint(-(2**63), 2**63 - 1, (inner, columns))
    for form in ring.bodies():
        packed = ring.pack_for(b, form)
        for first, last in ((0, inner), (0, inner // 2), (inner // 2, inner), (inner // 3, inner // 3)):
            assert torch.equal(ring.unpack(packed, range(first, last)), b[first:last])
