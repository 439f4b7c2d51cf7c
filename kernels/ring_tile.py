"""The compiled product over Z_2^64: packed panels and an 8 x 16 tile in 512-bit registers.

Two forms of the tile, same bits:

* ``MULLQ`` (AVX-512 DQ): acc += a * b with the 64-bit multiply. One instruction on AMD, three on Intel.
* ``IFMA`` (AVX-512 IFMA and VNNI): with a = a0 + 2^52 a1 and b = b0 + 2^52 b1,
  a b = lo52(a0 b0) + 2^52 (hi52(a0 b0) + a1 b0 + a0 b1) mod 2^64, where the bracket counts only mod 2^12. The first two
  terms are one 52-bit multiply-add each on the unsplit a and b; the last two are 12-bit factors, so one 16-bit dot
  product does both, for 16 columns at a time: 2.5 instructions for 8 multiply-adds, against 4 with ``MULLQ`` on Intel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from .compiled import compiled, has, intrinsic
from .packing_loops import load_word, store_word
from .ring_pack import DEPTH, IFMA, STEP_B, STEP_NARROW, aligned, pack_a, split_b, widen_b
from .vector_ir import I32, I64, V8, V16, Loop, at, const, load, named, shuffle, splat, splat_const, store

HEIGHT = 512  # rows of a block: its packed A (2.4 MB at most) streams from the second-level cache


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
def _tile_ifma(typing: Any, k: Any, a: Any, b: Any, pairs: Any, c: Any, ldc: Any, add: Any, half: Any) -> Any:
    """C[4, 16] = (C if add) + (rows 4 half .. 4 half + 3 of the A panel) . B panel over k steps."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        count, pa, pb, pairs, pc, ldc, add, half = args
        if not has("avx512ifma", "avx512vnni"):
            return context.get_dummy_value()  # never reached there: the form is not offered
        low = named(b, "llvm.x86.avx512.vpmadd52l.uq.512", V8, V8, V8, V8)
        high = named(b, "llvm.x86.avx512.vpmadd52h.uq.512", V8, V8, V8, V8)
        dot = named(b, "llvm.x86.avx512.vpdpwssd.512", V16, V16, V16, V16)
        elements, parts = b.add(pa, b.mul(half, const(32))), b.add(at(b, pa, 64), b.mul(half, const(16)))
        start = ([splat_const(V8, 0)] * 4 + [splat_const(V16, 0)]) * 4
        loop = Loop(b, count, [elements, parts, pb, pairs, *start])
        elements, parts, pb, pairs, *acc = loop.carried
        right = [load(b, V8, pb, 64 * j, 64) for j in (0, 1)]
        right_parts = load(b, V16, pairs, 0, 64)
        total = []
        for i in range(4):
            left = splat(b, load(b, I64, elements, 8 * i, 8), V8)
            left_parts = splat(b, load(b, I32, parts, 4 * i, 4), V16)
            sums = acc[5 * i : 5 * i + 5]
            total += [b.call(low, [sums[j], left, right[j]]) for j in (0, 1)]
            total += [b.call(high, [sums[2 + j], left, right[j]]) for j in (0, 1)]
            total.append(b.call(dot, [sums[4], left_parts, right_parts]))
        loop.end([at(b, elements, 96), at(b, parts, 96), at(b, pb, STEP_B), at(b, pairs, 64), *total])
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

    return types.void(*[types.int64] * 8), code


@compiled
def product(
    form: int, narrow: bool, a: int, stride_a: int, rows: int, inner: int, columns: int, packed: int, c: int
) -> None:
    """C (rows, columns), contiguous at address ``c``, = A . packed B; ``stride_a`` in bytes; no dimension is 0."""
    step = STEP_NARROW if narrow else STEP_B
    up = 96 if form == IFMA else 64
    deep, panels, ldc = (inner + 7) // 8 * 8, (columns + 15) // 16, 8 * columns
    tall, thick = min(HEIGHT, (rows + 7) // 8 * 8), min(DEPTH, deep)
    buffer = np.empty(tall // 8 * thick * up // 8 + 24 * thick + 8 * 16 + 8, np.int64)
    scratch = aligned(buffer.ctypes.data)
    pairs = scratch + 8 * 8 * 16
    widened = pairs + 64 * thick
    panel_a = widened + STEP_B * thick
    for i0 in range(0, rows, HEIGHT):
        high = min(HEIGHT, rows - i0)
        for k0 in range(0, deep, DEPTH):
            height = min(DEPTH, deep - k0)
            add = 1 if k0 > 0 else 0
            pack_a(
                form,
                a + i0 * stride_a + 8 * k0,
                stride_a,
                high,
                min(DEPTH, inner - k0),
                panel_a,
                height,
                scratch,
            )
            for j in range(panels):
                pb = packed + (k0 * panels + j * height) * step
                if narrow:
                    widen_b(pb, height, widened, pairs, form)
                    pb = widened
                elif form == IFMA:
                    split_b(pb, height, pairs)
                width = min(16, columns - 16 * j)
                for i in range(0, high, 8):
                    pa = panel_a + i // 8 * height * up
                    pc = c + (i0 + i) * ldc + 128 * j
                    left = min(8, high - i)
                    whole = left == 8 and width == 16
                    to, ld, plus = (pc, ldc, add) if whole else (scratch, 128, 0)
                    if form == IFMA:
                        _tile_ifma(height, pa, pb, pairs, to, ld, plus, 0)
                        if left > 4:
                            _tile_ifma(height, pa, pb, pairs, to + 4 * ld, ld, plus, 1)
                    else:
                        _tile_mullq(height, pa, pb, to, ld, plus)
                    if not whole:
                        for ii in range(left):
                            for jj in range(width):
                                spot = pc + ii * ldc + 8 * jj
                                store_word(
                                    spot,
                                    load_word(scratch + 8 * (16 * ii + jj)) + (load_word(spot) if add else 0),
                                )
    buffer[0] = 0  # numba frees an array after its last use: this is one
