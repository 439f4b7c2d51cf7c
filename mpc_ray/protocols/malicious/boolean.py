"""Claims a ⊕ b = (u1 & v1) ⊕ (u2 & v2) on words of 64 gates as one inner product over GF(2^64).

Blocks of 8 words. Coin 1 gives every block a weight ω_b and the words of a block weights η_0 = 1, η_1 … η_7. With
U_b = 8 words u1, 8 words u2 and V_b alike, the claim is Σ_j η_j·D[j][j] = Σ_b ω_b Σ_j η_j (a ⊕ b)_{b,j} (η_{j+8} =
η_j), where D[j][k] = Σ_b ω_b·(U_{b,j} & V_{b,k}), the 64 bits of the AND read as one element. P shares D, and coin 2
folds it: 512 gates become 64 entries u[64b + t] = ω_b·x^t·Σ_j λ_j·bit_t(U_{b,j}), v[64b + t] = Σ_k
μ_k·bit_t(V_{b,k}). No prime, no quotient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc_ray.kernels import gf64
from mpc_ray.kernels.gf64 import BLOCK, BinaryField
from mpc_ray.protocols.malicious.chunks import Boolean
from mpc_ray.protocols.malicious.keys import coin_words
from mpc_ray.protocols.malicious.sumcheck import Folder, array

Word = NDArray[np.uint64]

FIELD = BinaryField()
WORD_BLOCK = 1 << 12
"""Words whose entries are made together."""


@dataclass(frozen=True)
class Weights:
    """What coin 1 chooses: omega (blocks), eta (16)."""

    omega: Word
    eta: list[int]


def weights(coin: bytes, words: int, bits: int = 64) -> Weights:
    """ω_b, and η. ``bits`` below 64 are for tests alone: that many bits of ω, and η = 1, to see the error's rate."""
    omega = coin_words(coin, "omega", words // BLOCK)
    if bits < 64:
        return Weights(omega & np.uint64((1 << bits) - 1), [1] * 16)
    half = [1, *(int(x) for x in coin_words(coin, "eta", 7))]
    return Weights(omega, half + half)


def fold_coins(coin: bytes) -> tuple[list[int], list[int]]:
    """λ, μ of the first round: 16 elements each, from coin 2."""
    drawn = [int(x) for x in coin_words(coin, "fold", 32)]
    return drawn[:16], drawn[16:]


@dataclass
class Side:
    """A verifier's words of a chunk, padded with zeros to whole blocks: u1, u2 and a, or v1, v2 and b."""

    first: Word
    second: Word
    sums: Word


def left_side(chunk: Boolean, own: bool) -> Side:
    """u1 = x, u2 = y and a = z ⊕ F ⊕ (x & y) of the prover's ``own`` piece, or A's next.

    Where a record has no y, u2 = 0 and a = z ⊕ F.
    """
    side = Side(*(np.zeros(chunk.words, np.uint64) for _ in range(3)))
    at = 0
    for part in chunk.parts:
        x, y, z = part.pieces(own)
        place = slice(at, at + part.count)
        side.first[place] = x
        side.sums[place] = z ^ part.masks[0 if own else 1]
        if y is not None:
            side.second[place] = y
            side.sums[place] ^= x & y
        at += part.count
    return side


def right_side(chunk: Boolean, own: bool) -> Side:
    """v1 = y, v2 = x and b = F of B's ``own`` piece, or the prover's next.

    Where a record has no y, v1 = x and v2 = 0.
    """
    side = Side(*(np.zeros(chunk.words, np.uint64) for _ in range(3)))
    at = 0
    for part in chunk.parts:
        x, y, _ = part.pieces(own)
        place = slice(at, at + part.count)
        side.first[place] = x if y is None else y
        side.second[place] = 0 if y is None else x
        side.sums[place] = part.masks[0 if own else 1]
        at += part.count
    return side


def first_claim(w: Weights, sums: Word) -> int:
    """A verifier's share Σ_b ω_b Σ_j η_j·sums[8b + j]."""
    return FIELD.inner(array(w.eta[:BLOCK]), array(gf64.weighted_words(w.omega, sums)))


def matrix(w: Weights, left: Side, right: Side) -> list[int]:
    """P's D, 256 entries row by row."""
    return gf64.cross_words(w.omega, (left.first, left.second), (right.first, right.second))


def prover_vectors(
    w: Weights, left: Side, right: Side, lam: Sequence[int], mu: Sequence[int]
) -> tuple[Word, Word]:
    """u and v after the first round."""
    u, v = np.empty(8 * left.first.size, np.uint64), np.empty(8 * left.first.size, np.uint64)
    gf64.fold_words(left.first, left.second, lam, w.omega, u)
    gf64.fold_words(right.first, right.second, mu, None, v)
    return u, v


def verifier_vector(
    side: Side, coefficients: Sequence[int], omega: Word | None, rounds: Sequence[Sequence[int]]
) -> Word:
    """A's u (with omega) or B's v (without) after the first round and all others, made and folded in one pass."""
    folder = Folder(FIELD, 8 * side.first.size, rounds, 8 * WORD_BLOCK)
    for start in range(0, side.first.size, WORD_BLOCK):
        stop = min(start + WORD_BLOCK, side.first.size)
        weights = None if omega is None else omega[start // BLOCK : stop // BLOCK]
        count = 8 * (stop - start)
        gf64.fold_words(
            side.first[start:stop], side.second[start:stop], coefficients, weights, folder.room(count)
        )
        folder.put(count)
    return folder.finish()
