"""Loops of ``field_loops`` on eight lanes at a time: weights, reduction, masked sums and 52-bit products.

Where ``FAST`` is true the processor has AVX-512 with 52-bit multiply-add (IFMA) and permutations of two registers by
variable indices; elsewhere only ``masked_sums`` may be called, which names no function of the processor. Addresses
are those of contiguous uint64 arrays.
"""

from __future__ import annotations

from typing import Any

from numba import types

from .compiled import has, intrinsic
from .vector_ir import I64, V8, Loop, at, const, ir, load, named, shuffle, splat, splat_const, store

__all__ = ["FAST", "LANES_TURNS", "cross_lanes", "masked_sums", "reduce_lanes", "weigh_lanes"]

FAST = has("avx512f", "avx512dq", "avx512vl", "avx512bw", "avx512ifma")
"""Whether all of these may be called."""

LANES_TURNS = 1024
"""Turns of ``cross_lanes`` at most: a lane adds three numbers of 52 bits a turn, and holds 64."""

_U64 = types.uint64
_BYTE_MASK = ir.VectorType(ir.IntType(1), 8)
_ROWS, _HALVES = 7, 14


def _chosen(b: Any, low: Any, index: Any, high: Any) -> Any:
    """Lane by lane, the entry of 16 (low, then high) that the last four bits of ``index`` name."""
    return b.call(named(b, "llvm.x86.avx512.vpermi2var.q.512", V8, V8, V8, V8), [low, index, high])


def _product(b: Any, half: str, total: Any, x: Any, y: Any) -> Any:
    """total + the low ("l") or high ("h") 52 bits of the product of the low 52 bits of x and y."""
    return b.call(named(b, f"llvm.x86.avx512.vpmadd52{half}.uq.512", V8, V8, V8, V8), [total, x, y])


def _shifted(b: Any, x: Any, by: int) -> Any:
    return b.lshr(x, splat_const(V8, by)) if by else x


def _below(b: Any, t: Any, p: Any) -> Any:
    """t mod p for t < 2p."""
    less = b.sub(t, p)
    return b.select(b.icmp_unsigned("<", t, less), t, less)


def _reduced(b: Any, x: Any, p: Any, tops: tuple[Any, Any]) -> Any:
    """x mod p for any words: x = i·2^60 + low, ``tops`` are i·2^60 mod p."""
    top = _chosen(b, tops[0], _shifted(b, x, 60), tops[1])
    return _below(b, b.add(top, b.and_(x, splat_const(V8, (1 << 60) - 1))), p)


@intrinsic
def reduce_lanes(typing: Any, x: Any, p: Any, tops: Any, out: Any, turns: Any) -> Any:
    """out = x mod p, 8·turns words; ``tops``: the 16 multiples of 2^60 mod p."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        x, p, tops, out, turns = args
        p = splat(b, p, V8)
        halves = load(b, V8, tops, 0, 8), load(b, V8, tops, 64, 8)
        loop = Loop(b, turns, [x, out])
        x, out = loop.carried
        store(b, _reduced(b, load(b, V8, x, 0, 8), p, halves), out, 0, 8)
        loop.end([at(b, x, 64), at(b, out, 64)])
        return context.get_dummy_value()

    return types.void(_U64, _U64, _U64, _U64, types.int64), code


@intrinsic
def weigh_lanes(typing: Any, bits: Any, table: Any, p: Any, tops: Any, out: Any, turns: Any) -> Any:
    """out = Σ_j table[j, half byte j of bits] mod p, 8·turns words; table (14, 16) of elements: 14 half bytes count."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        bits, table, p, tops, out, turns = args
        p = splat(b, p, V8)
        halves = load(b, V8, tops, 0, 8), load(b, V8, tops, 64, 8)
        loop = Loop(b, turns, [bits, out])
        bits, out = loop.carried
        word = load(b, V8, bits, 0, 8)
        sums = []
        for first in range(0, _HALVES, _ROWS):  # seven elements below 2^61 are a word
            total = splat_const(V8, 0)
            for j in range(first, first + _ROWS):
                low, high = load(b, V8, table, 128 * j, 8), load(b, V8, table, 128 * j + 64, 8)
                total = b.add(total, _chosen(b, low, _shifted(b, word, 4 * j), high))
            sums.append(_reduced(b, total, p, halves))
        store(b, _below(b, b.add(*sums), p), out, 0, 8)
        loop.end([at(b, bits, 64), at(b, out, 64)])
        return context.get_dummy_value()

    return types.void(_U64, _U64, _U64, _U64, _U64, types.int64), code


@intrinsic
def masked_sums(typing: Any, bits: Any, low: Any, high: Any, count: Any, sums: Any) -> Any:
    """sums[0, t] += low[g], sums[1, t] += high[g] for every g with bit t of bits[g] set; sums (2, 56)."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        bits, low, high, count, sums = args
        places = [64 * row for row in range(2 * _ROWS)]
        loop = Loop(b, count, [bits, low, high, *(load(b, V8, sums, place, 8) for place in places)])
        bits, low, high, *totals = loop.carried
        words = [splat(b, load(b, I64, source, 0, 8), V8) for source in (low, high)]
        none = splat_const(V8, 0)
        for row in range(_ROWS):
            mask = b.bitcast(load(b, ir.IntType(8), bits, row, 1), _BYTE_MASK)
            for half in range(2):
                slot = _ROWS * half + row
                totals[slot] = b.add(totals[slot], b.select(mask, words[half], none))
        totals = loop.end([at(b, bits, 8), at(b, low, 8), at(b, high, 8), *totals])[3:]
        for place, total in zip(places, totals, strict=True):
            store(b, total, sums, place, 8)
        return context.get_dummy_value()

    return types.void(_U64, _U64, _U64, types.int64, _U64), code


@intrinsic
def cross_lanes(typing: Any, u: Any, v: Any, turns: Any, out: Any) -> Any:
    """The products of the sum-check's matrix over 8·turns entries below 2^61, as sums of limbs: out (4, 3, 8).

    out[r, i, lane]: over all turns, limb i (of 52 bits) of u[lane]·v[lane turned by r in its block of four].
    """

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        u, v, turns, out = args
        loop = Loop(b, turns, [u, v, *(splat_const(V8, 0) for _ in range(12))])
        u, v, *totals = loop.carried
        x, y = load(b, V8, u, 0, 8), load(b, V8, v, 0, 8)
        x1, y1 = _shifted(b, x, 52), _shifted(b, y, 52)
        for r in range(4):
            lanes = [lane - lane % 4 + (lane + r) % 4 for lane in range(8)]
            z, z1 = (shuffle(b, side, side, lanes) if r else side for side in (y, y1))
            t0, t1, t2 = totals[3 * r : 3 * r + 3]
            t0 = _product(b, "l", t0, x, z)
            t1 = _product(b, "h", t1, x, z)
            t1 = _product(b, "l", t1, x, z1)
            t1 = _product(b, "l", t1, x1, z)
            t2 = _product(b, "h", t2, x, z1)
            t2 = _product(b, "h", t2, x1, z)
            t2 = _product(b, "l", t2, x1, z1)
            totals[3 * r : 3 * r + 3] = [t0, t1, t2]
        totals = loop.end([b.add(u, const(64)), b.add(v, const(64)), *totals])[2:]
        for i, total in enumerate(totals):
            store(b, total, out, 64 * i, 8)
        return context.get_dummy_value()

    return types.void(_U64, _U64, types.int64, _U64), code
