"""Products and shifts over Z_2^64 (int64 tensors, two's complement; everything wraps).

The product has three bodies with the same bits: torch's own, and the two register tiles of ``ring_tile``. The fastest
is found once a process by running each on one small product; ``body()`` says which. On one core of an Intel Xeon
(Emerald Rapids, 2.8 GHz) 128 x 768 x 768 runs at 16.5 G multiply-adds a second against torch's 8.3.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from time import perf_counter

import numpy as np
import torch

from mpc_ray.errors import DeviceError, InputError

from . import memory, ring_pack, ring_tile
from .checks import expect, in_range, on_cpu, wrap
from .compiled import has
from .cuda import planes
from .cuda import ring as cuda
from .device import on_cuda

Tensor = torch.Tensor
BODIES = {"mullq": ring_pack.MULLQ, "ifma": ring_pack.IFMA}
CUDA = "cuda"  # the form of digits for a device's tensor cores
# Multiply-adds from which a product of two tensors on a device is cut into whole int8 products (``cuda.planes``);
# below, one launch does everything. Predicted from the chip's ceilings: `make bench-gpu` prints the forms side by side.
LARGE = 1 << 33


@dataclass(frozen=True)
class PackedMatrix:
    """A right-hand side B (inner, columns) laid out once for many products.

    ``data`` holds panels for body ``form``, B itself for "torch", digits for "cuda": 8 bytes an element, or 4 in panels
    of int32.
    """

    inner: int
    columns: int
    form: str
    data: Tensor

    @property
    def nbytes(self) -> int:
        """Memory that the packed matrix holds."""
        return self.data.numel() * self.data.element_size()


def matmul_reference(a: Tensor, b: Tensor) -> Tensor:
    """(.., M, K) @ (.., K, N) mod 2^64, by torch."""
    return torch.matmul(a, b)


def bodies() -> tuple[str, ...]:
    """The bodies that this processor can run, by name."""
    names = ["torch"]
    if has("avx512f", "avx512dq"):
        names.append("mullq")
        if has("avx512ifma", "avx512vnni"):
            names.append("ifma")
    return tuple(names)


@cache
def body() -> str:
    """The body that products use: "torch", "mullq" (AVX-512 DQ) or "ifma" (AVX-512 IFMA), the fastest when tried.

    The first call compiles (or loads) the bodies and takes about 5 ms beyond that.
    """
    a, b = torch.ones((64, 256), dtype=torch.int64), torch.ones((256, 128), dtype=torch.int64)
    best = {}
    for name in bodies():
        packed = pack_for(b, name)
        times = []
        for _ in range(5):
            start = perf_counter()
            matmul_packed(a, packed)
            times.append(perf_counter() - start)
        best[name] = min(times)
    return min(best, key=lambda name: best[name])


def form_on(place: torch.device) -> str:
    """The form in which matrices are packed on a device: "cuda", or the processor's ``body()``."""
    return CUDA if on_cuda("ring.pack", torch.empty(0, device=place)) else body()


def pack(b: Tensor) -> PackedMatrix:
    """Lay out B int64(K, N) once, for ``matmul_packed``. A transposed view is packed as fast as a contiguous one."""
    return pack_for(b, form_on(b.device))


def pack_for(b: Tensor, form: str) -> PackedMatrix:
    """As ``pack``, for a body by name (one of ``bodies()``, or "cuda" on a device)."""
    expect("ring.pack", "b", b, torch.int64, (None, None))
    return pack_rows(len(b), b.shape[1], lambda rows: b[rows], form)


def pack_rows(
    inner: int,
    columns: int,
    rows: Callable[[slice], Tensor],
    form: str | None = None,
    kind: torch.dtype = torch.int64,
) -> PackedMatrix:
    """As ``pack``, of a matrix (inner, columns) that is never whole in memory: ``rows(s)`` gives the rows of slice s.

    It is asked once for every ``ring_pack.DEPTH`` rows, in order. ``kind``: torch.int32 for a matrix of small integers,
    which panels hold in half the memory.
    """
    form = body() if form is None else form
    if kind == torch.int32 and form in BODIES:
        return PackedMatrix(inner, columns, form, _narrow_panels(inner, columns, rows))
    if kind == torch.int32:
        return pack_rows(inner, columns, lambda some: rows(some).to(torch.int64), form)
    if form == CUDA:
        return PackedMatrix(inner, columns, form, _digits(inner, columns, rows))
    whole = form == "torch"
    data = torch.from_numpy(memory.empty((inner, columns), np.int64)) if whole else _panels(inner, columns)
    for start in range(0, inner, ring_pack.DEPTH):
        some = slice(start, min(start + ring_pack.DEPTH, inner))
        block = rows(some)
        on_cpu("ring.pack", block)
        expect("ring.pack", "rows", block, torch.int64, (some.stop - some.start, columns))
        if whole:
            data[some] = block
        else:
            _pack_into(block, data[start * _padded(columns) :])
    return PackedMatrix(inner, columns, form, data)


