"""The compiled product over Z_2^64: packed panels and an 8 x 16 tile in 512-bit registers.

Two forms of the tile, same bits:

* ``MULLQ`` (AVX-512 DQ): acc += a * b with the 64-bit multiply. One instruction on AMD, three on Intel.
* ``IFMA`` (AVX-512 IFMA and VNNI): with a = a0 + 2^52 a1 and b = b0 + 2^52 b1,
  a b = lo52(a0 b0) + 2^52 (hi52(a0 b0) + a1 b0 + a0 b1) mod 2^64, where the bracket counts only mod 2^12. The first two
  terms are one 52-bit multiply-add each on the unsplit a and b; the last two are 12-bit factors, so one 16-bit dot
  product does both, for 16 columns at a time: 2.5 instructions for 8 multiply-adds, against 4 with ``MULLQ`` on Intel.

A is packed in panels of 8 rows (k by k: 8 elements, then for IFMA their 8 pairs of 12-bit parts), B in panels of 16
columns (k by k: 16 elements, then 16 pairs). K is padded to a multiple of 8, both packed sides with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types  # type: ignore[import-untyped]

from .compiled import compiled, has, intrinsic
from .vector_ir import I32, I64, V8, V16, Loop, at, const, load, named, shuffle, splat, splat_const, store, transpose8
from .vector_ir import ir as llvm_ir

MULLQ, IFMA = 0, 1
ROWS, COLUMNS = 8, 16
DEPTH = 384  # of a block: one row of B panels and the accumulating tile stream through the first-level cache
HEIGHT = 512  # of a block: its packed A (1.2 MB at most) stays in the second-level cache
V8_32 = llvm_ir.VectorType(I32, 8)


def step_a(form: int) -> int:
    """Bytes of one k of a packed panel of A."""
    return 96 if form == IFMA else 64


def step_b(form: int) -> int:
    """Bytes of one k of a packed panel of B."""
    return 192 if form == IFMA else 128


def _pairs(b: Any, values: Any, high_first: bool) -> Any:
    """The 12-bit parts of eight int64 as eight int32: (top, bottom) in the low and high half, or the other way."""
    top = b.lshr(values, splat_const(V8, 52))
    bottom = b.and_(values, splat_const(V8, 0xFFF))
    low, high = (top, bottom) if high_first else (bottom, top)
    return b.trunc(b.or_(low, b.shl(high, splat_const(V8, 16))), V8_32)


def _store_tile(b: Any, rows: list[list[Any]], c: Any, ldc: Any, add: Any) -> None:
    """C rows = (C or 0) + rows; two vectors a row, ``ldc`` in bytes."""
    adding, setting, done = (b.function.append_basic_block(name) for name in ("adding", "setting", "done"))
    b.cbranch(b.icmp_signed("!=", add, const(0)), adding, setting)
    for block in (adding, setting):
        b.position_at_end(block)
        for i, row in enumerate(rows):
            line = b.add(c, b.mul(ldc, const(i)))
            for j, value in enumerate(row):
                total = b.add(value, load(b, V8, line, 64 * j, 8)) if block is adding else value
                store(b, total, line, 64 * j, 8)
        b.branch(done)
    b.position_at_end(done)


@intrinsic
def _tile_mullq(typing: Any, k: Any, a: Any, b: Any, c: Any, ldc: Any, add: Any) -> Any:
    """C[8, 16] = (C if add) + A panel . B panel over k steps."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        count, pa, pb, pc, ldc, add = args
        loop = Loop(b, count, [pa, pb] + [splat_const(V8, 0)] * 16)
        pa, pb, *acc = loop.carried
        right = [load(b, V8, pb, 64 * j, 64) for j in (0, 1)]
        total = []
        for i in range(8):
            left = splat(b, load(b, I64, pa, 8 * i, 8), V8)
            total += [b.add(acc[2 * i + j], b.mul(left, right[j])) for j in (0, 1)]
        loop.end([at(b, pa, 64), at(b, pb, 128), *total])
        _store_tile(b, [total[2 * i : 2 * i + 2] for i in range(8)], pc, ldc, add)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), code


