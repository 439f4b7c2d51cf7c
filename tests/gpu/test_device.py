"""On a CUDA device (`make test-gpu`, without Ray): what everything rests on, then every kernel, then an encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mpc_ray.kernels import device, ring
from mpc_ray.kernels.cuda import planes, sources
from mpc_ray.kernels.cuda import ring as cuda_ring
from mpc_ray.kernels.cuda.launch import launch
from mpc_ray.kernels.operations import OPERATIONS, Draw, Operation

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)


def moved(given: Any, place: torch.device | str) -> Any:
    if isinstance(given, torch.Tensor):
        return given.to(place)
    return type(given)(moved(g, place) for g in given) if isinstance(given, (tuple, list)) else given


def tensors(result: Any) -> list[torch.Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


def random_ring(*shape: int) -> torch.Tensor:
    return torch.randint(-(2**63), 2**63 - 1, shape)


def test_a_the_fragments_of_mma_lie_where_the_emulation_has_them() -> None:
    """One tile, whose every row and column is told apart: a fragment elsewhere would permute the product."""
    a = torch.arange(64)[:, None] * 1000 + torch.arange(32)[None]
    b = torch.arange(64)[None] * 7 + torch.arange(32)[:, None] ** 2
    want = a @ b
    got = ring.matmul(a.to(CUDA), b.to(CUDA)).cpu()
    assert torch.equal(got, want), (
        "ring.cu's comment on mma_s8 says which lane holds what: this device differs"
    )
    x = random_ring(64, 32)
    digits = cuda_ring.prepare(x.to(CUDA)).cpu()
    assert torch.equal(digits, cuda_ring.prepare(x)), "digits in emulation, and on the device"


@pytest.mark.parametrize(("m", "k", "n"), [(17, 8, 8), (32, 16, 16), (48, 4096, 64), (1024, 64, 1024)])
def test_b_int_mm_takes_what_we_pad_to(m: int, k: int, n: int) -> None:
    a, b = (torch.randint(-128, 128, shape, dtype=torch.int8) for shape in ((m, k), (n, k)))
    got = torch._int_mm(a.to(CUDA), b.to(CUDA).t()).cpu()
    assert torch.equal(got.to(torch.int64), a.to(torch.int64) @ b.to(torch.int64).t())


def test_b_int_mm_refuses_what_we_never_pass() -> None:
    for m, k, n in ((16, 16, 16), (32, 12, 16), (32, 16, 12)):
        a, b = (torch.ones(shape, dtype=torch.int8, device=CUDA) for shape in ((m, k), (n, k)))
        with pytest.raises(RuntimeError):
            torch._int_mm(a, b.t())
    assert planes.LEAST_ROWS > 16 and planes.ALIGNMENT % 8 == 0


@pytest.mark.parametrize("unit", sources.UNITS)
def test_c_cupy_compiles_the_sources(unit: str) -> None:
    from mpc_ray.kernels.cuda import device as loader

    for name in sources.parse(unit, sources.text(unit)):
        assert loader._function(unit, name, 0) is not None


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
@pytest.mark.parametrize("size", [1, 40, 3000])
def test_d_bodies_give_the_references_bits(operation: Operation, size: int) -> None:
    for seed in range(6):
        arguments = operation.draw(Draw(torch.Generator().manual_seed(seed), size))
        want = tensors(operation.reference(*arguments))
        got = tensors(operation.body(*moved(arguments, CUDA)))
        assert all(torch.equal(x.cpu(), y) and x.dtype == y.dtype for x, y in zip(got, want, strict=True))


@pytest.mark.parametrize(("m", "k", "n"), [(128, 768, 768), (128, 768, 3072), (1, 32736, 1), (33, 100, 13)])
def test_e_products(m: int, k: int, n: int) -> None:
    a, b = random_ring(m, k), random_ring(k, n)
    want, on_device = a @ b, (a.to(CUDA), b.to(CUDA))
    assert torch.equal(ring.matmul_packed(on_device[0], ring.pack(on_device[1])).cpu(), want)
    assert torch.equal(ring.matmul(*on_device).cpu(), want)
    assert torch.equal(cuda_ring.matmul_plain(*on_device).cpu(), want)
    for form in ("digits", "residues"):
        if k <= planes.longest(form):
            out = torch.empty((m, n), dtype=torch.int64, device=CUDA)
            planes.matmul(*on_device, form, out)
            assert torch.equal(out.cpu(), want), form


def test_e_large_products_agree() -> None:
    a, b = random_ring(2048, 2048).to(CUDA), random_ring(2048, 2048).to(CUDA)
    plain = cuda_ring.matmul_plain(a, b)
    assert torch.equal(ring.matmul(a, b), plain)
    assert torch.equal(ring.matmul_packed(a, ring.pack(b)), plain)


def test_f_launches_follow_torchs_stream() -> None:
    """Kernels queue on the current stream: no other order between them and torch's own operations."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        x = random_ring(1 << 20).to(CUDA)
        y = torch.zeros_like(x)
        for _ in range(20):
            launch("add_with", -(-len(x) // 256), 256, x, y, 1, y, len(x))
            y -= x
    stream.synchronize()
    assert torch.equal(y, torch.full_like(y, 20))
    assert device.on_cuda("test", x)


@pytest.mark.parametrize("prf", ["chacha20", "aes128ctr"])
def test_g_an_encoder_over_processes(prf: str) -> None:
    """Three parties on this device, processes launcher, TLS: the same error bound as on the CPU."""
    from mpc_ray.bench.encoder import measure
    from mpc_ray.bench.shapes import SHAPES
    from mpc_ray.config import load

    config = load(
        environ={}, launcher="processes", device="cuda", prf=prf, gpu_memory_fraction=0.3, timeout_s=120.0
    )
    found = measure(SHAPES["bert-tiny"], config=config, seq=16, runs=1)
    assert found["mean_abs_error"] < 5e-3


def test_h_out_of_memory_is_an_error_with_a_size() -> None:
    from mpc_ray.device_memory import DeviceMemory
    from mpc_ray.errors import DeviceError

    memory = DeviceMemory(CUDA, 0.05)
    try:
        with (
            pytest.raises(DeviceError, match=r"out of memory for a job: .* asked.*(at most|raise)"),
            memory.guarded("a job", texts=8, length=16),
        ):
            torch.empty(1 << 45, dtype=torch.uint8, device=CUDA)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, CUDA)
