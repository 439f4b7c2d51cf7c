"""Vectors over GF(2^64) = GF(2)[x] modulo x^64 + x^4 + x^3 + x + 1, and claims about AND gates packed 64 a word.

What the proofs of malicious_3pc need for Boolean gates. An element is a word: bit t is the coefficient of x^t.
Vectors are numpy uint64, single elements Python integers; every function has its definition in ``gf64_reference``.
Products use the processor's carry-less multiplication where it has one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import gf64_loops as loops
from .gf64_loops import Word

BLOCK = 8
"""Words of a block: a block's 512 gates share one weight."""


class BinaryField:
    """GF(2^64), with the methods of ``field.PrimeField`` that a sum-check uses."""

    element_bytes = 8
    random_bytes = 8

    def add(self, x: int, y: int) -> int:
        return x ^ y

    sub = add

    def mul(self, x: int, y: int) -> int:
        return int(loops.multiply(np.uint64(x), np.uint64(y)))

    def element(self, raw: bytes, nonzero: bool = False) -> int:
        """A uniform element from 8 uniform bytes; with ``nonzero`` 0 becomes 1, which is uniform up to 2^-64."""
        return int.from_bytes(raw, "little") or int(nonzero)

    def valid(self, x: int) -> bool:
        """Every word stands for an element."""
        return 0 <= x < 1 << 64

    def cross(self, u: Word, v: Word) -> list[int]:
        """The 4x4 matrix M[j][k] = Σ_b u[4b + j]·v[4b + k], row by row; 4 divides the length."""
        m = np.zeros(16, np.uint64)
        loops.cross4(np.ascontiguousarray(u), np.ascontiguousarray(v), m)
        return [int(x) for x in m]

    def coefficients(self, elements: Sequence[int]) -> Word:
        """What ``fold`` multiplies by, from the elements."""
        return np.array(elements, np.uint64)

    def fold(self, u: Word, c: Word) -> Word:
        """out[b] = Σ_j c_j·u[r b + j] for r ``coefficients``; what lies past the end of u counts as zero."""
        out = np.empty(-(-u.size // c.size), np.uint64)
        loops.fold(np.ascontiguousarray(u), c, out)
        return out

    def inner(self, u: Word, v: Word) -> int:
        """Σ u·v."""
        return int(loops.inner(u, v))


def cross_words(omega: Word, u: tuple[Word, Word], v: tuple[Word, Word]) -> list[int]:
    """The 16x16 matrix D[j][k] = Σ_b omega[b]·(U[b, j] & V[b, k]), row by row.

    omega (n), each of u and v (8 n): block b of U is 8 words of u[0] and 8 of u[1], likewise V.
    """
    d = np.zeros(256, np.uint64)
    loops.cross_words(omega, *u, *v, d)
    return [int(x) for x in d]


def fold_words(first: Word, second: Word, coefficients: Sequence[int], omega: Word | None, out: Word) -> None:
    """out[64 b + t] = Σ_j c[j]·bit t of word j of block b, for 16 coefficients; times omega[b]·x^t if omega is given.

    A block is 8 words of ``first``, then 8 of ``second`` (8 n each) -> out (64 n).
    """
    tables = np.empty((2, 256), np.uint64)
    loops.byte_tables(np.array(coefficients, np.uint64), tables)
    weights = np.empty(0, np.uint64) if omega is None else omega
    loops.fold_words(first, second, tables, weights, omega is not None, out)


def weighted_words(omega: Word, a: Word) -> list[int]:
    """Σ_b omega[b]·a[8 b + j] for j = 0 … 7; omega (n), a (8 n)."""
    totals = np.zeros(BLOCK, np.uint64)
    loops.weighted_words(omega, a, totals)
    return [int(x) for x in totals]
