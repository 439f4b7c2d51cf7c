"""Compiled bodies of ``field``: vectors over F_p, p a prime of 61 bits, in Montgomery's arithmetic with R = 2^64.

Weights and fold coefficients are in Montgomery form (times R), data is plain, so a product of the two is plain again
and nothing is ever converted. ``reduce16[i]`` = i·2^60 mod p takes a 64-bit word below 2p without a division.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled
from .field_vectors import FAST, LANES_TURNS, cross_lanes, masked_sums, reduce_lanes, weigh_lanes
from .field_wide import add_wide, mac_wide, mac_wider, montgomery, mul_wide

Word = NDArray[np.uint64]
U = np.uint64

_ZERO, _SIXTY = U(0), U(60)
_LOW60 = U((1 << 60) - 1)
_HALF, _LOW32 = U(32), U((1 << 32) - 1)
BYTES = 7
"""Bytes of bits a claim: subsets are 56 at most, so that the sum of a claim's table entries stays below 2^64."""
LAZY = 32
"""Products below 2^122 that a 128-bit sum takes before it is reduced."""


@compiled
def _below(t: np.uint64, p: np.uint64) -> np.uint64:
    """t mod p for t < 2p, without a branch."""
    return min(t, t - p)


@compiled
def reduced(x: np.uint64, p: np.uint64, reduce16: Word) -> np.uint64:
    """x mod p, x any word: x = i·2^60 + low, and i·2^60 mod p + low < 2p."""
    return _below(reduce16[x >> _SIXTY] + (x & _LOW60), p)


@compiled
def reduce_all(x: Word, p: np.uint64, reduce16: Word, out: Word) -> None:
    """out = x mod p, flat; both contiguous."""
    whole = x.size & -8
    if FAST and whole:
        reduce_lanes(x.ctypes.data, p, reduce16.ctypes.data, out.ctypes.data, whole >> 3)
    else:
        whole = 0
    for i in range(whole, x.size):
        out[i] = reduced(x[i], p, reduce16)


@compiled
def scale_rows(w: Word, u: Word, p: np.uint64, inverse: np.uint64, out: Word) -> None:
    """out[g, t] = w[g]·u[g, t] mod p; w in Montgomery form, u any words."""
    for g in range(u.shape[0]):
        for t in range(u.shape[1]):
            low, high = mul_wide(w[g], u[g, t])
            out[g, t] = _below(montgomery(low, high, p, inverse), p)


@compiled
def combine_rows(w: Word, x: Word, p: np.uint64, inverse: np.uint64, out: Word) -> None:
    """out[c] = Σ_r w[r]·x[r, c] mod p; w in Montgomery form, x any words."""
    out[:] = _ZERO
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            low, high = mul_wide(w[r], x[r, c])
            out[c] = _below(out[c] + _below(montgomery(low, high, p, inverse), p), p)


@compiled
def weighted_sum(w: Word, a: Word, total: Word) -> None:
    """total += Σ w·a, exact: three words, the lowest first."""
    low, middle, high = total[0], total[1], total[2]
    for g in range(w.size):
        low, middle, high = mac_wider(low, middle, high, w[g], a[g])
    total[0], total[1], total[2] = low, middle, high


