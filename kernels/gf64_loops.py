"""Compiled bodies of ``gf64``: vectors over GF(2^64), and AND gates packed 64 a word.

A product is a carry-less one of 128 bits, reduced modulo x^64 + x^4 + x^3 + x + 1; sums of products are reduced once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled
from .field_wide import HARDWARE, carry_less, mul_wide
from .gf64_vectors import FAST, cross_lanes, fold4_lanes, fold_block, fold_lanes, weighted_block

Word = NDArray[np.uint64]
U = np.uint64

_ZERO = U(0)
_HOLES = U(0x1111111111111111)
_LOW32 = U(0xFFFFFFFF)


@compiled
def plain_product(x: np.uint64, y: np.uint64) -> tuple[np.uint64, np.uint64]:
    """The carry-less product from integer products of operands with holes: every fourth bit, of y 32 bits at a time, so
    that at most 8 ones meet in one place and their count stays within its hole."""
    low = high = _ZERO
    for half in range(2):
        y32 = (y >> U(32 * half)) & _LOW32
        for r in range(4):
            l0 = h0 = _ZERO
            for i in range(4):
                j = (r - i) & 3
                lo, hi = mul_wide(x & (_HOLES << U(i)), y32 & (_HOLES << U(j)))
                l0 ^= lo
                h0 ^= hi
            l0 &= _HOLES << U(r)
            h0 &= _HOLES << U(r)
            if half:
                h0 = (h0 << U(32)) | (l0 >> U(32))
                l0 = l0 << U(32)
            low ^= l0
            high ^= h0
    return low, high


clmul = carry_less if HARDWARE else plain_product


@compiled
def reduced(low: np.uint64, high: np.uint64) -> np.uint64:
    """A polynomial of 128 bits modulo x^64 + x^4 + x^3 + x + 1."""
    high ^= (high >> U(63)) ^ (high >> U(61)) ^ (high >> U(60))
    return low ^ high ^ (high << U(1)) ^ (high << U(3)) ^ (high << U(4))


@compiled
def multiply(x: np.uint64, y: np.uint64) -> np.uint64:
    """x·y."""
    low, high = clmul(x, y)
    return reduced(low, high)


@compiled
def cross4(u: Word, v: Word, m: Word) -> None:
    """m[4 j + k] ^= Σ_b u[4 b + j]·v[4 b + k]; of a length that 4 divides, both contiguous."""
    whole = u.size & -8
    if FAST and whole:
        sums = np.empty((2, 4, 4, 2), np.uint64)
        cross_lanes(u.ctypes.data, v.ctypes.data, whole >> 3, sums.ctypes.data)
        for s in range(2):
            for i in range(4):
                for pair in range(4):
                    j = 2 * (pair & 1) + (i & 1 if i < 2 else i == 2)
                    k = 2 * ((pair & 1) ^ s) + (i & 1 if i < 2 else i == 3)
                    m[4 * j + k] ^= reduced(sums[s, i, pair, 0], sums[s, i, pair, 1])
    else:
        whole = 0
    for j in range(4):
        l0 = l1 = l2 = l3 = h0 = h1 = h2 = h3 = _ZERO
        for b in range(whole, u.size, 4):
            x = u[b + j]
            low, high = clmul(x, v[b])
            l0, h0 = l0 ^ low, h0 ^ high
            low, high = clmul(x, v[b + 1])
            l1, h1 = l1 ^ low, h1 ^ high
            low, high = clmul(x, v[b + 2])
            l2, h2 = l2 ^ low, h2 ^ high
            low, high = clmul(x, v[b + 3])
            l3, h3 = l3 ^ low, h3 ^ high
        m[4 * j] ^= reduced(l0, h0)
        m[4 * j + 1] ^= reduced(l1, h1)
        m[4 * j + 2] ^= reduced(l2, h2)
        m[4 * j + 3] ^= reduced(l3, h3)


@compiled
def fold(u: Word, c: Word, out: Word) -> None:
    """out[b] = Σ_j c[j]·u[r b + j] for r = c.size coefficients; entries past the end of u are zero. All contiguous."""
    r, done = c.size, 0
    if FAST and r == 4 and u.size >= 32:
        twice = np.empty(8, np.uint64)
        twice[:4], twice[4:] = c, c
        done = (u.size >> 5) << 3
        fold4_lanes(u.ctypes.data, twice.ctypes.data, done >> 3, out.ctypes.data)
        twice[0] = _ZERO  # a use after the last address, or numba would have freed it
    elif FAST and r & 7 == 0:
        sums = np.empty(8, np.uint64)
        done = u.size // r
        for b in range(done):
            fold_lanes(u[r * b :].ctypes.data, c.ctypes.data, r >> 3, sums.ctypes.data)
            low, high = sums[0] ^ sums[2] ^ sums[4] ^ sums[6], sums[1] ^ sums[3] ^ sums[5] ^ sums[7]
            out[b] = reduced(low, high)
    for b in range(done, out.size):
        low = high = _ZERO
        start = r * b
        for j in range(min(r, u.size - start)):
            lo, hi = clmul(c[j], u[start + j])
            low ^= lo
            high ^= hi
        out[b] = reduced(low, high)


@compiled
def inner(u: Word, v: Word) -> np.uint64:
    """Σ u·v."""
    low = high = _ZERO
    for i in range(u.size):
        lo, hi = clmul(u[i], v[i])
        low ^= lo
        high ^= hi
    return reduced(low, high)


@compiled
def cross_words(omega: Word, u1: Word, u2: Word, v1: Word, v2: Word, d: Word) -> None:
    """d[16 j + k] ^= Σ_b omega[b]·(U[b, j] & V[b, k]), the words read as elements.

    Block b of U is 8 words of u1, then 8 of u2; of V 8 of v1, then 8 of v2.
    """
    low = np.zeros((16, 16), np.uint64)
    high = np.zeros((16, 16), np.uint64)
    for b in range(omega.size):
        w = omega[b]
        for j in range(16):
            x = u1[8 * b + j] if j < 8 else u2[8 * b + j - 8]
            for k in range(8):
                lo, hi = clmul(w, x & v1[8 * b + k])
                low[j, k] ^= lo
                high[j, k] ^= hi
                lo, hi = clmul(w, x & v2[8 * b + k])
                low[j, k + 8] ^= lo
                high[j, k + 8] ^= hi
    for j in range(16):
        for k in range(16):
            d[16 * j + k] ^= reduced(low[j, k], high[j, k])


@compiled
def byte_tables(c: Word, tables: Word) -> None:
    """tables[h, k] = the sum of c[8 h + i] over the bits i of k."""
    for h in range(tables.shape[0]):
        tables[h, 0] = _ZERO
        for i in range(8):
            for k in range(1 << i):
                tables[h, (1 << i) + k] = tables[h, k] ^ c[8 * h + i]


@compiled
def _turned(x: np.uint64) -> np.uint64:
    """An 8x8 matrix of bits, a row a byte, transposed."""
    t = (x ^ (x >> U(7))) & U(0x00AA00AA00AA00AA)
    x = x ^ t ^ (t << U(7))
    t = (x ^ (x >> U(14))) & U(0x0000CCCC0000CCCC)
    x = x ^ t ^ (t << U(14))
    t = (x ^ (x >> U(28))) & U(0x00000000F0F0F0F0)
    return x ^ t ^ (t << U(28))


@compiled
def fold_words(first: Word, second: Word, tables: Word, omega: Word, weighted: bool, out: Word) -> None:
    """out[64 b + t] = Σ_j c_j·bit t of word j of block b, times omega[b]·x^t if ``weighted``.

    Block b is 8 words of ``first``, then 8 of ``second``; ``tables`` are ``byte_tables`` of the 16 c_j. All contiguous.
    """
    if FAST:
        matrices = np.zeros((2, 8), np.uint64)
        for half in range(2):
            for j in range(8):
                c = tables[half, 1 << j]
                for t in range(64):
                    matrices[half, t >> 3] |= ((c >> U(t)) & U(1)) << U(8 * (7 - (t & 7)) + j)
        for b in range(first.size // 8):
            where = first[8 * b :].ctypes.data, second[8 * b :].ctypes.data, matrices.ctypes.data
            if weighted:
                weighted_block(where[0], where[1], where[2], omega[b], out[64 * b :].ctypes.data)
            else:
                fold_block(where[0], where[1], where[2], _ZERO, out[64 * b :].ctypes.data)
        return
    for b in range(first.size // 8):
        w = omega[b] if weighted else _ZERO
        for byte in range(8):
            shift = U(8 * byte)
            m0 = m1 = _ZERO
            for i in range(8):
                m0 |= ((first[8 * b + i] >> shift) & U(255)) << U(8 * i)
                m1 |= ((second[8 * b + i] >> shift) & U(255)) << U(8 * i)
            m0, m1 = _turned(m0), _turned(m1)
            for k in range(8):
                at = U(8 * k)
                total = tables[0, (m0 >> at) & U(255)] ^ tables[1, (m1 >> at) & U(255)]
                if weighted:
                    total = multiply(w, total)
                    w = (w << U(1)) ^ (U(0x1B) if w >> U(63) else _ZERO)
                out[64 * b + 8 * byte + k] = total


@compiled
def weighted_words(omega: Word, a: Word, totals: Word) -> None:
    """totals[j] ^= Σ_b omega[b]·a[8 b + j]."""
    for j in range(8):
        low = high = _ZERO
        for b in range(omega.size):
            lo, hi = clmul(omega[b], a[8 * b + j])
            low ^= lo
            high ^= hi
        totals[j] ^= reduced(low, high)
