"""Bodies of ``kernels.lookup``; arguments are checked there."""

from __future__ import annotations

import torch

from .launch import blocks, launch

Tensor = torch.Tensor
THREADS = 256
NARROW = 10  # the largest domain, as its logarithm, whose prepared sums (32 KB a table) lie in shared memory
MOST_BLOCKS = 1024  # each loads the tables once and takes many rows


def deal_one_hot(e1: Tensor, position: Tensor) -> Tensor:
    """Flip bit ``position`` of every row of e1 (a copy of e0) in place; the signs, int64."""
    rows, size = e1.shape
    sign = torch.empty(rows, dtype=torch.int64, device=e1.device)
    launch("flip_bit", blocks(rows, THREADS), THREADS, e1, position, rows, size, sign)
    return sign


def prepare(tables: Tensor, n: int) -> Tensor:
    """int64[K, 2^n] -> prepared sums int64[K, 2^n / 4, 16] up to n = 10; above, the tables themselves."""
    if n > NARROW:
        return tables
    count, size = tables.shape
    sums = torch.empty((count, size // 4, 16), dtype=torch.int64, device=tables.device)
    launch("prepare_sums", blocks(count * size // 4, THREADS), THREADS, tables, count, size, sums)
    return sums


def lookup_sums(bits: Tensor, c: Tensor, prepared: Tensor, n: int) -> Tensor:
    """bits uint8[N, 2^n / 8] from an address divisible by 8, c int64[N], ``prepare``'s K tables -> int64[N, K]."""
    rows, count = len(bits), len(prepared)
    out = torch.empty((rows, count), dtype=torch.int64, device=bits.device)
    if n <= NARROW:
        launch(
            "lookup_sums",
            min(blocks(rows, THREADS), MOST_BLOCKS),
            THREADS,
            *(bits, c, prepared, count, n, out, rows),
            shared=32 << n,
        )
    else:
        launch("lookup_wide", rows, THREADS, bits, c, prepared, count, n, out, shared=8 * THREADS // 32)
    return out
