"""Vectors over F_p, p a prime of [2^60, 2^61), and the random subset sums whose quotients tie integers to it.

What the proofs of malicious_3pc need of a prime field: the rounds of a sum-check (``cross``, ``fold``, ``inner``),
weights from random bits, and sums of claims a + b = Σ u·v mod 2^64 over 56 random subsets as integers. Vectors are
numpy uint64, elements below p unless a function says that it takes any words; single elements are Python integers.
Every function has its definition in ``field_reference``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mpc_ray.errors import InputError

from . import field_loops as loops
from .field_loops import BYTES, Word
from .field_prime import HIGH, LOW, is_prime
from .field_vectors import FAST

SUBSETS = 8 * BYTES
"""Subsets of one chunk of claims: 56 bits a claim decide which it is in."""

RANDOM_BYTES = 24
"""Random bytes that one element takes: 192 bits modulo p are uniform up to 2^-131."""


@dataclass(frozen=True)
class PrimeField:
    """F_p and its constants. Raises InputError unless p is a prime of [2^60, 2^61)."""

    p: int
    _p: np.uint64 = field(init=False, repr=False)
    _inverse: np.uint64 = field(init=False, repr=False)
    _reduce16: Word = field(init=False, repr=False)
    element_bytes = 8
    random_bytes = RANDOM_BYTES

    def __post_init__(self) -> None:
        if not LOW <= self.p < HIGH or not is_prime(self.p):
            raise InputError("a modulus that is no prime of 61 bits", remedy="draw it with uniform_prime")
        put = object.__setattr__
        put(self, "_p", np.uint64(self.p))
        put(self, "_inverse", np.uint64(-pow(self.p, -1, 1 << 64) % (1 << 64)))
        put(self, "_reduce16", np.array([(i << 60) % self.p for i in range(16)], np.uint64))

    def add(self, x: int, y: int) -> int:
        return (x + y) % self.p

    def sub(self, x: int, y: int) -> int:
        return (x - y) % self.p

    def mul(self, x: int, y: int) -> int:
        return x * y % self.p

    def element(self, raw: bytes, nonzero: bool = False) -> int:
        """A uniform element from ``random_bytes`` uniform bytes; with ``nonzero`` a uniform one of the others."""
        number = int.from_bytes(raw, "little")
        return number % (self.p - 1) + 1 if nonzero else number % self.p

    def valid(self, x: int) -> bool:
        """Whether a word stands for an element."""
        return x < self.p

    def montgomery(self, elements: Sequence[int]) -> Word:
        """Elements times 2^64: the form in which weights and coefficients are multiplied."""
        return np.array([(x << 64) % self.p for x in elements], np.uint64)

    def cross(self, u: Word, v: Word) -> list[int]:
        """The 4x4 matrix M[j][k] = Σ_b u[4b + j]·v[4b + k], row by row; 4 divides the length."""
        u, v = np.ascontiguousarray(u), np.ascontiguousarray(v)
        whole = u.size & -8 if FAST else 0
        m = np.zeros(16, np.uint64)
        loops.cross4(u[whole:], v[whole:], self._p, self._inverse, m)
        found = [(int(x) << 64) % self.p for x in m]
        if whole:
            sums = np.zeros((96, 2), np.uint64)
            loops.cross4_limbs(u[:whole], v[:whole], sums)
            for i, pair in enumerate(sums):
                turned, limb, lane = i // 24, i // 8 % 3, i % 8
                j = lane % 4
                found[4 * j + (j + turned) % 4] += exact(pair) << 52 * limb
        return [x % self.p for x in found]

    def coefficients(self, elements: Sequence[int]) -> Word:
        """What ``fold`` multiplies by, from the elements."""
        return self.montgomery(elements)

    def fold(self, u: Word, c: Word) -> Word:
        """out[b] = Σ_j c_j·u[r b + j] for r ``coefficients``; what lies past the end of u counts as zero."""
        r = c.size
        out = np.empty(-(-u.size // r), np.uint64)
        if r == 4 and u.size % 4 == 0:
            loops.fold4(u, c, self._p, self._inverse, out)
        else:
            loops.fold_wide(u, c, self._p, self._inverse, self._reduce16, out)
        return out

    def inner(self, u: Word, v: Word) -> int:
        """Σ u·v."""
        return (int(loops.inner(u, v, self._p, self._inverse)) << 64) % self.p

    def reduce(self, x: Word, out: Word) -> None:
        """out = x mod p, x any words; both flat."""
        loops.reduce_all(np.ascontiguousarray(x), self._p, self._reduce16, out)

    def scale_rows(self, w: Word, u: Word, out: Word) -> None:
        """out[g, t] = w[g]·u[g, t]; u any words (n, t), w in Montgomery form."""
        loops.scale_rows(w, u, self._p, self._inverse, out)

    def combine_rows(self, powers: Sequence[int], x: Word) -> Word:
        """Σ_r powers[r]·x[r]; x any words (r, k) -> (k)."""
        out = np.empty(x.shape[1], np.uint64)
        loops.combine_rows(self.montgomery(powers), x, self._p, self._inverse, out)
        return out

    def weight_table(self, powers: Sequence[int]) -> Word:
        """What ``weights`` looks up: (7, 256) sums of at most 56 weights of subsets."""
        if len(powers) > SUBSETS:
            raise InputError(f"{len(powers)} subsets", remedy=f"use {SUBSETS} at most")
        table = np.zeros((BYTES, 256), np.uint64)
        loops.weight_table(self.montgomery(powers), self._p, table)
        return table

    def weights(self, bits: Word, table: Word, out: Word) -> None:
        """out[g] = Σ_t bit_t(bits[g])·power_t, in Montgomery form."""
        loops.weights(np.ascontiguousarray(bits), table, self._p, self._reduce16, out)

    def unweighted(self, total: Word) -> int:
        """The sum of ``weighted_sum`` as an element, its weights out of Montgomery form."""
        return exact(total) * pow(1 << 64, -1, self.p) % self.p


def weighted_sum(w: Word, a: Word, total: Word) -> None:
    """total += Σ w·a, an exact integer in three words; any words."""
    loops.weighted_sum(w, a, total)


def exact(words: Word) -> int:
    """The integer of a line of words, the lowest first."""
    return int.from_bytes(words.tobytes(), "little")


def new_sums() -> Word:
    """Room for the sums of ``add_quotients``: of low halves, and of high ones."""
    return np.zeros((2, SUBSETS), np.uint64)


def add_quotients(a: Word, b: Word, u: Sequence[Word], v: Sequence[Word], bits: Word, sums: Word) -> None:
    """Add N_g = ⌊(Σ u[i][g, t]·v[i][g, t] - a[g] - b[g]) / 2^64⌋ to the sums of g's subsets; words are read as
    integers of [0, 2^64). a, b, bits (n), each u[i], v[i] (n, t_i); 2^31 products in all at most."""
    if len(u) > 2:
        u, v = [np.concatenate(u, 1)], [np.concatenate(v, 1)]
    none = [np.empty((a.size, 0), np.uint64)] * 2
    u, v = [*u, *none], [*v, *none]
    loops.quotient_sums(a, b, u[0], v[0], u[1], v[1], np.ascontiguousarray(bits), sums)


def less_products(z: Word, f: Word, x: Word, y: Word) -> Word:
    """z - f - Σ_t x[:, t]·y[:, t] mod 2^64; z, f (n), x, y (n, t)."""
    out = np.empty(z.size, np.uint64)
    loops.less_products(z, f, x, y, out)
    return out


def quotients(sums: Word) -> list[int]:
    """q_t = -Σ N_g over the claims of subset t, for all 56."""
    low, high = sums[0], sums[1].view(np.int64)
    return [-(int(x) + (int(y) << 32)) for x, y in zip(low, high, strict=True)]


def polynomial_products(x: Word, y: Word, x2: Word, y2: Word) -> list[int]:
    """The integers Σ over e + h = d of ⟨x[e], y[h]⟩ + ⟨y2[e], x2[h]⟩ for d = 0 … 2s - 2; all (s, k), any words."""
    total = np.zeros((2 * len(x) - 1, 3), np.uint64)
    loops.polynomial_products(x, y, x2, y2, total)
    return [exact(line) for line in total]
