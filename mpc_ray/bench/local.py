"""What one core computes, without any party: the kernels' own speeds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch

from mpc_ray.correlation.prf import expand
from mpc_ray.kernels import dpf, lookup, ring

REPEATS = 5


def kernel_speeds(repeats: int = REPEATS) -> dict[str, float]:
    """Best of ``repeats``, in one thread, with warm caches. About 2 s.

    ``matmul_gmacs``: products mod 2^64 of 128 x 768 x 768 in 10^9 multiply-adds a second, right-hand side laid out
    beforehand; ``matmul_torch_gmacs``: torch's own. ``lookup_ns``: nanoseconds an element and table, 4 tables of 256.
    ``dpf_ns``: nanoseconds a leaf of 2^16. ``prf_gbytes``: AES-128-CTR, 10^9 bytes a second.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {**_products(repeats), **_lookups(repeats), **_points(repeats), **_streams(repeats)}
    finally:
        torch.set_num_threads(threads)


def _products(repeats: int) -> dict[str, float]:
    m, k, n = 128, 768, 768
    a, b = _uniform(m, k), _uniform(k, n)
    packed, macs = ring.pack(b), m * k * n / 1e9
    return {
        "matmul_gmacs": macs / _best(lambda: ring.matmul_packed(a, packed), repeats),
        "matmul_torch_gmacs": macs / _best(lambda: torch.matmul(a, b), repeats),
    }


def _lookups(repeats: int) -> dict[str, float]:
    n, tables, count = 8, 4, 1 << 16
    prepared = lookup.prepare(_uniform(tables, 1 << n))
    bits, c = _uniform(count, (1 << n) // 64).view(torch.uint8), _uniform(count)
    return {
        "lookup_ns": _best(lambda: lookup.lookup_sums(bits, c, prepared), repeats) * 1e9 / (count * tables)
    }


def _points(repeats: int) -> dict[str, float]:
    n, count = 16, 128
    seeds = [_uniform(count, 2).view(torch.uint8) for _ in range(2)]
    keys, _ = dpf.generate(seeds[0], seeds[1], _uniform(count), n)
    return {"dpf_ns": _best(lambda: dpf.expand(seeds[0], 0, keys, n), repeats) * 1e9 / (count << n)}


def _streams(repeats: int) -> dict[str, float]:
    length, key = 1 << 24, os.urandom(32)
    return {"prf_gbytes": length / 1e9 / _best(lambda: expand(key, 0, 0, length), repeats)}


def _best(call: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):  # the first one compiles and warms up
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _uniform(*shape: int) -> torch.Tensor:
    raw = bytearray(os.urandom(8 * torch.Size(shape).numel()))
    return torch.frombuffer(raw, dtype=torch.int64).reshape(shape)
