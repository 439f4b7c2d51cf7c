"""The compiled look-up: rotated bits index subset sums held in registers, 32 rows at a time.

Rotating a row's bits by c turns sum_j bit_j T[(c - j)] into sum_m r_m T[-m] with r_m = bit_{m + c}: the table no longer
depends on the row, so the 16 sums of every 4 neighbouring coefficients are prepared once ("four Russians"). They fill
two 512-bit registers, and one two-register permute looks up 8 rows at once: for every 4 bits of 8 rows, one shift, and
one permute and one add a table. Long tables go block by block of words, so that a block's sums stay in the second-level
cache while all rows pass over it; those are made anew at every call, which is quicker than to read them from memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .compiled import compiled, has, intrinsic
from .vector_ir import I32, I64, V8, Loop, at, const, ir, load, named, shuffle, splat, splat_const, store

Int = NDArray[np.int64]
Word = NDArray[np.uint64]

LANES = 4  # vectors of 8 rows in a tile
TILE = 8 * LANES
UNROLL = 2  # groups of 4 bits: more make the compiler spill registers
BLOCK_BYTES = 1 << 20  # of sums visited by all rows before the next
MOST_TABLES = 4  # that a tile's registers hold


def subset_sums(tables: Int) -> Int:
    """tables int64[K, 2^n] -> int64[W, 16, K, 16]: for every word of 64 bits, group of 4 bits and table, all 16 sums.

    W = ceil(2^n / 64); groups past the domain are zero. 32 bytes a coefficient.
    """
    count, size = tables.shape
    words = (size + 63) // 64
    turned = np.zeros((count, words * 64), np.int64)
    turned[:, :size] = tables[:, -np.arange(size) % size]
    quads = turned.reshape(count, words, 16, 4).transpose(1, 2, 0, 3)
    sums = np.zeros((words, 16, count, 16), np.int64)
    for u in range(4):
        sums[..., 1 << u : 2 << u] = sums[..., : 1 << u] + quads[..., u : u + 1]
    return sums


def _fresh(b: Any, address: Any, offset: int) -> Any:
    """A vector loaded once more: the permute overwrites it, and a load is cheaper than a copy between registers,
    which would take one of the two ports that permutes and adds need."""
    return b.asm(ir.FunctionType(V8, [I64]), f"vmovdqa64 {offset}($1), $0", "=v,r", [address], True)


def _tile(count: int) -> Any:
    """The inner loop for ``count`` tables: acc[count][32 rows] += sums of ``words`` words."""

    def sums(typing: Any, words: Any, x: Any, table: Any, acc: Any) -> Any:
        def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
            words, x, table, acc = args
            if not has("avx512f"):
                return context.get_dummy_value()  # never reached there: the body is not offered
            permute = named(b, "llvm.x86.avx512.vpermi2var.q.512", V8, V8, V8, V8)
            loop = Loop(b, words, [x, table] + [splat_const(V8, 0)] * (count * LANES))
            x, table, *total = loop.carried
            index = [load(b, V8, x, 64 * lane, 64) for lane in range(LANES)]
            inner = Loop(b, const(16 // UNROLL), [table, *index, *total])
            table, *carried = inner.carried
            index, total = carried[:LANES], carried[LANES:]
            for group in range(UNROLL):
                for k in range(count):
                    place = (group * count + k) * 128
                    high = load(b, V8, table, place + 64, 64)
                    for lane in range(LANES):
                        slot = k * LANES + lane
                        low = _fresh(b, table, place)
                        total[slot] = b.add(total[slot], b.call(permute, [low, index[lane], high]))
                index = [b.lshr(value, splat_const(V8, 4)) for value in index]
            table, *carried = inner.end([at(b, table, UNROLL * count * 128), *index, *total])
            total = carried[LANES:]
            loop.end([at(b, x, 64 * LANES), table, *total])
            for slot, value in enumerate(total):
                store(b, b.add(value, load(b, V8, acc, 64 * slot, 64)), acc, 64 * slot, 64)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), code

    return intrinsic(sums)


_sums1, _sums2, _sums3, _sums4 = (_tile(count) for count in range(1, MOST_TABLES + 1))


@intrinsic
def _rotate8(
    typing: Any, bits: Any, width: Any, rows: Any, c: Any, row: Any, first: Any, words: Any, x: Any
) -> Any:
    """x[w][8 lanes of a 32-lane line] = word first + w of rows row .. row + 7, each rotated down by its c.

    Rows past the end repeat the last one.
    """

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        bits, width, rows, c, row, first, words, x = args
        if not has("avx512f"):
            return context.get_dummy_value()  # never reached there: the body is not offered
        pointer = ir.PointerType(I64)
        every = ir.Constant(ir.VectorType(ir.IntType(1), 8), [1] * 8)
        gather = named(b, "llvm.x86.avx512.mask.gather.qpq.512", V8, V8, pointer, V8, every.type, I32)
        funnel = named(b, "llvm.fshr.v8i64", V8, V8, V8, V8)
        smallest = named(b, "llvm.smin.v8i64", V8, V8, V8)

        def fetch(base: Any, index: Any) -> Any:
            return b.call(
                gather, [splat_const(V8, 0), b.inttoptr(base, pointer), index, every, ir.Constant(I32, 8)]
            )

        lanes = b.add(splat(b, row, V8), ir.Constant(V8, list(range(8))))
        lanes = b.call(smallest, [lanes, splat(b, b.sub(rows, const(1)), V8)])
        start, mask = b.mul(lanes, splat(b, width, V8)), splat(b, b.sub(width, const(1)), V8)
        by = fetch(c, lanes)
        source = b.add(b.lshr(by, splat_const(V8, 6)), splat(b, first, V8))
        low = fetch(bits, b.add(start, b.and_(source, mask)))
        loop = Loop(b, words, [source, low, x])
        source, low, x = loop.carried
        following = b.add(source, splat_const(V8, 1))
        high = fetch(bits, b.add(start, b.and_(following, mask)))
        store(b, b.call(funnel, [high, low, by]), x, 0, 64)
        loop.end([following, high, at(b, x, 64 * LANES)])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), code


@compiled
def _aligned_words(rows: int) -> Word:
    """uint64[rows, 32] that starts at a multiple of 64 bytes."""
    memory = np.zeros(rows * TILE + 8, np.uint64)
    skip = (-memory.ctypes.data & 63) >> 3
    return memory[skip : skip + rows * TILE].reshape(rows, TILE)


@intrinsic
def _store_sums(typing: Any, t0: Any, t1: Any, t2: Any, t3: Any, out: Any) -> Any:
    """The 16 sums of subsets of four coefficients, at a 64-byte aligned address."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        *coefficients, out = args
        zero = low = splat_const(V8, 0)
        for u, coefficient in enumerate(coefficients[:3]):
            chosen = ir.Constant(ir.VectorType(ir.IntType(1), 8), [lane >> u & 1 for lane in range(8)])
            low = b.add(low, b.select(chosen, splat(b, coefficient, V8), zero))
        store(b, low, out, 0, 64)
        store(b, b.add(low, splat(b, coefficients[3], V8)), out, 64, 64)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), code


