"""Bodies of ``kernels.histogram`` and ``kernels.subset``; arguments are checked there."""

from __future__ import annotations

import torch

from .launch import blocks, launch

Tensor = torch.Tensor
THREADS = 256
SLICES = 4


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def thermometer_counts(e: Tensor, c: Tensor, keep: Tensor | None) -> Tensor:
    """keep uint8[n] or uint8[R, n], or None; all contiguous; n and nb at least 1."""
    rows, n, nb = e.shape
    out = torch.empty((rows, nb), dtype=e.dtype, device=e.device)
    width = min(blocks(nb, 32) * 32, THREADS)
    step = n if keep is not None and keep.ndim == 2 else 0
    launch(
        f"thermometer_counts_{_kind(e)}",
        rows,
        (width, SLICES, 1),
        *(e, c, keep, step, n, nb, out),
        shared=4 * width * SLICES,
    )
    return out


def suffix_sum(counts: Tensor) -> Tensor:
    """counts (R, nb) contiguous."""
    rows, nb = counts.shape
    out = torch.empty_like(counts)
    launch(f"suffix_sum_{_kind(counts)}", blocks(rows * 32, THREADS), THREADS, counts, rows, nb, out)
    return out


def deal_thermometer(e0: Tensor, position: Tensor) -> Tensor:
    """e0 (R, nb) contiguous, position (R,)."""
    rows, nb = e0.shape
    out = torch.empty_like(e0)
    launch(f"deal_thermometer_{_kind(e0)}", blocks(rows * nb, THREADS), THREADS, e0, position, rows, nb, out)
    return out


def pick_bits(e: Tensor, c: Tensor) -> Tensor:
    rows, size = e.shape
    out = torch.empty(rows, dtype=torch.uint8, device=e.device)
    launch("pick_bits", blocks(rows, THREADS), THREADS, e, c, rows, size, out)
    return out


def rotate_rows(x: Tensor, by: Tensor) -> Tensor:
    rows, nb = x.shape
    out = torch.empty_like(x)
    launch("rotate_rows", blocks(rows * nb, THREADS), THREADS, x, by, rows, nb, out)
    return out


def subset_sums(values: Tensor, words: Tensor, count: int) -> Tensor:
    out = torch.zeros(count, dtype=torch.int64, device=values.device)
    n = len(values)
    launch(
        "subset_sums",
        min(blocks(n, 4 * THREADS), 512),
        THREADS,
        *(values, words, n, count, out),
        shared=8 * THREADS,
    )
    return out
