"""The emulated device itself: it computes what CUDA would, and refuses or reveals what CUDA would not forgive."""

from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from mpc_ray.errors import DeviceError
from mpc_ray.kernels.cuda import emulated, sources
from mpc_ray.kernels.cuda.emulated import KernelFault
from mpc_ray.kernels.cuda.launch import launch

SOURCE = """
#include "mpc.cuh"
extern "C" __global__ void neighbours(const u64* x, u64* out, int barrier) {
    SHARED_MEMORY(memory);
    u64* seen = (u64*)memory;
    seen[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncthreads();
    out[threadIdx.x] = seen[threadIdx.x ^ 1];
}
extern "C" __global__ void half_a_barrier() {
    if (threadIdx.x < 40) __syncthreads();
}
extern "C" __global__ void two_barriers() {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
}
extern "C" __global__ void half_a_warp(u64* out) {
    if (threadIdx.x & 1) out[threadIdx.x] = __shfl_sync(0xffffffffu, 1ull, 0);
}
extern "C" __global__ void part_of_a_warp(u64* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1ull, 0); }
extern "C" __global__ void shuffles(u64* out) {
    u64 mine = threadIdx.x;
    out[threadIdx.x] = 1000 * __shfl_sync(0xffffffffu, mine, 5) + __shfl_xor_sync(0xffffffffu, mine, 3);
}
extern "C" __global__ void copies(const u64* x, u64* out, int wait) {
    SHARED_MEMORY(memory);
    u64* seen = (u64*)memory;
    copy_async16(seen + 2 * threadIdx.x, x + 2 * threadIdx.x);
    copy_commit();
    if (wait) copy_wait<0>();
    out[2 * threadIdx.x] = seen[2 * threadIdx.x];
    if (!wait) copy_wait<0>();
}
extern "C" __global__ void forgotten_copy(const u64* x) {
    SHARED_MEMORY(memory);
    copy_async16(memory, x);
    copy_commit();
}
extern "C" __global__ void crooked_copy(const u64* x) {
    SHARED_MEMORY(memory);
    copy_async16(memory + 8, x);
}
extern "C" __global__ void where_am_i(u64* out) {
    u64 block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    u64 thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
extern "C" __global__ void last_one_wins(u64* out) { out[0] = threadIdx.x + 1000 * blockIdx.x; }
extern "C" __global__ void fragments(const int* a, const int* b, int* c) {
    int lane = threadIdx.x;
    u32 left[4] = {(u32)a[4 * lane], (u32)a[4 * lane + 1], (u32)a[4 * lane + 2], (u32)a[4 * lane + 3]};
    int sum[4] = {c[4 * lane], c[4 * lane + 1], c[4 * lane + 2], c[4 * lane + 3]};
    mma_s8(sum, left, (u32)b[2 * lane], (u32)b[2 * lane + 1]);
    for (int i = 0; i < 4; i++) c[4 * lane + i] = sum[i];
}
"""


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    digest = hashlib.sha256(SOURCE.encode()).hexdigest() + "".join(map(sources.digest, sources.UNITS[:1]))
    return ctypes.CDLL(str(emulated.build_source("emulator-test", SOURCE, digest)))


def run(
    library: ctypes.CDLL, name: str, *arguments: np.ndarray | int, grid: tuple[int, int, int] = (1, 1, 1),
    block: tuple[int, int, int] = (64, 1, 1), shared: int = 0, seed: int = 0,
) -> None:  # fmt: skip
    values = [
        ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int(a) for a in arguments
    ]
    emulated.run_in(library, name, grid, block, shared, values, seed)