@compiled
def cross4_limbs(u: Word, v: Word, sums: Word) -> None:
    """What ``field_vectors.cross_lanes`` sums, over all of u and v (contiguous, of a length that 8 divides), added to
    sums: uint64 (96, 2), each a pair (low, high)."""
    part = np.empty(96, np.uint64)
    for first in range(0, u.size, 8 * LANES_TURNS):
        turns = min(LANES_TURNS, (u.size - first) // 8)
        cross_lanes(u[first:].ctypes.data, v[first:].ctypes.data, turns, part.ctypes.data)
        for i in range(96):
            sums[i, 0], sums[i, 1] = add_wide(sums[i, 0], sums[i, 1], part[i], _ZERO)


@compiled
def cross4(u: Word, v: Word, p: np.uint64, inverse: np.uint64, m: Word) -> None:
    """m[4 j + k] += 2^-64·Σ_b u[4 b + j]·v[4 b + k] mod p; u, v below p, of a length that 4 divides."""
    blocks = u.size // 4
    for j in range(4):
        for first in range(0, blocks, LAZY):
            l0 = l1 = l2 = l3 = h0 = h1 = h2 = h3 = _ZERO
            for b in range(first, min(blocks, first + LAZY)):
                x = u[4 * b + j]
                l0, h0 = mac_wide(l0, h0, x, v[4 * b])
                l1, h1 = mac_wide(l1, h1, x, v[4 * b + 1])
                l2, h2 = mac_wide(l2, h2, x, v[4 * b + 2])
                l3, h3 = mac_wide(l3, h3, x, v[4 * b + 3])
            m[4 * j] = (m[4 * j] + montgomery(l0, h0, p, inverse)) % p
            m[4 * j + 1] = (m[4 * j + 1] + montgomery(l1, h1, p, inverse)) % p
            m[4 * j + 2] = (m[4 * j + 2] + montgomery(l2, h2, p, inverse)) % p
            m[4 * j + 3] = (m[4 * j + 3] + montgomery(l3, h3, p, inverse)) % p


@compiled
def fold4(u: Word, c: Word, p: np.uint64, inverse: np.uint64, out: Word) -> None:
    """out[b] = Σ_j c[j]·u[4 b + j] mod p; c in Montgomery form, u below p."""
    c0, c1, c2, c3 = c[0], c[1], c[2], c[3]
    for b in range(out.size):
        low, high = mul_wide(c0, u[4 * b])
        low, high = mac_wide(low, high, c1, u[4 * b + 1])
        low, high = mac_wide(low, high, c2, u[4 * b + 2])
        low, high = mac_wide(low, high, c3, u[4 * b + 3])
        out[b] = _below(montgomery(low, high, p, inverse), p)


@compiled
def fold_wide(u: Word, c: Word, p: np.uint64, inverse: np.uint64, reduce16: Word, out: Word) -> None:
    """out[b] = Σ_j c[j]·u[r b + j] mod p for r = c.size coefficients at once; entries past the end of u are zero."""
    r = c.size
    for b in range(out.size):
        total = _ZERO
        for first in range(0, r, LAZY):
            low = high = _ZERO
            start = r * b + first
            for j in range(min(LAZY, r - first, u.size - start)):
                low, high = mac_wide(low, high, c[first + j], u[start + j])
            total = _below(total + reduced(montgomery(low, high, p, inverse), p, reduce16), p)
        out[b] = total


@compiled
def inner(u: Word, v: Word, p: np.uint64, inverse: np.uint64) -> np.uint64:
    """2^-64·Σ u·v mod p; u, v below p."""
    total = _ZERO
    for first in range(0, u.size, LAZY):
        low = high = _ZERO
        for i in range(first, min(u.size, first + LAZY)):
            low, high = mac_wide(low, high, u[i], v[i])
        total = (total + montgomery(low, high, p, inverse)) % p
    return total


@compiled
def quotient_sums(a: Word, b: Word, u: Word, v: Word, u2: Word, v2: Word, bits: Word, sums: Word) -> None:
    """For every t of 56: N_g = (Σ u[g]·v[g] + Σ u2[g]·v2[g] - a[g] - b[g]) / 2^64, rounded down, of every g with bit t
    of bits[g]: sums[0, t] += its low 32 bits, sums[1, t] += N_g >> 32 (signed). All uint64."""
    if not a.size:
        return
    low, high = np.empty(a.size, np.uint64), np.empty(a.size, np.uint64)
    for g in range(a.size):
        l0 = l1 = l2 = _ZERO
        for t in range(u.shape[1]):
            l0, l1, l2 = mac_wider(l0, l1, l2, u[g, t], v[g, t])
        for t in range(u2.shape[1]):
            l0, l1, l2 = mac_wider(l0, l1, l2, u2[g, t], v2[g, t])
        s, borrow = add_wide(a[g], _ZERO, b[g], _ZERO)  # a + b as a 65-bit integer
        if l0 < s:
            borrow += U(1)
        if l1 < borrow:
            l2 -= U(1)
        l1 -= borrow
        low[g], high[g] = l1 & _LOW32, (l1 >> _HALF) | (l2 << _HALF)
    masked_sums(bits.ctypes.data, low.ctypes.data, high.ctypes.data, a.size, sums.ctypes.data)
    low[0] = high[0] = _ZERO  # numba frees an array after its last use: this is one


@compiled
def less_products(z: Word, f: Word, x: Word, y: Word, out: Word) -> None:
    """out[g] = z[g] - f[g] - Σ_t x[g, t]·y[g, t] mod 2^64."""
    if x.shape[1] == 1:
        for g in range(z.size):
            out[g] = z[g] - f[g] - x[g, 0] * y[g, 0]
        return
    for g in range(z.size):
        total = z[g] - f[g]
        for t in range(x.shape[1]):
            total -= x[g, t] * y[g, t]
        out[g] = total


@compiled
def weight_table(powers: Word, p: np.uint64, table: Word) -> None:
    """table[j, k] = Σ of powers[8 j + i] over the bits i of k, mod p; powers past the end count as 0."""
    for j in range(table.shape[0]):
        table[j, 0] = _ZERO
        for i in range(8):
            power = powers[8 * j + i] if 8 * j + i < powers.size else _ZERO
            for k in range(1 << i):
                table[j, (1 << i) + k] = _below(table[j, k] + power, p)


@compiled
def weights(bits: Word, table: Word, p: np.uint64, reduce16: Word, w: Word) -> None:
    """w[g] = Σ_j table[j, byte j of bits[g]], mod p; bits and w contiguous."""
    whole = bits.size & -8
    if FAST and whole:
        halves = np.empty((2 * BYTES, 16), np.uint64)  # the same sums for half a byte
        for j in range(BYTES):
            for k in range(16):
                halves[2 * j, k], halves[2 * j + 1, k] = table[j, k], table[j, 16 * k]
        weigh_lanes(bits.ctypes.data, halves.ctypes.data, p, reduce16.ctypes.data, w.ctypes.data, whole >> 3)
        halves[0, 0] = _ZERO  # a use after the last address, or numba would have freed it
    else:
        whole = 0
    for g in range(whole, bits.size):
        word, total = bits[g], _ZERO
        for j in range(BYTES):
            total += table[j, (word >> U(8 * j)) & U(255)]
        w[g] = reduced(total, p, reduce16)


@compiled
def polynomial_products(x: Word, y: Word, x2: Word, y2: Word, total: Word) -> None:
    """total[d] += Σ over e + h = d of ⟨x[e], y[h]⟩ + ⟨y2[e], x2[h]⟩, exact: three words, the lowest first.

    x, y2 (s, k) are one side's, y, x2 (s, k) the other's.
    """
    for e in range(x.shape[0]):
        for h in range(y.shape[0]):
            low, middle, high = total[e + h, 0], total[e + h, 1], total[e + h, 2]
            for left, right in ((x[e], y[h]), (y2[e], x2[h])):
                for c in range(left.size):
                    low, middle, high = mac_wider(low, middle, high, left[c], right[c])
            total[e + h, 0], total[e + h, 1], total[e + h, 2] = low, middle, high