@intrinsic
def _tile_ifma(typing: Any, k: Any, a: Any, b: Any, c: Any, ldc: Any, add: Any, half: Any) -> Any:
    """C[4, 16] = (C if add) + (rows 4 half .. 4 half + 3 of the A panel) . B panel over k steps."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        count, pa, pb, pc, ldc, add, half = args
        if not has("avx512ifma", "avx512vnni"):
            return context.get_dummy_value()  # never reached there: the form is not offered
        low = named(b, "llvm.x86.avx512.vpmadd52l.uq.512", V8, V8, V8, V8)
        high = named(b, "llvm.x86.avx512.vpmadd52h.uq.512", V8, V8, V8, V8)
        dot = named(b, "llvm.x86.avx512.vpdpwssd.512", V16, V16, V16, V16)
        elements, parts = b.add(pa, b.mul(half, const(32))), b.add(at(b, pa, 64), b.mul(half, const(16)))
        start = ([splat_const(V8, 0)] * 4 + [splat_const(V16, 0)]) * 4
        loop = Loop(b, count, [elements, parts, pb, *start])
        elements, parts, pb, *acc = loop.carried
        right = [load(b, V8, pb, 64 * j, 64) for j in (0, 1)]
        right_parts = load(b, V16, pb, 128, 64)
        total = []
        for i in range(4):
            left = splat(b, load(b, I64, elements, 8 * i, 8), V8)
            left_parts = splat(b, load(b, I32, parts, 4 * i, 4), V16)
            sums = acc[5 * i : 5 * i + 5]
            total += [b.call(low, [sums[j], left, right[j]]) for j in (0, 1)]
            total += [b.call(high, [sums[2 + j], left, right[j]]) for j in (0, 1)]
            total.append(b.call(dot, [sums[4], left_parts, right_parts]))
        loop.end([at(b, elements, 96), at(b, parts, 96), at(b, pb, 192), *total])
        rows = []
        for i in range(4):
            *sums, cross = total[5 * i : 5 * i + 5]
            row = []
            for j in (0, 1):
                lanes = b.zext(shuffle(b, cross, cross, list(range(8 * j, 8 * j + 8))), V8)
                row.append(b.add(sums[j], b.shl(b.add(sums[2 + j], lanes), splat_const(V8, 52))))
            rows.append(row)
        _store_tile(b, rows, pc, ldc, add)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), code


@intrinsic
def _pack_a8(typing: Any, source: Any, stride: Any, out: Any, form: Any) -> Any:
    """Eight rows (``stride`` bytes apart) by eight k of A into eight steps of a panel."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        source, stride, out, form = args
        rows = [load(b, V8, b.add(source, b.mul(stride, const(i))), 0, 8) for i in range(8)]
        columns = transpose8(b, rows)
        with b.if_else(b.icmp_signed("==", form, const(IFMA))) as (ifma, mullq):
            with ifma:
                for k, column in enumerate(columns):
                    store(b, column, out, 96 * k, 8)
                    store(b, _pairs(b, column, True), out, 96 * k + 64, 8)
            with mullq:
                for k, column in enumerate(columns):
                    store(b, column, out, 64 * k, 8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), code


def _store_b(b: Any, left: Any, right: Any, out: Any, k: int, form: int) -> None:
    step = step_b(form)
    store(b, left, out, step * k, 64)
    store(b, right, out, step * k + 64, 64)
    if form == IFMA:
        store(b, _pairs(b, left, False), out, step * k + 128, 32)
        store(b, _pairs(b, right, False), out, step * k + 160, 32)


@intrinsic
def _pack_b8(typing: Any, source: Any, stride: Any, out: Any, form: Any, turned: Any) -> Any:
    """Eight k by sixteen columns of B into eight steps of a panel; ``turned``: the memory holds B transposed."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        source, stride, out, form, turned = args
        line = [b.add(source, b.mul(stride, const(i))) for i in range(16)]
        with b.if_else(b.icmp_signed("!=", turned, const(0))) as (transposed, straight):
            with transposed:
                halves = [transpose8(b, [load(b, V8, line[8 * h + i], 0, 8) for i in range(8)]) for h in (0, 1)]
                _store_forms(b, halves, out, form)
            with straight:
                halves = [[load(b, V8, line[k], 64 * h, 8) for k in range(8)] for h in (0, 1)]
                _store_forms(b, halves, out, form)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), code


def _store_forms(b: Any, halves: list[list[Any]], out: Any, form: Any) -> None:
    with b.if_else(b.icmp_signed("==", form, const(IFMA))) as (ifma, mullq):
        for block, which in ((ifma, IFMA), (mullq, MULLQ)):
            with block:
                for k in range(8):
                    _store_b(b, halves[0][k], halves[1][k], out, k, which)


@compiled
def _aligned(address: int) -> int:
    return (address + 63) & ~63


@intrinsic
def _word(typing: Any, address: Any) -> Any:
    """The int64 at an address."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return load(b, I64, args[0], 0, 8)

    return types.int64(types.int64), code


