"""The definitions of ``gf64`` in Python's integers: slow, plain, and what the compiled bodies must equal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from operator import xor

Words = Sequence[int]
MODULUS = 1 << 64 | 0b11011


def carry_less(x: int, y: int) -> int:
    """The product of two polynomials over GF(2)."""
    return total(x << i for i in range(y.bit_length()) if y >> i & 1)


def multiply(x: int, y: int) -> int:
    """The product of two elements."""
    product = carry_less(x, y)
    for i in reversed(range(64, 128)):
        if product >> i & 1:
            product ^= MODULUS << i - 64
    return product


def total(elements: Iterable[int]) -> int:
    """The sum of elements."""
    return reduce(xor, elements, 0)


def inner(u: Words, v: Words) -> int:
    """Σ u·v."""
    return total(multiply(x, y) for x, y in zip(u, v, strict=True))


def cross(u: Words, v: Words) -> list[int]:
    """M[j][k] = Σ_b u[4b + j]·v[4b + k]."""
    return [inner(u[j::4], v[k::4]) for j in range(4) for k in range(4)]


def fold(u: Words, c: Words) -> list[int]:
    """out[b] = Σ_j c[j]·u[r b + j]."""
    r = len(c)
    rows = [u[first : first + r] for first in range(0, len(u), r)]
    return [inner(c[: len(row)], row) for row in rows]


def cross_words(omega: Words, u: tuple[Words, Words], v: tuple[Words, Words]) -> list[int]:
    """D[j][k] = Σ_b omega[b]·(U[b, j] & V[b, k])."""
    left, right = _blocks(*u), _blocks(*v)
    return [
        total(multiply(w, x[j] & y[k]) for w, x, y in zip(omega, left, right, strict=True))
        for j in range(16)
        for k in range(16)
    ]


def fold_words(first: Words, second: Words, c: Words, omega: Words | None) -> list[int]:
    """out[64 b + t] = Σ_j c[j]·bit t of word j of block b, times omega[b]·x^t if given."""
    out = []
    for b, words in enumerate(_blocks(first, second)):
        for t in range(64):
            value = total(x for x, word in zip(c, words, strict=True) if word >> t & 1)
            out.append(value if omega is None else multiply(multiply(omega[b], 1 << t), value))
    return out


def weighted_words(omega: Words, a: Words) -> list[int]:
    """Σ_b omega[b]·a[8 b + j]."""
    return [inner(omega, a[j::8]) for j in range(8)]


def _blocks(first: Words, second: Words) -> list[list[int]]:
    return [[*first[i : i + 8], *second[i : i + 8]] for i in range(0, len(first), 8)]
