"""Bodies of ``kernels.ring``: products over Z_2^64 through int8 tensor cores, and a plain one beside them."""

from __future__ import annotations

import itertools
from functools import cache

import torch

from .launch import blocks, launch

Tensor = torch.Tensor

TILE, STEP, THREADS = 64, 32, 256
GROUP_BYTES = 8 * 512  # the digits of 16 columns by 32 k
SHARED = 4 * TILE * STEP * 8  # two steps of both operands
LONGEST = 1023  # steps of one piece: below 2^15 elements, or the sums of low digits leave int32
START_STEPS = 2  # what a block's start and end cost beside its steps, estimated
EMULATED_PROCESSORS = 4


@cache
def _processors(index: int) -> int:
    return torch.cuda.get_device_properties(index).multi_processor_count


def processors(place: torch.device) -> int:
    """Multiprocessors of a device; a small number in emulation, so that tests cut k too."""
    if place.type != "cuda":
        return EMULATED_PROCESSORS
    return _processors(torch.cuda.current_device() if place.index is None else place.index)


def prepared_shape(inner: int, columns: int) -> tuple[int, int, int]:
    """Groups of 16 columns, steps of 32 k, bytes: 8 an element, K rounded up to 32 and N to 16."""
    return blocks(columns, 16), blocks(inner, STEP), GROUP_BYTES


def prepare(b: Tensor) -> Tensor:
    """Digits of B int64(K, N), any strides, in the order in which tensor cores read them: uint8 ``prepared_shape``."""
    inner, columns = b.shape
    out = torch.empty(prepared_shape(inner, columns), dtype=torch.uint8, device=b.device)
    groups = out.shape[0] * out.shape[1]
    launch("ring_prepare", blocks(groups * 128, 256), 256, b, b.stride(0), b.stride(1), inner, columns, out)
    return out


def piece_steps(tiles: int, steps: int, count: int) -> int:
    """Steps of k in a piece, so that ``tiles`` tiles keep ``count`` multiprocessors (one block each) busy.

    The whole waves of blocks, times what one takes.
    """
    fewest = blocks(steps, LONGEST)
    best = min(
        range(fewest, max(fewest, min(steps, 4 * blocks(count, tiles))) + 1),
        key=lambda pieces: blocks(tiles * pieces, count) * (blocks(steps, pieces) + START_STEPS),
    )
    return blocks(steps, best)


def matmul_prepared(a: Tensor, prepared: Tensor, columns: int, out: Tensor, add: bool = False) -> None:
    """out int64(M, N) = A int64(M, K) @ prepared, or with ``add`` what it holds plus that; A's rows contiguous each.

    ``out`` is contiguous. M, K and N are at least 1.
    """
    rows, inner = a.shape
    tiles, steps = blocks(rows, TILE) * blocks(columns, TILE), blocks(inner, STEP)
    piece = piece_steps(tiles, steps, processors(a.device))
    pieces = blocks(steps, piece)
    if pieces > 1 and not add:
        out.zero_()
    launch(
        "ring_product",
        (blocks(rows, TILE), blocks(columns, TILE), pieces),
        THREADS,
        *(a, a.stride(0), rows, inner, prepared, columns, piece, int(add or pieces > 1), out),
        shared=SHARED,
    )


def matmul_batched(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out int64(.., M, N) contiguous = a(.., M, K) @ b(.., K, N), of one batch shape after expanding.

    a's last dimension is contiguous, and one of b's last two. K is at most 32,736.
    """
    (rows, inner), columns, batch = a.shape[-2:], b.shape[-1], a.shape[:-2]
    straight = b.stride(-1) == 1
    offset = _offsets(batch, a.stride()[:-2], b.stride()[:-2], rows * columns, a.device)
    for first in range(0, len(offset), 65535):
        some = offset[first : first + 65535]
        launch(
            "ring_product_straight" if straight else "ring_product_turned",
            (blocks(rows, TILE), blocks(columns, TILE), len(some)),
            THREADS,
            *(a, a.stride(-2), rows, inner, b, b.stride(-2 if straight else -1), columns, some, out),
            shared=SHARED,
        )


@cache
def _offsets(
    batch: tuple[int, ...], a: tuple[int, ...], b: tuple[int, ...], size: int, place: torch.device
) -> Tensor:
    """int64[products, 3]: the first element of each product's A, B and output. Kept: shapes of a model are few."""
    rows = [
        [sum(i * s for i, s in zip(index, strides, strict=True)) for strides in (a, b)] + [size * number]
        for number, index in enumerate(itertools.product(*map(range, batch)))
    ]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).to(place)


def matmul_plain(a: Tensor, b: Tensor) -> Tensor:
    """A int64(M, K) @ B int64(K, N), both contiguous, by 64-bit multiplications: what others are measured against."""
    (rows, inner), columns = a.shape, b.shape[1]
    out = torch.empty((rows, columns), dtype=torch.int64, device=a.device)
    grid = (blocks(rows, 64), blocks(columns, 64), 1)
    launch("ring_product_plain", grid, 256, a, b, out, rows, inner, columns, shared=8 * 16 * (65 + 64))
    return out
