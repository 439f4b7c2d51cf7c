"""The packed panels that the compiled product over Z_2^64 reads (``ring_tile``).

A is packed in panels of 8 rows (k by k: 8 elements, then for IFMA their 8 pairs of parts), B in panels of 16 columns
(k by k: 16 elements). K is padded to a multiple of 8, both packed sides with zeros. Both come by 8 x 8 transposes in
registers where the memory runs the other way. B's own pairs for IFMA are made anew for every block of rows
(``split_b``), which costs 2 % of the product at 128 rows; kept, they would add half to the memory of a model. A B of
int32 stays so in its *narrow* panels and is widened at the same place (``widen_b``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .compiled import compiled, intrinsic
from .packing_loops import load_word, store_word
from .vector_ir import I32, V8, V16, Loop, at, const, ir, load, shuffle, splat_const, store, transpose8

MULLQ, IFMA = 0, 1
STEP_B = 128  # bytes of one k of a packed panel of B
STEP_NARROW = 64
DEPTH = 384  # of a block: one row of B panels and the accumulating tile stream through the first-level cache
V8_32 = ir.VectorType(I32, 8)
Narrow = NDArray[np.int32]


def step_a(form: int) -> int:
    """Bytes of one k of a packed panel of A."""
    return 96 if form == IFMA else 64


def _pairs(b: Any, values: Any, high_first: bool) -> Any:
    """What is below 2^16 and what is from 2^52 up of eight int64, as eight int32: (top, bottom) in the low and high
    half, or the other way. The bottom is read as a signed number by whoever multiplies: only its low 12 bits count.
    """
    if high_first:
        pair = b.or_(b.lshr(values, splat_const(V8, 52)), b.shl(values, splat_const(V8, 16)))
    else:
        low = splat_const(V8, 0xFFFF)
        pair = b.or_(b.and_(values, low), b.and_(b.lshr(values, splat_const(V8, 36)), b.not_(low)))
    return b.trunc(pair, V8_32)


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


@intrinsic
def _pack_b8(typing: Any, source: Any, stride: Any, out: Any, turned: Any) -> Any:
    """Eight k by sixteen columns of B into eight steps of a panel; ``turned``: the memory holds B transposed."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        source, stride, out, turned = args
        line = [b.add(source, b.mul(stride, const(i))) for i in range(16)]
        with b.if_else(b.icmp_signed("!=", turned, const(0))) as (transposed, straight):
            with transposed:
                halves = [
                    transpose8(b, [load(b, V8, line[8 * h + i], 0, 8) for i in range(8)]) for h in (0, 1)
                ]
                _store_b(b, halves, out)
            with straight:
                halves = [[load(b, V8, line[k], 64 * h, 8) for k in range(8)] for h in (0, 1)]
                _store_b(b, halves, out)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), code


def _store_b(b: Any, halves: list[list[Any]], out: Any) -> None:
    for k in range(8):
        for h in (0, 1):
            store(b, halves[h][k], out, STEP_B * k + 64 * h, 64)


@intrinsic
def split_b(typing: Any, panel: Any, count: Any, out: Any) -> Any:
    """The pairs of ``count`` steps of a panel of B, 64 bytes a step."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        panel, count, out = args
        loop = Loop(b, count, [panel, out])
        panel, out = loop.carried
        for h in (0, 1):
            store(b, _pairs(b, load(b, V8, panel, 64 * h, 64), False), out, 32 * h, 32)
        loop.end([at(b, panel, STEP_B), at(b, out, 64)])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), code


@intrinsic
def widen_b(typing: Any, panel: Any, count: Any, elements: Any, pairs: Any, form: Any) -> Any:
    """``count`` steps of a narrow panel as a panel of B, and for IFMA its pairs."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        panel, count, elements, pairs, form = args
        loop = Loop(b, count, [panel, elements, pairs])
        panel, elements, pairs = loop.carried
        values = load(b, V16, panel, 0, 64)
        for h in (0, 1):
            half = shuffle(b, values, values, list(range(8 * h, 8 * h + 8)))
            store(b, b.sext(half, V8), elements, 64 * h, 64)
        with b.if_then(b.icmp_signed("==", form, const(IFMA))):
            sign = b.and_(b.ashr(values, splat_const(V16, 31)), splat_const(V16, -0x10000))
            store(b, b.or_(b.and_(values, splat_const(V16, 0xFFFF)), sign), pairs, 0, 64)
        loop.end([at(b, panel, STEP_NARROW), at(b, elements, STEP_B), at(b, pairs, 64)])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), code


@compiled
def aligned(address: int) -> int:
    """The next multiple of 64."""
    return (address + 63) & ~63


@compiled
def pack_b(b: int, stride_k: int, stride_n: int, inner: int, columns: int, out: int) -> None:
    """Pack B (address, strides in bytes, one of them 8) into panels at ``out`` (64-byte aligned)."""
    panels, deep = (columns + 15) // 16, (inner + 7) // 8 * 8
    edge = np.empty(8 * 16 + 8, np.int64)
    scratch = aligned(edge.ctypes.data)
    for k in range(0, deep, 8):
        block = k // DEPTH * DEPTH
        height = min(DEPTH, deep - block)
        for j in range(panels):
            to = out + (block * panels + j * height + (k - block)) * STEP_B
            here = b + k * stride_k + 16 * j * stride_n
            if k + 8 <= inner and 16 * j + 16 <= columns:
                if stride_n == 8:
                    _pack_b8(here, stride_k, to, 0)
                else:
                    _pack_b8(here, stride_n, to, 1)
            else:
                for kk in range(8):
                    for jj in range(16):
                        inside = k + kk < inner and 16 * j + jj < columns
                        store_word(
                            scratch + 8 * (16 * kk + jj),
                            load_word(here + kk * stride_k + jj * stride_n) if inside else 0,
                        )
                _pack_b8(scratch, 128, to, 0)
    edge[0] = 0  # numba frees an array after its last use: this is one


@compiled
def pack_narrow(b: Narrow, out: Narrow) -> None:
    """Pack B int32[inner, columns], at most ``DEPTH`` rows, into narrow panels."""
    inner, columns = b.shape
    panels, deep = (columns + 15) // 16, (inner + 7) // 8 * 8
    out[: panels * deep * 16] = 0
    for k in range(inner):
        for j in range(columns):
            out[(j // 16 * deep + k) * 16 + j % 16] = b[k, j]


@compiled
def pack_a(
    form: int, a: int, stride: int, rows: int, depth: int, out: int, height: int, scratch: int
) -> None:
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
                        store_word(
                            scratch + 8 * (8 * ii + kk),
                            load_word(here + ii * stride + 8 * kk) if inside else 0,
                        )
                _pack_a8(scratch, 64, to, form)
