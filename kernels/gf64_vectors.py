"""Loops of ``gf64_loops`` on 512-bit registers: carry-less products four at a time, and bits by 8x8 matrices.

Only where ``FAST`` is true: the processor has AVX-512 with VPCLMULQDQ, GFNI and byte permutations (VBMI). Addresses
are those of contiguous uint64 arrays.
"""

from __future__ import annotations

from typing import Any

from numba import types

from .compiled import has, intrinsic
from .vector_ir import V8, Loop, at, ir, load, named, shuffle, splat, splat_const, store

__all__ = ["FAST", "cross_lanes", "fold4_lanes", "fold_block", "fold_lanes", "weighted_block"]

FAST = has("avx512f", "avx512bw", "avx512vl", "avx512vbmi", "vpclmulqdq", "gfni")
"""Whether these may be called."""

_U64 = types.uint64
_I8 = ir.IntType(8)
_V64 = ir.VectorType(_I8, 64)
_HALVES = (0x00, 0x11, 0x01, 0x10)  # which of a pair's two words is multiplied: of the left, of the right


def _product(b: Any, x: Any, y: Any, which: int) -> Any:
    """Four carry-less products of 128 bits: of the low (0) or high (1) word of each pair of x (bit 0) and y (bit 4)."""
    call = named(b, "llvm.x86.pclmulqdq.512", V8, V8, V8, _I8)
    return b.call(call, [x, y, ir.Constant(_I8, which)])


def _affine(b: Any, x: Any, matrices: Any) -> Any:
    """Every byte of x times the 8x8 matrix of its word: bit i of the result is the parity of (byte 7 - i) & x."""
    call = named(b, "llvm.x86.vgf2p8affineqb.512", _V64, _V64, _V64, _I8)
    return b.call(call, [x, matrices, ir.Constant(_I8, 0)])


def _shifted(b: Any, x: Any, by: int) -> Any:
    return b.shl(x, splat_const(V8, by)) if by >= 0 else b.lshr(x, splat_const(V8, -by))


def _folded(b: Any, high: Any) -> Any:
    """high·x^64 but for what its top four bits leave beyond x^63."""
    total = high
    for by in (1, 3, 4):
        total = b.xor(total, _shifted(b, high, by))
    return total


def _reduced(b: Any, low: Any, high: Any) -> Any:
    """Lane by lane, (low, high) modulo x^64 + x^4 + x^3 + x + 1: what the top bits of high leave is folded again."""
    over = b.xor(_shifted(b, high, -63), b.xor(_shifted(b, high, -61), _shifted(b, high, -60)))
    return b.xor(low, _folded(b, b.xor(high, over)))


@intrinsic
def cross_lanes(typing: Any, u: Any, v: Any, turns: Any, out: Any) -> Any:
    """The products of the sum-check's matrix over 8·turns entries: out (2, 4, 4, 2), sums of 128 bits.

    out[s, i, l]: of pair l of u (words 2l, 2l + 1 of eight) and pair l, or its neighbour in the block of four if s,
    of v; ``_HALVES[i]`` says which word of each.
    """

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        u, v, turns, out = args
        loop = Loop(b, turns, [u, v, *(splat_const(V8, 0) for _ in range(8))])
        u, v, *totals = loop.carried
        x, y = load(b, V8, u, 0, 8), load(b, V8, v, 0, 8)
        for s, z in enumerate((y, shuffle(b, y, y, [2, 3, 0, 1, 6, 7, 4, 5]))):
            for i, which in enumerate(_HALVES):
                totals[4 * s + i] = b.xor(totals[4 * s + i], _product(b, x, z, which))
        totals = loop.end([at(b, u, 64), at(b, v, 64), *totals])[2:]
        for i, total in enumerate(totals):
            store(b, total, out, 64 * i, 8)
        return context.get_dummy_value()

    return types.void(_U64, _U64, types.int64, _U64), code


