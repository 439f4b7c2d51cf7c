"""Products on the emulated device: edges of tiles, worst sums of digits, pieces of k, whole int8 products."""

from __future__ import annotations

import pytest
import torch

from mpc_ray.errors import DeviceError, InputError
from mpc_ray.kernels import device, ring, ring_pack
from mpc_ray.kernels.cuda import planes
from mpc_ray.kernels.cuda import ring as cuda

# Whose digits are the extremes: -128 in all places, 127 in all, -1 (one digit), both ends.
WORST = (
    -0x7F7F7F7F7F7F7F80,
    0x7F7F7F7F7F7F7F7F,
    -1,
    -(2**63),
    2**63 - 1,
    -0x8080808080808080 + 2**64 - 2**63,
)


def random_ring(seed: int, *shape: int) -> torch.Tensor:
    return torch.randint(-(2**63), 2**63 - 1, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("m", "k", "n"),
    [
        (1, 1, 1),
        (16, 32, 8),
        (63, 31, 65),
        (64, 32, 64),
        (65, 33, 17),
        (1, 400, 3),
        (130, 65, 15),
        (2, 800, 70),
    ],
)
def test_edges_of_tiles(m: int, k: int, n: int) -> None:
    a, b = random_ring(m, m, k), random_ring(n, k, n)
    with device.emulating():
        packed = ring.pack(b)
        assert packed.form == "cuda"
        assert torch.equal(ring.matmul_packed(a, packed), a @ b)
        assert torch.equal(ring.matmul(a, b), a @ b)
        start = random_ring(1, m, n)
        assert torch.equal(ring.matmul_plus(a, packed, start), start + a @ b)
        assert torch.equal(ring.matmul_plus(a, packed, start[0]), start[0] + a @ b)
    assert torch.equal(cuda.matmul_plain(a, b), a @ b)


def test_the_longest_piece_of_the_worst_digits() -> None:
    """Sums of low digits stay in int32 up to the length that one piece may have."""
    k = cuda.LONGEST * cuda.STEP
    a = torch.tensor(WORST)[:, None].expand(-1, k)
    out = torch.empty((len(WORST), len(WORST)), dtype=torch.int64)
    cuda.matmul_batched(a.contiguous(), a.contiguous().t(), out)
    assert torch.equal(out, k * (a[:, :1] @ a[:, :1].t()))


def test_a_longer_product_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LONGEST", 2)
    a, b = random_ring(1, 3, 200), random_ring(2, 200, 5)
    with device.emulating():
        assert torch.equal(ring.matmul(a, b), a @ b)
        assert torch.equal(ring.matmul_packed(a, ring.pack(b)), a @ b)