@intrinsic
def _put(typing: Any, address: Any, value: Any) -> Any:
    """Store an int64 at an address."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        store(b, args[1], args[0], 0, 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@compiled
def pack_b(form: int, b: int, stride_k: int, stride_n: int, inner: int, columns: int, out: int) -> None:
    """Pack B (address, strides in bytes, one of them 8) into panels at ``out`` (64-byte aligned)."""
    step = 192 if form == IFMA else 128
    panels, deep = (columns + 15) // 16, (inner + 7) // 8 * 8
    edge = np.empty(8 * 16 + 8, np.int64)
    scratch = _aligned(edge.ctypes.data)
    for k in range(0, deep, 8):
        block = k // DEPTH * DEPTH
        height = min(DEPTH, deep - block)
        for j in range(panels):
            to = out + (block * panels + j * height + (k - block)) * step
            here = b + k * stride_k + 16 * j * stride_n
            if k + 8 <= inner and 16 * j + 16 <= columns:
                if stride_n == 8:
                    _pack_b8(here, stride_k, to, form, 0)
                else:
                    _pack_b8(here, stride_n, to, form, 1)
            else:
                for kk in range(8):
                    for jj in range(16):
                        inside = k + kk < inner and 16 * j + jj < columns
                        _put(
                            scratch + 8 * (16 * kk + jj),
                            _word(here + kk * stride_k + jj * stride_n) if inside else 0,
                        )
                _pack_b8(scratch, 128, to, form, 0)
    edge[0] = 0  # numba frees an array after its last use: this is one


@compiled
def _pack_a(form: int, a: int, stride: int, rows: int, depth: int, out: int, height: int, scratch: int) -> None:
    """Pack a block of A: ``rows`` by ``depth`` valid elements into panels of ``height`` steps."""
    step = 96 if form == IFMA else 64
    for i in range(0, rows, 8):
        for k in range(0, height, 8):
            to = out + (i // 8 * height + k) * step
            here = a + i * stride + 8 * k
            if i + 8 <= rows and k + 8 <= depth:
                _pack_a8(here, stride, to, form)
            else:
                for ii in range(8):
                    for kk in range(8):
                        inside = i + ii < rows and k + kk < depth
                        _put(scratch + 8 * (8 * ii + kk), _word(here + ii * stride + 8 * kk) if inside else 0)
                _pack_a8(scratch, 64, to, form)


@compiled
def product(form: int, a: int, stride_a: int, rows: int, inner: int, columns: int, packed: int, c: int) -> None:
    """C (rows, columns), contiguous at address ``c``, = A . packed B; ``stride_a`` in bytes; no dimension is 0."""
    up, down = (96, 192) if form == IFMA else (64, 128)
    deep, panels, ldc = (inner + 7) // 8 * 8, (columns + 15) // 16, 8 * columns
    tall, thick = min(HEIGHT, (rows + 7) // 8 * 8), min(DEPTH, deep)
    buffer = np.empty(tall // 8 * thick * up // 8 + 8 * 16 + 8, np.int64)
    scratch = _aligned(buffer.ctypes.data)
    panel_a = scratch + 8 * 8 * 16
    for i0 in range(0, rows, HEIGHT):
        high = min(HEIGHT, rows - i0)
        for k0 in range(0, deep, DEPTH):
            height = min(DEPTH, deep - k0)
            add = 1 if k0 > 0 else 0
            _pack_a(form, a + i0 * stride_a + 8 * k0, stride_a, high, min(DEPTH, inner - k0), panel_a, height, scratch)
            for j in range(panels):
                pb = packed + (k0 * panels + j * height) * down
                width = min(16, columns - 16 * j)
                for i in range(0, high, 8):
                    pa = panel_a + i // 8 * height * up
                    pc = c + (i0 + i) * ldc + 128 * j
                    left = min(8, high - i)
                    whole = left == 8 and width == 16
                    to, ld, plus = (pc, ldc, add) if whole else (scratch, 128, 0)
                    if form == IFMA:
                        _tile_ifma(height, pa, pb, to, ld, plus, 0)
                        if left > 4:
                            _tile_ifma(height, pa, pb, to + 4 * ld, ld, plus, 1)
                    else:
                        _tile_mullq(height, pa, pb, to, ld, plus)
                    if not whole:
                        for ii in range(left):
                            for jj in range(width):
                                spot = pc + ii * ldc + 8 * jj
                                _put(spot, _word(scratch + 8 * (16 * ii + jj)) + (_word(spot) if add else 0))
    buffer[0] = 0  # numba frees an array after its last use: this is one
