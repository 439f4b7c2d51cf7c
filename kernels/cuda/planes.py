"""Large products over Z_2^64 as whole int8 matrix products of torch (cuBLAS): by digits, or by residues."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod

import torch

from .launch import blocks, launch

Tensor = torch.Tensor

MODULI = (256, 255, 253, 251, 247, 241, 239, 233, 229, 227, 223, 217, 211, 199, 197, 193, 191, 181)
RUN = 16
THREADS = 256
LEAST_ROWS = 32  # torch._int_mm on CUDA wants more than 16 rows
ALIGNMENT = 16  # of K and N; it asks for multiples of 8, and cuBLAS is faster on 16


def longest(form: str) -> int:
    """The largest K of one product: digits' low sums stay in int32, residues' sum below half the moduli's product."""
    if form == "digits":
        return (1 << 15) - ALIGNMENT
    return (prod(MODULI) // 2 - (prod(MODULI) >> 40)) >> 126


@dataclass(frozen=True)
class _Tables:
    table: Tensor
    inverse: Tensor
    weight: Tensor


@cache
def _tables(place: torch.device) -> _Tables:
    """What ``planes.cu`` documents, on a device."""
    whole = prod(MODULI)
    rows = [[m, -(-(1 << 32) // m), *((1 << s) % m for s in (16, 32, 48)), -(1 << 63) % m] for m in MODULI]
    weight = [whole // m for m in MODULI]
    inverse = [pow(w, -1, m) for w, m in zip(weight, MODULI, strict=True)]
    wrapped = [(w + (1 << 63)) % (1 << 64) - (1 << 63) for w in (*weight, whole)]
    return _Tables(
        torch.tensor(rows, dtype=torch.int32, device=place),
        torch.tensor(inverse, dtype=torch.int32, device=place),
        torch.tensor(wrapped, dtype=torch.int64, device=place),
    )


def split(x: Tensor, form: str, turned: bool = False) -> Tensor:
    """x int64(rows, K), any strides -> its digits int8(rows, 8, K') or residues int8(18, rows, K').

    K' is K rounded up to 16, rows beyond K are zero. ``turned``: the highest digit first, for a right-hand side.
    """
    rows, inner = x.shape
    deep = blocks(inner, ALIGNMENT) * ALIGNMENT
    count = blocks(rows * deep // RUN, THREADS)
    shape = (rows, 8, deep) if form == "digits" else (len(MODULI), rows, deep)
    out = torch.empty(shape, dtype=torch.int8, device=x.device)
    if form == "digits":
        launch("split_digits", count, THREADS, x, *x.stride(), rows, inner, deep, int(turned), out)
    else:
        launch(
            "split_residues", count, THREADS, x, *x.stride(), rows, inner, deep, _tables(x.device).table, out
        )
    return out


def matmul(a: Tensor, b: Tensor, form: str, out: Tensor, add: bool = False) -> None:
    """out int64(M, N) contiguous = a(M, K) @ b(K, N), any strides; ``form`` is "digits" or "residues".

    K is at most ``longest(form)``. Holds 8 or 18 bytes an element of both sides, and 32 or 72 an element of the result.
    """
    rows, columns = len(a), b.shape[1]
    left = split(_padded(a, LEAST_ROWS), form)
    right = split(_padded(b.t(), ALIGNMENT), form, turned=True)
    size = (
        len(left) if form == "digits" else left.shape[1],
        len(right) if form == "digits" else right.shape[1],
    )
    if form == "digits":
        deep = left.shape[2]
        flat, turned = left.flatten(1), right.flatten(1)
        sums = torch.stack(
            [torch._int_mm(flat[:, : (w + 1) * deep], turned[:, (7 - w) * deep :].t()) for w in range(8)]
        )
    else:
        sums = torch.stack([torch._int_mm(x, y.t()) for x, y in zip(left, right, strict=True)])
    whole = size == (rows, columns)
    into = out if whole else torch.empty(size, dtype=torch.int64, device=a.device)
    if add and not whole:
        into[:rows, :columns] = out
    _join(sums, form, into, add)
    if not whole:
        out.copy_(into[:rows, :columns])


def _join(sums: Tensor, form: str, out: Tensor, add: bool) -> None:
    n, grid = out.numel(), blocks(out.numel(), THREADS)
    if form == "digits":
        launch("join_digits", grid, THREADS, sums, n, int(add), out)
    else:
        tables = _tables(out.device)
        launch(
            "join_residues",
            grid,
            THREADS,
            sums,
            n,
            tables.table,
            tables.inverse,
            tables.weight,
            int(add),
            out,
        )


def _padded(x: Tensor, multiple: int) -> Tensor:
    """x with rows of zeros up to a multiple."""
    missing = -len(x) % multiple
    return torch.cat([x, x.new_zeros(missing, x.shape[1])]) if missing else x