@compiled
def _store_block(tables: Int, first: int, words: int, to: int) -> None:
    """``subset_sums`` of words first .. first + words - 1, at a 64-byte aligned address."""
    count, size = tables.shape
    mask = size - 1
    for group in range(16 * first, 16 * (first + words)):
        for k in range(count):
            t0, t1 = tables[k, -4 * group & mask], tables[k, (-4 * group - 1) & mask]
            t2, t3 = tables[k, (-4 * group - 2) & mask], tables[k, (-4 * group - 3) & mask]
            _store_sums(t0, t1, t2, t3, to)
            to += 128


def _turn(count: int) -> Any:
    """Eight rows out of the tile: out[8][count], contiguous, = acc[count][8 of 32]."""

    def spread(typing: Any, acc: Any, out: Any) -> Any:
        def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
            acc, out = args
            lanes = [load(b, V8, acc, 64 * LANES * k, 64) for k in range(count)]
            for vector in range(count):
                places = [divmod(8 * vector + i, count) for i in range(8)]  # (row, table) of each element
                turned = lanes[0]
                for k in range(count):
                    taken = [8 + row if table == k else i for i, (row, table) in enumerate(places)]
                    turned = shuffle(b, turned, lanes[k], taken)
                store(b, turned, out, 64 * vector, 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), code

    return intrinsic(spread)