def _narrow_panels(inner: int, columns: int, rows: Callable[[slice], Tensor]) -> Tensor:
    size = (inner + 7) // 8 * 8 * _padded(columns)
    panels = memory.empty((size + 16,), np.int32)
    panels = panels[-panels.ctypes.data % 64 // 4 :][:size]
    for start in range(0, inner, ring_pack.DEPTH):
        some = slice(start, min(start + ring_pack.DEPTH, inner))
        block = rows(some)
        on_cpu("ring.pack", block)
        expect("ring.pack", "rows", block, torch.int32, (some.stop - some.start, columns))
        ring_pack.pack_narrow(block.contiguous().numpy(), panels[start * _padded(columns) :])
    return torch.from_numpy(panels)


def _digits(inner: int, columns: int, rows: Callable[[slice], Tensor]) -> Tensor:
    """Digits of a matrix given in slices of rows: each slice's steps of k are one stretch of every group of columns."""
    data: Tensor | None = None
    for start in range(0, max(inner, 1), ring_pack.DEPTH):
        stop = min(start + ring_pack.DEPTH, inner)
        block = rows(slice(start, stop))
        expect("ring.pack", "rows", block, torch.int64, (stop - start, columns))
        if not on_cuda("ring.pack", block):
            raise DeviceError(
                'ring.pack: form "cuda" of a matrix in CPU memory', remedy="move it to a CUDA device"
            )
        part = cuda.prepare(block)
        if start == 0 and stop == inner:
            return part
        if data is None:
            data = torch.empty(cuda.prepared_shape(inner, columns), dtype=torch.uint8, device=block.device)
        data[:, start // cuda.STEP : start // cuda.STEP + part.shape[1]] = part
    assert data is not None
    return data


def matmul_packed(a: Tensor, packed: PackedMatrix, out: Tensor | None = None) -> Tensor:
    """a int64(.., M, K) @ packed (K, N) -> int64(.., M, N) mod 2^64, into ``out`` if given (of that shape)."""
    if on_cuda("ring.matmul_packed", a, packed.data) != (packed.form == CUDA):
        raise DeviceError(
            f"kernel ring.matmul_packed: a on {a.device} beside a matrix packed for {packed.form}",
            remedy="pack it again where the product is computed",
        )
    if a.dtype != torch.int64 or a.ndim < 2 or a.shape[-1] != packed.inner:
        raise InputError(
            f"kernel ring.matmul_packed: a is {a.dtype}{list(a.shape)}"
            f" beside a packed ({packed.inner}, {packed.columns})",
            remedy="pass int64 with as many columns as the packed matrix has rows",
        )
    shape = (*a.shape[:-1], packed.columns)
    if out is not None:
        on_cuda("ring.matmul_packed", a, out)
        expect("ring.matmul_packed", "out", out, torch.int64, shape)
    direct = out is not None and out.is_contiguous()
    result = out if out is not None and direct else torch.empty(shape, dtype=torch.int64, device=a.device)
    if 0 in a.shape or packed.columns == 0:
        result.zero_()
    elif packed.form == "torch":
        torch.matmul(a, packed.data, out=result)
    elif packed.form == CUDA:
        cuda.matmul_prepared(_rows(a), packed.data, packed.columns, result.reshape(-1, packed.columns))
    else:
        rows = a.reshape(-1, packed.inner)
        _product(
            rows if rows.stride(1) == 1 else rows.contiguous(),
            packed.columns,
            packed.data,
            result,
            packed.form,
        )
    return result if out is None or direct else out.copy_(result)


def matmul_plus(a: Tensor, packed: PackedMatrix, plus: Tensor) -> Tensor:
    """a @ packed + plus, for an int64 ``plus`` that broadcasts to the product: its bias, or what masks it.

    On a device the product's blocks add to a copy of ``plus``: the sum costs no pass of its own.
    """
    if packed.form != CUDA or 0 in a.shape:
        return matmul_packed(a, packed).add_(plus)
    if a.dtype != torch.int64 or a.shape[-1] != packed.inner or plus.dtype != torch.int64:
        raise InputError(
            f"kernel ring.matmul_plus: {a.dtype}{list(a.shape)} and {plus.dtype}"
            f" beside a packed ({packed.inner}, {packed.columns})",
            remedy="pass int64, with as many columns as the packed matrix has rows",
        )
    on_cuda("ring.matmul_plus", a, packed.data, plus)
    out = plus.expand(*a.shape[:-1], packed.columns).contiguous()
    out = out.clone() if out.data_ptr() == plus.data_ptr() else out
    if packed.columns:
        cuda.matmul_prepared(_rows(a), packed.data, packed.columns, out.view(-1, packed.columns), add=True)
    return out


def _rows(a: Tensor) -> Tensor:
    """a as one matrix, each row contiguous."""
    rows = a.reshape(-1, a.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a int64(.., M, K) @ b int64(.., K, N) -> int64(.., M, N) mod 2^64; leading dimensions broadcast.

    B is packed anew; for a matrix used many times take ``pack`` and ``matmul_packed``. Transposed views cost nothing.
    """
    on_device = on_cuda("ring.matmul", a, b)
    if (
        a.dtype != torch.int64
        or b.dtype != torch.int64
        or min(a.ndim, b.ndim) < 2
        or a.shape[-1] != b.shape[-2]
    ):
        raise InputError(
            f"kernel ring.matmul: {a.dtype}{list(a.shape)} @ {b.dtype}{list(b.shape)}",
            remedy="pass int64 matrices whose inner dimensions agree",
        )
    if on_device:
        return _on_device(a, b)
    form = body()
    if form == "torch":
        return matmul_reference(a, b)
    if b.ndim == 2:
        return matmul_packed(a, pack_for(b, form))
    return _batched(a, b, form)


def _on_device(a: Tensor, b: Tensor) -> Tensor:
    """``matmul`` by CUDA: one launch for all products, or whole int8 products for a large one."""
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    if b.ndim == 2 and a.ndim > 2:
        return _on_device(a.reshape(-1, inner), b).reshape(*batch, rows, columns)
    result = torch.zeros((*batch, rows, columns), dtype=torch.int64, device=a.device)
    if 0 in (*batch, rows, inner, columns):
        return result
    large = not batch and rows * inner * columns >= LARGE
    form = "residues" if large and inner <= planes.longest("residues") else "digits"
    most = planes.longest(form) if large else cuda.LONGEST * cuda.STEP
    for start in range(0, inner, most):
        left, right = a[..., start : start + most], b[..., start : start + most, :]
        if large:
            planes.matmul(left, right, form, result, add=start > 0)
        elif start == 0:
            _batched_on_device(left, right, result)
        else:
            rest = torch.empty_like(result)
            _batched_on_device(left, right, rest)
            result += rest
    return result


def _batched_on_device(a: Tensor, b: Tensor, out: Tensor) -> None:
    batch = out.shape[:-2]
    a = a if a.stride(-1) == 1 else a.contiguous()
    b = b if 1 in b.stride()[-2:] else b.contiguous()
    cuda.matmul_batched(a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:]), out)


def _batched(a: Tensor, b: Tensor, form: str) -> Tensor:
    (rows, inner), columns = a.shape[-2:], b.shape[-1]
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    result = torch.zeros((*batch, rows, columns), dtype=torch.int64)
    if 0 in (*batch, rows, inner, columns):
        return result
    a, b = a.expand(*batch, rows, inner), b.expand(*batch, inner, columns)
    panels = _panels(inner, columns)
    for index in itertools.product(*map(range, batch)):
        left = a[index]
        _pack_into(b[index], panels)
        _product(left if left.stride(1) == 1 else left.contiguous(), columns, panels, result[index], form)
    return result


def unpack(packed: PackedMatrix, rows: range) -> Tensor:
    """Rows of the B that ``pack`` laid out, int64 (len(rows), columns), as a copy: for what needs them now and then."""
    if packed.form == "torch":
        return packed.data[rows.start : rows.stop].clone()
    expect("ring.unpack", "packed", packed.data, torch.int64, (None,))
    panels, deep = _padded(packed.columns) // 16, (packed.inner + 7) // 8 * 8
    out = torch.empty((len(rows), packed.columns), dtype=torch.int64)
    for block in range(0, deep, ring_pack.DEPTH):
        height = min(ring_pack.DEPTH, deep - block)
        first, last = max(rows.start, block), min(rows.stop, block + height)
        if first < last:
            part = packed.data[16 * panels * block : 16 * panels * (block + height)].view(panels, height, 16)
            lines = part[:, first - block : last - block].transpose(0, 1)
            if packed.columns % 16:
                lines = lines.reshape(last - first, -1)[:, : packed.columns]
            out[first - rows.start : last - rows.start].view(lines.shape).copy_(lines)
    return out


def _panels(inner: int, columns: int) -> Tensor:
    """Uninitialised memory for packed panels, aligned to 64 bytes."""
    size = (inner + 7) // 8 * 8 * _padded(columns)
    panels: Tensor = torch.from_numpy(memory.empty((size + 8,), np.int64))
    skip = -panels.data_ptr() % 64 // 8
    return panels[skip : skip + size]


def _padded(columns: int) -> int:
    """Elements of one k in all panels."""
    return (columns + 15) // 16 * 16


def _pack_into(b: Tensor, panels: Tensor) -> None:
    if 0 in b.shape:
        return
    if 1 not in b.stride():
        b = b.contiguous()
    k, n = (8 * stride for stride in b.stride())
    ring_pack.pack_b(b.data_ptr(), k, n, b.shape[0], b.shape[1], panels.data_ptr())


def _product(a: Tensor, columns: int, panels: Tensor, out: Tensor, form: str) -> None:
    rows, inner = a.shape
    narrow = panels.dtype == torch.int32
    ring_tile.product(
        BODIES[form],
        narrow,
        a.data_ptr(),
        8 * a.stride(0),
        rows,
        inner,
        columns,
        panels.data_ptr(),
        out.data_ptr(),
    )


def shift_right_logical(x: Tensor, s: int) -> Tensor:
    """x >> s with zeros from the left, 0 <= s <= 63; same shape as x."""
    in_range("ring.shift_right_logical", "s", s, 0, 63)
    return x >> s & wrap((1 << (64 - s)) - 1)
