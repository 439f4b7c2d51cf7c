"""The compiled one-pass loops of ``elementwise`` over flat int64 arrays; sums and products wrap."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled

Int = NDArray[np.int64]


@compiled
def add_with(a: Int, b: Int, constant: int, out: Int) -> None:
    """out = a + b + constant."""
    for i in range(out.size):
        out[i] = a[i] + b[i] + constant


@compiled
def truncate_public(c: Int, f: int, high: Int, g: Int) -> None:
    """high = (c >> f logical) - 2^(62 - f); g = 1 - top bit."""
    offset = np.int64(1) << np.int64(62 - f)
    for i in range(c.size):
        bits = np.uint64(c[i])
        high[i] = np.int64(bits >> np.uint64(f)) - offset
        g[i] = np.int64(1) - np.int64(bits >> np.uint64(63))


@compiled
def open_truncate(mine: Int, theirs: Int, f: int, high: Int, g: Int) -> None:
    """``truncate_public`` of mine + theirs."""
    offset = np.int64(1) << np.int64(62 - f)
    for i in range(mine.size):
        bits = np.uint64(mine[i] + theirs[i])
        high[i] = np.int64(bits >> np.uint64(f)) - offset
        g[i] = np.int64(1) - np.int64(bits >> np.uint64(63))


@compiled
def multiply_mask(x: Int, y: Int, mask: Int, constant: int, out: Int) -> None:
    """out = x y + mask + constant."""
    for i in range(out.size):
        out[i] = x[i] * y[i] + mask[i] + constant


@compiled
def subtract_with(a: Int, b: Int, constant: int, out: Int) -> None:
    """out = a - b + constant."""
    for i in range(out.size):
        out[i] = a[i] - b[i] + constant


@compiled
def truncate_dealer(r: Int, f: int, high: Int, top: Int) -> None:
    """high = r >> f logical; top = r >> 63 logical."""
    for i in range(r.size):
        bits = np.uint64(r[i])
        high[i] = np.int64(bits >> np.uint64(f))
        top[i] = np.int64(bits >> np.uint64(63))


@compiled
def truncated_share(public: Int, has_public: bool, g: Int, h: Int, b: Int, f: int, out: Int) -> None:
    """out = (public) - h + ((g b) << (64 - f))."""
    shift = np.int64(64 - f)
    if has_public:
        for i in range(out.size):
            out[i] = public[i] - h[i] + ((g[i] * b[i]) << shift)
    else:
        for i in range(out.size):
            out[i] = ((g[i] * b[i]) << shift) - h[i]


@compiled
def polynomial_parts(a: Int, c: Int, out: Int) -> None:
    """out[i, row] = (-1)^i sum_{k >= i} binom(k, i) c[row]^(k - i) a[row, k]: shifts the polynomial by c in place,
    d (d + 1) / 2 multiply-adds (Horner's rule repeated), then signs. Degrees 1 and 2 are written out."""
    rows, terms = a.shape
    if terms == 2:
        for row in range(rows):
            out[0, row] = a[row, 0] + c[row] * a[row, 1]
            out[1, row] = -a[row, 1]
    elif terms == 3:
        for row in range(rows):
            x, middle = c[row], a[row, 1] + c[row] * a[row, 2]
            out[0, row] = a[row, 0] + x * middle
            out[1, row] = -(middle + x * a[row, 2])
            out[2, row] = a[row, 2]
    else:
        line = np.empty(terms, np.int64)
        for row in range(rows):
            for k in range(terms):
                line[k] = a[row, k]
            for i in range(terms - 1):
                for k in range(terms - 2, i - 1, -1):
                    line[k] += c[row] * line[k + 1]
            for i in range(terms):
                out[i, row] = -line[i] if i & 1 else line[i]


@compiled
def powers(s: Int, r: Int, out: Int) -> None:
    """out[i] = s r^i."""
    for row in range(s.size):
        value = s[row]
        for i in range(out.shape[0]):
            out[i, row] = value
            value *= r[row]
