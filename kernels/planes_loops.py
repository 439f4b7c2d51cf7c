"""The compiled loops of ``planes``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled

Int = NDArray[np.int64]


@compiled
def planes(x: Int, constant: int, t: int, out: Int) -> None:
    """out[i, line, w] gets bit t + i of elements 64 w … of x[line] + constant. ``out`` is zero before."""
    lines, length = x.shape
    n = out.shape[0]
    for line in range(lines):
        for w in range(out.shape[2]):
            first = 64 * w
            count = min(64, length - first)
            block = x[line, first : first + count]
            for i in range(n):
                word = np.uint64(0)
                shift = np.uint64(t + i)
                for e in range(block.size):
                    bit = (np.uint64(block[e] + constant) >> shift) & np.uint64(1)
                    word |= bit << np.uint64(e)
                out[i, line, w] = np.int64(word)


@compiled
def spread(plane: Int, out: Int) -> None:
    """out[line, e] = bit e of the line."""
    lines, length = out.shape
    for line in range(lines):
        for e in range(length):
            out[line, e] = (plane[line, e >> 6] >> np.int64(e & 63)) & 1


@compiled
def and_summand(x0: Int, x1: Int, y0: Int, y1: Int, f0: Int, f1: Int, out: Int) -> None:
    """out = x0 & (y0 ^ y1) ^ x1 & y0 ^ f0 ^ f1."""
    for i in range(out.size):
        out[i] = (x0[i] & (y0[i] ^ y1[i])) ^ (x1[i] & y0[i]) ^ f0[i] ^ f1[i]


@compiled
def pair_summand(x0: Int, x1: Int, f0: Int, f1: Int, out: Int) -> None:
    """out = x0 & x1 ^ f0 ^ f1."""
    for i in range(out.size):
        out[i] = (x0[i] & x1[i]) ^ f0[i] ^ f1[i]