@pytest.mark.parametrize(
    ("tiles", "steps", "count"), [(24, 24, 132), (96, 24, 132), (1, 3, 132), (500, 24, 132), (1, 5000, 4)]
)
def test_pieces_of_k_fill_the_device(tiles: int, steps: int, count: int) -> None:
    piece = cuda.piece_steps(tiles, steps, count)
    pieces = -(-steps // piece)
    assert 1 <= piece <= cuda.LONGEST
    waves = -(-tiles * pieces // count)

    def time(pieces: int) -> int:
        return -(-tiles * pieces // count) * (-(-steps // pieces) + cuda.START_STEPS)

    assert waves * (piece + cuda.START_STEPS) <= time(max(1, -(-steps // cuda.LONGEST)))


@pytest.mark.parametrize("inner", [1, 383, 384, 385, 1000])
def test_digits_of_a_matrix_in_slices_are_those_of_the_whole(inner: int) -> None:
    assert ring_pack.DEPTH % cuda.STEP == 0
    b = random_ring(inner, inner, 19)
    with device.emulating():
        whole = ring.pack(b)
        assert torch.equal(whole.data, cuda.prepare(b))
        assert torch.equal(ring.pack(b.t().contiguous().t()).data, whole.data)
        assert ring.pack_rows(inner, 19, lambda rows: b[rows], "cuda").nbytes == -(-inner // 32) * 32 * 32 * 8


def test_heads_of_attention_as_views() -> None:
    q, k = random_ring(5, 33, 4, 8), random_ring(6, 29, 4, 8)
    with device.emulating():
        for left, right in (
            (q.transpose(0, 1), k.permute(1, 2, 0)),
            (q.transpose(0, 1)[:, None], k.permute(1, 2, 0)[None]),
            (q.mT[:, :, :4], k[:, :, ::2].mT[:1].transpose(1, 2)),
        ):
            assert torch.equal(ring.matmul(left, right), torch.matmul(left, right))


@pytest.mark.parametrize("form", ["digits", "residues"])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (32, 16, 16), (33, 100, 13), (70, 130, 81)])
def test_whole_int8_products(form: str, m: int, k: int, n: int) -> None:
    a, b = random_ring(m, m, k), random_ring(n, k, n)
    out = torch.empty((m, n), dtype=torch.int64)
    planes.matmul(a, b, form, out)
    assert torch.equal(out, a @ b)
    planes.matmul(a, b.t().contiguous().t(), form, out, add=True)
    assert torch.equal(out, 2 * (a @ b))


@pytest.mark.parametrize("form", ["digits", "residues"])
def test_whole_int8_products_at_their_longest(form: str) -> None:
    k = planes.longest(form)
    assert {"digits": 32752, "residues": 11213}[form] == k
    a = torch.stack([torch.full((k,), value) for value in WORST])
    out = torch.empty((len(WORST), len(WORST)), dtype=torch.int64)
    planes.matmul(a, a.t(), form, out)
    assert torch.equal(out, a @ a.t())


def test_residues_are_residues() -> None:
    x = torch.cat([random_ring(3, 2, 20), torch.tensor([(*WORST, 0, 1, 255, 256)]).repeat(2, 2)], 1)
    found = planes.split(x, "residues")
    assert found.shape == (18, 2, 48)
    for modulus, residues in zip(planes.MODULI, found.tolist(), strict=True):
        for row, wanted in zip(residues, x.tolist(), strict=True):
            assert all((r - v) % modulus == 0 for r, v in zip(row[: len(wanted)], wanted, strict=True))
            assert not any(row[len(wanted) :])


def test_a_large_product_takes_whole_int8_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "LARGE", 1000)
    seen: list[str] = []
    original = planes.matmul
    monkeypatch.setattr(planes, "matmul", lambda *a, **k: (seen.append(a[2]), original(*a, **k))[1])
    a, b = random_ring(1, 20, 150), random_ring(2, 150, 20)
    with device.emulating():
        assert torch.equal(ring.matmul(a, b), a @ b)
        monkeypatch.setattr(planes, "longest", lambda form: {"residues": 100, "digits": 64}[form])
        assert torch.equal(ring.matmul(a, b), a @ b)
    assert seen == ["residues", "digits", "digits", "digits"]


def test_refusals_name_the_cause() -> None:
    a = torch.ones((2, 3), dtype=torch.int64)
    on_cpu = ring.pack(a.t())
    with device.emulating():
        digits = ring.pack(a.t())
        with pytest.raises(DeviceError, match=r"packed for .*pack it again"):
            ring.matmul_packed(a, on_cpu)
        with pytest.raises(InputError, match=r"beside a packed \(3, 2\)"):
            ring.matmul_plus(a[:, :2], digits, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(DeviceError, match="packed for cuda"):
        ring.matmul_packed(a, digits)
    with pytest.raises(DeviceError, match="CPU memory"):
        ring.pack_rows(3, 2, lambda rows: a.t()[rows], "cuda")
    assert torch.equal(ring.matmul_plus(a, on_cpu, torch.ones(2, dtype=torch.int64)), a @ a.t() + 1)