def test_a_missing_barrier_shows_in_some_order(library: ctypes.CDLL) -> None:
    x = np.arange(64, dtype=np.uint64)
    want = x ^ np.uint64(1)
    right = []
    for seed in range(6):
        out = np.zeros(64, np.uint64)
        run(library, "neighbours", x, out, 1, shared=512, seed=seed)
        assert np.array_equal(out, want)
        run(library, "neighbours", x, out, 0, shared=512, seed=seed)
        right.append(np.array_equal(out, want))
    assert not any(right)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("half_a_barrier", 0, "a barrier that some threads never reach"),
        ("two_barriers", 0, "different barriers"),
        ("half_a_warp", 1, "not all threads of a warp"),
        ("part_of_a_warp", 1, "a shuffle of part of a warp"),
        ("forgotten_copy", 1, "did not wait for"),
        ("crooked_copy", 1, "aligned to 16"),
    ],
)
def test_what_cuda_leaves_undefined_is_refused(
    library: ctypes.CDLL, name: str, arguments: int, message: str
) -> None:
    memory = np.zeros(64, np.uint64)
    for seed in (0, 9):
        with pytest.raises(KernelFault, match=f"{name}: .*{message}"):
            run(library, name, *[memory] * arguments, shared=64, seed=seed)
    out = np.zeros(64, np.uint64)
    run(library, "shuffles", out)  # and the device is as good as new
    assert out.tolist() == [1000 * (i // 32 * 32 + 5) + (i ^ 3) for i in range(64)]


def test_an_asynchronous_copy_is_there_after_the_wait_and_not_before(library: ctypes.CDLL) -> None:
    x = np.arange(1, 129, dtype=np.uint64)
    for wait in (0, 1):
        out = np.zeros(128, np.uint64)
        run(library, "copies", x, out, wait, shared=1024)
        assert np.array_equal(out[::2], x[::2]) == bool(wait)


def test_grids_and_blocks_of_three_dimensions(library: ctypes.CDLL) -> None:
    for seed in (0, 4):
        out = np.zeros(2 * 3 * 4 * 30, np.uint64)
        run(library, "where_am_i", out, grid=(2, 3, 4), block=(5, 3, 2), seed=seed)
        assert out.tolist() == [1000 * b + t for b in range(24) for t in range(30)]


def test_blocks_and_threads_run_in_any_order(library: ctypes.CDLL) -> None:
    out, last = np.zeros(1, np.uint64), set()
    for seed in range(8):
        run(library, "last_one_wins", out, grid=(5, 1, 1), seed=seed)
        last.add(int(out[0]))
    assert len({value // 1000 for value in last}) > 1
    assert len({value % 1000 for value in last}) > 1


@pytest.mark.parametrize(
    ("grid", "block", "shared"),
    [((1, 1, 1), (1025, 1, 1), 0), ((1, 65536, 1), (1, 1, 1), 0), ((1, 1, 1), (32, 1, 1), 228 * 1024)],
)
def test_sizes_beyond_the_devices_are_refused(
    library: ctypes.CDLL, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int
) -> None:
    with pytest.raises(KernelFault, match="beyond the device's"):
        run(library, "half_a_barrier", grid=grid, block=block, shared=shared)


def test_fragments_are_those_of_the_manual(library: ctypes.CDLL) -> None:
    """A (16, 32) and B (32, 8) by the layout that the PTX manual gives for m16n8k32, sums wrapping in int32."""
    source = np.random.default_rng(3)
    a, b = (source.integers(-128, 128, shape, np.int8) for shape in ((16, 32), (8, 32)))
    a[0], b[0] = -128, -128
    c = source.integers(-(2**31), 2**31, (16, 8), np.int64)
    c[0, 0] = 2**31 - 1
    left, right, sums = (np.zeros((32, count), np.int32) for count in (4, 2, 4))
    for lane in range(32):
        g, t = lane // 4, lane % 4
        for i in range(4):
            row, k = g + 8 * (i % 2), 16 * (i // 2) + 4 * t
            left[lane, i] = a[row, k : k + 4].view(np.int32)[0]
            sums[lane, i] = c[g + 8 * (i // 2), 2 * t + i % 2]
        for i in range(2):
            right[lane, i] = b[g, 16 * i + 4 * t : 16 * i + 4 * t + 4].view(np.int32)[0]
    run(library, "fragments", left, right, sums, block=(32, 1, 1))
    want = (c + a.astype(np.int64) @ b.astype(np.int64).T + 2**31) % 2**32 - 2**31
    for lane in range(32):
        for i in range(4):
            assert sums[lane, i] == want[lane // 4 + 8 * (i // 2), 2 * (lane % 4) + i % 2]


# -- building ------------------------------------------------------------------------------------------


def test_a_build_is_kept_by_content(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    small = '#include "mpc.cuh"\nextern "C" __global__ void nothing() {}\n'
    first = emulated.build_source("small", small, "a")
    times = first.stat().st_mtime_ns
    assert emulated.build_source("small", small, "a") == first
    assert first.stat().st_mtime_ns == times
    assert emulated.build_source("small", small, "b") != first
    assert oct(first.parent.stat().st_mode)[-3:] == "700"


def test_what_does_not_build_is_said_with_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bad = '#include "mpc.cuh"\nextern "C" __global__ void bad() { missing(); }\n'
    with pytest.raises(DeviceError, match=r"bad\.cu:2:.*missing"):
        emulated.build_source("bad", bad, "a")
    assert not list((tmp_path / "mpc-ray" / "emulated").iterdir())


def test_without_a_compiler_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match=r"no C\+\+ compiler .*install g\+\+"):
        emulated.build("elementwise")


# -- launches ------------------------------------------------------------------------------------------


def test_launches_check_their_arguments() -> None:
    x = torch.ones(4, dtype=torch.int64)
    with pytest.raises(TypeError, match="takes 5 arguments, not 4"):
        launch("add_with", 1, 32, x, x, 0, x)
    with pytest.raises(TypeError, match=r"b is torch\.int32, not torch\.int64"):
        launch("add_with", 1, 32, x, x.to(torch.int32), 0, x, 4)
    with pytest.raises(TypeError, match="constant does not fit u64"):
        launch("add_with", 1, 32, x, x, 1 << 64, x, 4)
    with pytest.raises(TypeError, match="n is no number"):
        launch("add_with", 1, 32, x, x, 0, x, None)
    with pytest.raises(DeviceError, match="add_with: tensors on cpu and meta"):
        launch("add_with", 1, 32, x, x.to("meta"), 0, x, 4)
    with pytest.raises(DeviceError, match="no body for device meta"):
        launch("add_with", 1, 32, *[x.to("meta")] * 2, 0, x.to("meta"), 4)
    with pytest.raises(ValueError, match="which no launch can pass"):
        sources.parse("x", 'extern "C" __global__ void f(float (*x)[3]) {}')