@intrinsic
def fold_lanes(typing: Any, u: Any, c: Any, turns: Any, out: Any) -> Any:
    """Σ c[j]·u[j] over 8·turns entries, not reduced: out (4, 2), four sums of 128 bits whose sum it is."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        u, c, turns, out = args
        loop = Loop(b, turns, [u, c, splat_const(V8, 0)])
        u, c, total = loop.carried
        x, y = load(b, V8, u, 0, 8), load(b, V8, c, 0, 8)
        total = b.xor(total, b.xor(_product(b, x, y, 0x00), _product(b, x, y, 0x11)))
        total = loop.end([at(b, u, 64), at(b, c, 64), total])[2]
        store(b, total, out, 0, 8)
        return context.get_dummy_value()

    return types.void(_U64, _U64, types.int64, _U64), code


@intrinsic
def fold4_lanes(typing: Any, u: Any, c: Any, turns: Any, out: Any) -> Any:
    """out[b] = Σ_j c[j]·u[4 b + j] for 8·turns blocks of four; c holds its four coefficients twice."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        u, c, turns, out = args
        y = load(b, V8, c, 0, 8)
        loop = Loop(b, turns, [u, out])
        u, out = loop.carried
        sums = []
        for i in range(4):
            x = load(b, V8, u, 64 * i, 8)
            pair = b.xor(_product(b, x, y, 0x00), _product(b, x, y, 0x11))
            sums.append(b.xor(pair, shuffle(b, pair, pair, [2, 3, 0, 1, 6, 7, 4, 5])))
        left, right = (
            shuffle(b, sums[i], sums[i + 1], [0, 4, 8, 12, 1, 5, 9, 13]) for i in (0, 2)
        )  # of four blocks each: their low words, then their high ones
        low = shuffle(b, left, right, [0, 1, 2, 3, 8, 9, 10, 11])
        high = shuffle(b, left, right, [4, 5, 6, 7, 12, 13, 14, 15])
        store(b, _reduced(b, low, high), out, 0, 8)
        loop.end([at(b, u, 256), at(b, out, 64)])
        return context.get_dummy_value()

    return types.void(_U64, _U64, types.int64, _U64), code


def _turned_bytes(b: Any, x: Any, reverse: bool) -> Any:
    """An 8x8 matrix of bytes, a row a word, transposed; ``reverse``: each row of the result backwards."""
    places = [8 * (7 - column if reverse else column) + row for row in range(8) for column in range(8)]
    return shuffle(b, x, x, places)


def _block(weighted: bool) -> Any:
    def make(typing: Any, first: Any, second: Any, matrices: Any, omega: Any, out: Any) -> Any:
        def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
            first, second, matrices, omega, out = args
            ones = ir.Constant(_V64, [1 << (i % 8) for i in range(64)])
            bits, rows = [], []
            for i, source in enumerate((first, second)):
                words = load(b, _V64, source, 0, 8)
                bits.append(b.bitcast(_affine(b, ones, _turned_bytes(b, words, True)), V8))
                rows.append(load(b, _V64, matrices, 64 * i, 8))
            if weighted:  # omega·x^k in lane k
                w = splat(b, omega, V8)
                lanes = ir.Constant(V8, list(range(8)))
                over = b.lshr(_shifted(b, w, -1), b.sub(splat_const(V8, 63), lanes))
                w = b.xor(b.shl(w, lanes), _folded(b, over))
            for byte in range(8):
                parts = [
                    _affine(b, b.bitcast(shuffle(b, side, side, [byte] * 8), _V64), row)
                    for side, row in zip(bits, rows, strict=True)
                ]
                total = b.bitcast(_turned_bytes(b, b.xor(*parts), False), V8)
                if weighted:
                    even, odd = _product(b, total, w, 0x00), _product(b, total, w, 0x11)
                    low = shuffle(b, even, odd, [0, 8, 2, 10, 4, 12, 6, 14])
                    high = shuffle(b, even, odd, [1, 9, 3, 11, 5, 13, 7, 15])
                    total = _reduced(b, low, high)
                    w = b.xor(_shifted(b, w, 8), _folded(b, _shifted(b, w, -56)))
                store(b, total, out, 64 * byte, 8)
            return context.get_dummy_value()

        return types.void(_U64, _U64, _U64, _U64, _U64), code

    return make


@intrinsic
def fold_block(typing: Any, first: Any, second: Any, matrices: Any, omega: Any, out: Any) -> Any:
    """out[t] = Σ_j c_j·bit t of word j, for 8 words of ``first`` and 8 of ``second``; 64 words. ``matrices`` (2, 8):
    word i of half h has, in bit j of byte 7 - k, bit 8 i + k of c_{8 h + j}."""
    return _block(False)(typing, first, second, matrices, omega, out)


@intrinsic
def weighted_block(typing: Any, first: Any, second: Any, matrices: Any, omega: Any, out: Any) -> Any:
    """As ``fold_block``, times omega·x^t."""
    return _block(True)(typing, first, second, matrices, omega, out)