_turn1, _turn2, _turn3, _turn4 = (_turn(count) for count in range(1, MOST_TABLES + 1))


@compiled
def _emit(acc: Word, first: int, row: int, out: Int) -> None:
    """out[row .. row + 31, k] = acc[first + k], as far as there are rows."""
    rows, count = out.shape
    if row + TILE <= rows and out.strides[0] == 8 * count:
        for lane in range(0, TILE, 8):
            source = acc.ctypes.data + (first * TILE + lane) * 8
            to = out.ctypes.data + (row + lane) * count * 8
            if count == 1:
                _turn1(source, to)
            elif count == 2:
                _turn2(source, to)
            elif count == 3:
                _turn3(source, to)
            else:
                _turn4(source, to)
        return
    for lane in range(min(TILE, rows - row)):
        for k in range(count):
            out[row + lane, k] = np.int64(acc[first + k, lane])


@compiled
def lookup(bits: Word, c: Int, tables: Int, sums: Int, block: int, out: Int) -> None:
    """out[row, k] = look-up of row in table k. bits uint64[N, W]; at most 4 tables int64[K, 2^n], n >= 6, with their
    ``sums`` (64-byte aligned), or without them int64[0, 16, K, 16]; ``block`` words at a time."""
    rows, words, count = bits.shape[0], bits.shape[1], sums.shape[2]
    tiles, block = (rows + TILE - 1) // TILE, min(block, words)
    whole = block == words
    acc = _aligned_words(count if whole else tiles * count)
    x = _aligned_words(block)
    made = _aligned_words(0 if sums.shape[0] else block * count * 8)
    for first in range(0, words, block):
        length = min(block, words - first)
        table = sums.ctypes.data + first * count * 2048
        if sums.shape[0] == 0:
            table = made.ctypes.data
            _store_block(tables, first, length, table)
        for tile in range(tiles):
            for lane in range(LANES):
                to = x.ctypes.data + 64 * lane
                row = tile * TILE + 8 * lane
                _rotate8(bits.ctypes.data, bits.shape[1], rows, c.ctypes.data, row, first, length, to)
            at = 0 if whole else tile * count
            if whole:
                acc[:] = np.uint64(0)
            to = acc.ctypes.data + at * TILE * 8
            if count == 1:
                _sums1(length, x.ctypes.data, table, to)
            elif count == 2:
                _sums2(length, x.ctypes.data, table, to)
            elif count == 3:
                _sums3(length, x.ctypes.data, table, to)
            else:
                _sums4(length, x.ctypes.data, table, to)
            if first + block >= words:
                _emit(acc, at, tile * TILE, out)
    x[0, 0] = made.size  # numba frees an array after its last use: this is one


@compiled
def lookup_plain(bits: NDArray[np.uint8], c: Int, tables: Int, out: Int) -> None:
    """The same look-up without vector instructions, from the raw tables: a pass over the set bits."""
    size = tables.shape[1]
    for row in range(bits.shape[0]):
        for k in range(tables.shape[0]):
            total = np.int64(0)
            for byte in range(bits.shape[1]):
                for bit in range(8):
                    chosen = -np.int64((bits[row, byte] >> bit) & 1)
                    total += tables[k, (c[row] - 8 * byte - bit) & (size - 1)] & chosen
            out[row, k] = total


@compiled
def flip(e1: NDArray[np.uint8], position: Int, sign: Int) -> None:
    """Flip bit ``position`` of every row of e1 in place; sign = +1 where it was 1, else -1."""
    size = 8 * e1.shape[1]
    for row in range(e1.shape[0]):
        at_bit = position[row] & (size - 1)
        before = e1[row, at_bit >> 3]
        mask = np.uint8(1 << (at_bit & 7))
        e1[row, at_bit >> 3] = before ^ mask
        sign[row] = 1 if before & mask else -1
