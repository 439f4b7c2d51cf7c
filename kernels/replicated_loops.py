"""The compiled loops of ``replicated`` over flat int64 arrays; sums and products wrap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled

Int = NDArray[np.int64]


@compiled
def product_summand(x0: Int, x1: Int, y0: Int, y1: Int, f0: Int, f1: Int, out: Int) -> None:
    """out = x0 (y0 + y1) + x1 y0 + f0 - f1."""
    for i in range(out.size):
        out[i] = x0[i] * (y0[i] + y1[i]) + x1[i] * y0[i] + f0[i] - f1[i]


@compiled
def masked_summand(z: Int, f0: Int, f1: Int, out: Int) -> None:
    """out = z + f0 - f1."""
    for i in range(out.size):
        out[i] = z[i] + f0[i] - f1[i]


@compiled
def truncate_owner(x0: Int, x1: Int, c0: int, c1: int, f: Int, out: Int) -> None:
    """out[0] = carry of the two top bits - f[0]; out[1] = product of the lower of them - f[1]."""
    for i in range(x0.size):
        h0 = np.uint64(x0[i] + c0) >> np.uint64(62)
        h1 = np.uint64(x1[i] + c1) >> np.uint64(62)
        out[0, i] = np.int64((h0 + h1) >> np.uint64(2)) - f[0, i]
        out[1, i] = np.int64(h0 & h1 & np.uint64(1)) - f[1, i]


@compiled
def truncate_others(x2: Int, c2: int, y: Int, cy: int, d: Int, mask: Int, out: Int) -> None:
    """out = (1 - 2 t2) d[0] + t2 (d[1] + t) + mask with top bits t2 of x2 + c2, t of y + cy."""
    for i in range(x2.size):
        t2 = np.int64(np.uint64(x2[i] + c2) >> np.uint64(63))
        t = np.int64(np.uint64(y[i] + cy) >> np.uint64(63))
        out[i] = (1 - 2 * t2) * d[0, i] + t2 * (d[1, i] + t) + mask[i]


@compiled
def top_bits_table(x: Int, constant: int, table: Int, out: Int) -> None:
    """out[m, i] = table[m, the two top bits of x[i] + constant]."""
    for i in range(x.size):
        h = np.uint64(x[i] + constant) >> np.uint64(62)
        for m in range(table.shape[0]):
            out[m, i] = table[m, h]


@compiled
def truncated_piece(x: Int, constant: int, w: Int, f: int, shift: int, out: Int) -> None:
    """out = (x + constant) >> f - w 2^(64 - f) - shift."""
    for i in range(out.size):
        high = np.int64(np.uint64(x[i] + constant) >> np.uint64(f))
        out[i] = high - (w[i] << np.int64(64 - f)) - shift


@compiled
def bits_owner(b0: Int, b1: Int, f: Int, out: Int) -> None:
    """out[j, e] = b0_j(e) xor b1_j(e) - f[j, e]."""
    for j in range(out.shape[0]):
        for first in range(0, out.shape[1], 64):
            word = np.uint64(b0[j, first >> 6] ^ b1[j, first >> 6])
            line, masks = out[j, first : first + 64], f[j, first : first + 64]
            for e in range(line.size):
                line[e] = np.int64((word >> np.uint64(e)) & np.uint64(1)) - masks[e]


@compiled
def bits_others(b2: Int, d: Int, coefficients: Int, out: Int) -> None:
    """out[r, e] += sum_j coefficients[r, j] (1 - 2 b2_j(e)) d[j, e]. Word by word, so that a line stays in
    registers.
    """
    signed = np.empty(64, np.int64)
    for first in range(0, d.shape[1], 64):
        for j in range(d.shape[0]):
            word = np.uint64(b2[j, first >> 6])
            line = d[j, first : first + 64]
            for e in range(line.size):
                minus = -np.int64((word >> np.uint64(e)) & np.uint64(1))
                signed[e] = (line[e] ^ minus) - minus
            for r in range(out.shape[0]):
                c = coefficients[r, j]
                if c != 0:
                    total = out[r, first : first + 64]
                    for e in range(total.size):
                        total[e] += c * signed[e]


@compiled
def bits_sum(b: Int, coefficients: Int, out: Int) -> None:
    """out[r, e] += sum_j coefficients[r, j] b_j(e)."""
    for first in range(0, out.shape[1], 64):
        for j in range(b.shape[0]):
            word = np.uint64(b[j, first >> 6])
            for r in range(out.shape[0]):
                c = coefficients[r, j]
                if c != 0 and word != 0:
                    total = out[r, first : first + 64]
                    for e in range(total.size):
                        total[e] += c & -np.int64((word >> np.uint64(e)) & np.uint64(1))


@compiled
def exp_owner(
    x0: Int, x1: Int, c0: int, c1: int, shift: int, table: Int, b0: Int, b1: Int, f: Int, out: Int
) -> None:
    """out[0] = table[p0] table[p1] - f[0]; out[1 + j] = that product times (b0_j xor b1_j) - f[1 + j]."""
    mask = np.uint64(table.size - 1)
    s = np.uint64(shift)
    both = np.empty(64, np.int64)
    for first in range(0, x0.size, 64):
        count = min(64, x0.size - first)
        for e in range(count):
            left = np.int64((np.uint64(x0[first + e] + c0) >> s) & mask)
            right = np.int64((np.uint64(x1[first + e] + c1) >> s) & mask)
            both[e] = table[left] * table[right]
            out[0, first + e] = both[e] - f[0, first + e]
        for j in range(b0.shape[0]):
            word = np.uint64(b0[j, first >> 6] ^ b1[j, first >> 6])
            line, masks = out[1 + j, first : first + 64], f[1 + j, first : first + 64]
            for e in range(line.size):
                line[e] = (both[e] & -np.int64((word >> np.uint64(e)) & np.uint64(1))) - masks[e]


@compiled
def exp_others(
    x2: Int, c2: int, shift: int, table: Int, steps: Int, b2: Int, d: Int, mask: Int, out: Int
) -> None:
    """out = table[p2] sum_j steps[j] (b2_j d[0] + (1 - 2 b2_j) d[1 + j]) + mask."""
    low = np.uint64(table.size - 1)
    s = np.uint64(shift)
    total = np.empty(64, np.int64)
    for first in range(0, x2.size, 64):
        count = min(64, x2.size - first)
        total[:] = 0
        whole = d[0, first : first + 64]
        for j in range(b2.shape[0]):
            word = np.uint64(b2[j, first >> 6])
            step, line = steps[j], d[1 + j, first : first + 64]
            for e in range(line.size):
                minus = -np.int64((word >> np.uint64(e)) & np.uint64(1))
                total[e] += step * ((whole[e] & minus) + ((line[e] ^ minus) - minus))
        for e in range(count):
            position = np.int64((np.uint64(x2[first + e] + c2) >> s) & low)
            out[first + e] = table[position] * total[e] + mask[first + e]
