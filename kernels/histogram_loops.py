"""The compiled loops of ``histogram``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled

Int = NDArray[np.int64]
Byte = NDArray[np.uint8]


@compiled
def counts(e: Any, c: Int, keep: Byte, out: Any) -> None:
    """out[r, b] += keep[r, j] * e[r, j, (c[r, j] - b) mod nb], in the ring of e's dtype; out starts as zeros.

    The rows are added reversed into a line of two turns, of which out is the end: two plain slices a row, no modulus.
    """
    rows, n, nb = e.shape
    for r in range(rows):
        total = out[r]
        for j in range(n):
            if keep[r, j]:
                start = c[r, j] % nb
                line = e[r, j]
                # b = 0 .. start reads line[start - b], b = start + 1 .. nb - 1 reads line[start + nb - b]
                first, second = line[: start + 1][::-1], line[start + 1 :][::-1]
                for b in range(start + 1):
                    total[b] += first[b]
                for b in range(nb - start - 1):
                    total[start + 1 + b] += second[b]


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
    for r in range(rows):
        turn = by[r] % nb
        for i in range(turn):
            out[r, i] = x[r, nb - turn + i]
        for i in range(nb - turn):
            out[r, turn + i] = x[r, i]
