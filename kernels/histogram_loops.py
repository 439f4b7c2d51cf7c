"""The compiled loops of ``histogram``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .compiled import compiled, intrinsic
from .vector_ir import I32, I64, Loop, at, const, ir, load, named, splat_const

Int = NDArray[np.int64]
Byte = NDArray[np.uint8]


def _turned_sum(bits: int) -> Any:
    """The inner loop for elements of 8 or 16 bits: one 512-bit vector of a turned and added group of lines."""
    lanes, size = 512 // bits, bits // 8
    vector = ir.VectorType(ir.IntType(bits), lanes)
    chosen = ir.VectorType(ir.IntType(1), lanes)
    pointer = ir.PointerType(I64)

    def ones(b: Any, count: Any) -> Any:
        """The lowest ``count`` of 64 bits, count from 0 to 64."""
        shifted = b.lshr(const(-1), b.sub(const(64), count))
        return b.select(b.icmp_signed("==", count, const(0)), const(0), shifted)

    def mask(b: Any, value: Any) -> Any:
        return b.bitcast(value if lanes == 64 else b.trunc(value, I32), chosen)

    def turned_sum(typing: Any, lines: Any, count: Any, start: Any, length: Any, first: Any, out: Any) -> Any:
        """out[first + i] = sum over lines j with start[j] >= 0 of line_j[(start[j] + first + i) mod length].

        Lines are contiguous, ``length`` elements each; ``first`` counts elements; at least one line.
        """

        def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
            lines, count, start, length, first, out = args
            name = f"v{lanes}i{bits}.p0"
            fetch = named(b, f"llvm.masked.load.{name}", vector, pointer, I32, chosen, vector)
            put = named(b, f"llvm.masked.store.{name}", ir.VoidType(), vector, pointer, I32, chosen)
            least, most = (named(b, f"llvm.{kind}.i64", I64, I64, I64) for kind in ("smin", "smax"))
            align = ir.Constant(I32, size)
            left = b.sub(length, first)
            width = ones(b, b.call(least, [left, const(lanes)]))
            line_bytes = b.mul(length, const(size))
            loop = Loop(b, count, [lines, start, splat_const(vector, 0)])
            line, spot, total = loop.carried
            turn = load(b, I64, spot, 0, 8)
            before = b.call(most, [b.call(least, [b.sub(left, turn), const(lanes)]), const(0)])
            head = b.and_(ones(b, before), width)
            tail = b.xor(head, width)
            skip = b.icmp_signed("<", turn, const(0))
            head, tail = (b.select(skip, const(0), part) for part in (head, tail))
            source = b.add(line, b.mul(b.add(turn, first), const(size)))
            value = splat_const(vector, 0)
            for address, part in ((source, head), (b.sub(source, line_bytes), tail)):
                value = b.call(fetch, [b.inttoptr(address, pointer), align, mask(b, part), value])
            total = b.add(total, value)
            loop.end([b.add(line, line_bytes), at(b, spot, 8), total])
            to = b.add(out, b.mul(first, const(size)))
            b.call(put, [total, b.inttoptr(to, pointer), align, mask(b, width)])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), code

    return intrinsic(turned_sum)


_turned_sum8, _turned_sum16 = _turned_sum(8), _turned_sum(16)


@compiled
def _turned_sums(e: Any, row: int, count: int, start: Int, line: Any) -> None:
    """line[i] = sum over the first ``count`` lines j of e[row] of e[row, j, (start[j] + i) mod nb]."""
    nb, size = e.shape[2], e.itemsize
    lines = e.ctypes.data + row * e.shape[1] * nb * size
    for first in range(0, nb, 64 // size):
        if size == 1:
            _turned_sum8(lines, count, start.ctypes.data, nb, first, line.ctypes.data)
        else:
            _turned_sum16(lines, count, start.ctypes.data, nb, first, line.ctypes.data)


@compiled
def counts(e: Any, c: Int, keep: Byte, out: Any) -> None:
    """out[r, b] = sum over j with keep[r, j] of e[r, j, (c[r, j] - b) mod nb], in the ring of e's dtype; n >= 1.

    The entries are turned down to start at c and added; out is that sum read backwards.
    """
    rows, n, nb = e.shape
    start, line = np.empty(n, np.int64), np.empty(nb, e.dtype)
    for r in range(rows):
        for j in range(n):
            start[j] = (c[r, j] & (nb - 1) if nb & (nb - 1) == 0 else c[r, j] % nb) if keep[r, j] else -1
        _turned_sums(e, r, n, start, line)
        out[r, 0] = line[0]
        for b in range(1, nb):
            out[r, b] = line[nb - b]


@compiled
def suffix(counts: Any, out: Any) -> None:
    """out[r, b] = counts[r, b] + out[r, b + 1]."""
    rows, nb = counts.shape
    for r in range(rows):
        total = counts[r, 0] - counts[r, 0]
        for b in range(nb - 1, -1, -1):
            total += counts[r, b]
            out[r, b] = total


@compiled
def deal(e0: Any, position: Int, out: Any) -> None:
    """out = one-hot(position) - e0."""
    rows, nb = e0.shape
    for r in range(rows):
        for b in range(nb):
            out[r, b] = -e0[r, b]
        out[r, position[r] % nb] += 1


@compiled
def pick(e: Byte, c: Int, out: Byte) -> None:
    """out[r] = bit c[r] of row r."""
    size = 8 * e.shape[1]
    for r in range(e.shape[0]):
        at = c[r] % size
        out[r] = e[r, at >> 3] >> (at & 7) & 1


@compiled
def rotate(x: Byte, by: Int, out: Byte) -> None:
    """out[r, i] = x[r, (i - by[r]) mod nb]."""
    rows, nb = x.shape
    lines = x.reshape(rows, 1, nb)
    start = np.empty(1, np.int64)
    for r in range(rows):
        start[0] = -by[r] & (nb - 1) if nb & (nb - 1) == 0 else (nb - by[r] % nb) % nb  # -by may not exist
        _turned_sums(lines, r, 1, start, out[r])
