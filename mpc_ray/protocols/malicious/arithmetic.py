"""Claims a + b ≡ Σ u·v mod 2^64 of a whole chunk as one inner product modulo a random prime.

Coin 1 puts every single output into 56 random subsets and every matrix product between random 0/1 vectors, so that a
false claim survives in none of 56 sums with probability 2^-56 (a matrix: 2^-55). Read as integers, a true sum is a
multiple of 2^64: P shares the quotients. Only then does coin 2 choose a prime p of 61 bits and ρ, which merge all
sums into one claim modulo p: Σ_g w_g·Σ u·v = c_A + c_B, w_g = Σ_t bit_t·ρ^t. A false sum is no multiple of 2^64, so
it stays false modulo all but 4 of 2^54.6 primes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mpc_ray.kernels import field as kernel
from mpc_ray.kernels import ring
from mpc_ray.kernels.field import PrimeField
from mpc_ray.kernels.field_prime import CANDIDATES, uniform_prime
from mpc_ray.kernels.shrink import shrink
from mpc_ray.protocols.aby3.claims import MadePieces
from mpc_ray.protocols.malicious.chunks import Arithmetic
from mpc_ray.protocols.malicious.keys import coin_words, expand_coin
from mpc_ray.protocols.malicious.schedule import QUOTIENT_BYTES
from mpc_ray.protocols.malicious.stretches import Groups, Half, MatrixPart, Stretch
from mpc_ray.protocols.malicious.sumcheck import Folder

Word = NDArray[np.uint64]

BLOCK = 1 << 14
"""Entries that are worked on together: their arrays stay in the second-level cache."""
WINDOW = 1 << 15
"""Words of a stream that are expanded at a time: they stay in the second-level cache and cost no fresh pages."""
QUOTIENT_MASK_BYTES = 24
"""A's share of a quotient: uniform in [0, 2^192), while |q| < 2^91 in an honest run."""
_BOUND = 1 << 193


@dataclass(frozen=True)
class Merged:
    """What coin 2 chooses: the prime field, and the weights ρ^t of the sums."""

    f: PrimeField
    powers: list[int]


def merged(coin: bytes, quotients: int) -> Merged:
    """p uniform among the primes of [2^60, 2^61), ρ uniform modulo p."""
    f = PrimeField(uniform_prime(map(int, coin_words(coin, "prime", CANDIDATES))))
    rho = f.element(expand_coin(coin, "rho", f.random_bytes).tobytes())
    powers = [1]
    for _ in range(quotients - 1):
        powers.append(f.mul(powers[-1], rho))
    return Merged(f, powers)


def quotient_masks(raw: NDArray[np.uint8]) -> list[int]:
    """A's shares of the quotients."""
    data, size = raw.tobytes(), QUOTIENT_MASK_BYTES
    return [int.from_bytes(data[i : i + size], "little") for i in range(0, len(data), size)]


def quotients_to_wire(shares: Sequence[int]) -> bytes:
    """B's shares, 32 bytes each in two's complement."""
    return b"".join(q.to_bytes(QUOTIENT_BYTES, "little", signed=True) for q in shares)


def quotients_from_wire(data: bytes) -> list[int] | None:
    """B's shares of a message; None if one is 2^193 or more away from 0."""
    size = QUOTIENT_BYTES
    shares = [int.from_bytes(data[i : i + size], "little", signed=True) for i in range(0, len(data), size)]
    return shares if all(abs(q) < _BOUND for q in shares) else None


class Statement:
    """One proof's claims at one party: what coin 1 fixes, and sums that both later steps use."""

    def __init__(self, chunk: Arithmetic, prover: int, coin: bytes) -> None:
        self.chunk = chunk
        self.shape = chunk.shape(prover)
        self.stretches = chunk.of(prover)
        self.outputs = sum(s.count for s in self.stretches)
        self._coin = coin
        self.block = max([BLOCK, *(s.terms for s in self.stretches)])
        self._bits: tuple[int, Word] = 0, np.empty(0, np.uint64)

    def bits(self, start: int, stop: int) -> Word:
        """The subsets' bits of outputs ``start`` … ``stop`` - 1, expanded a window at a time."""
        first, window = self._bits
        if not first <= start or stop > first + window.size:
            first = start - start % 8
            count = min(max(WINDOW, stop - first), self.outputs - first)
            window = expand_coin(self._coin, "subsets", 8 * count, 8 * first).view(np.uint64)
            self._bits = first, window
        return window[start - first : stop - first]

    def vectors(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """R (vectors, rows) and C (vectors, columns) of 0 and 1 for a matrix of the chunk."""
        rows, columns = self.chunk.matrices[index].z.own.shape
        count = self.chunk.limits.vectors
        raw = expand_coin(self._coin, f"matrix {index}", -(-count * (rows + columns) // 8))
        bits = np.unpackbits(raw)[: count * (rows + columns)]
        return bits[: count * rows].reshape(count, rows), bits[count * rows :].reshape(count, columns)

    def steps(self) -> Iterator[tuple[Stretch, int, int]]:
        """(stretch, start, stop) of the single outputs in order, at most ``block`` entries at a time."""
        for stretch in self.stretches:
            step = max(1, self.block // stretch.terms)
            for start in range(0, stretch.count, step):
                yield stretch, start, min(start + step, stretch.count)

    def blocks(self, half: Callable[[Stretch], Half]) -> Iterator[tuple[Word, Word, Groups]]:
        """(bits, a, u) or (bits, b, v) of all single outputs, step by step."""
        rows, of, done = None, None, 0
        for stretch, start, stop in self.steps():
            if stretch is not of:
                rows, of = half(stretch), stretch
            assert rows is not None
            yield (self.bits(done, done + stop - start), *rows(start, stop))
            done += stop - start


def _words2(t: torch.Tensor) -> Word:
    return t.numpy().view(np.uint64)


def _shrunk(pieces: MadePieces, own: bool, vectors: NDArray[np.uint8], columns: bool) -> Word:
    piece = _words2(pieces.own if own else pieces.next)
    return shrink(vectors, piece.T if columns else piece)


def _coefficients(products: Word) -> list[int]:
    """Σ over e + h = d of products[e, h] mod 2^64, for d = 0 … 2s - 2."""
    s = len(products)
    total = np.zeros(2 * s - 1, np.uint64)
    for e, row in enumerate(products):
        total[e : e + s] += row
    return [int(x) for x in total]


def _between(r: NDArray[np.uint8], z: Word, c: NDArray[np.uint8]) -> Word:
    """R·Z·Cᵀ mod 2^64."""
    return shrink(c, shrink(r, z).T).T


@dataclass
class Shrunk:
    """One piece of a matrix product after coin 1: X' = R·X (s, k), Y' = C·Yᵀ (s, k), and its side's sums by d."""

    x: Word
    y: Word
    sums: list[int]


def left_matrix(part: MatrixPart, own: bool, r: NDArray[np.uint8], c: NDArray[np.uint8]) -> Shrunk:
    """a_d = Σ over e + h = d of R·(Z - F)·Cᵀ - X'·Y'ᵀ, of the prover's ``own`` piece, or A's next."""
    x, y = _shrunk(part.x, own, r, False), _shrunk(part.y, own, c, True)
    z = _words2(part.z.own if own else part.z.next)
    z = z - part.masks[0 if own else 1].reshape(z.shape)
    local = ring.matmul(torch.from_numpy(x.view(np.int64)), torch.from_numpy(y.view(np.int64)).mT)
    return Shrunk(x, y, _coefficients(_between(r, z, c) - _words2(local)))


def right_matrix(part: MatrixPart, own: bool, r: NDArray[np.uint8], c: NDArray[np.uint8]) -> Shrunk:
    """b_d = Σ over e + h = d of R·F·Cᵀ, of B's ``own`` piece, or the prover's next."""
    x, y = _shrunk(part.x, own, r, False), _shrunk(part.y, own, c, True)
    mask = part.masks[0 if own else 1].reshape(part.z.own.shape)
    return Shrunk(x, y, _coefficients(_between(r, mask, c)))


class ProverStatement(Statement):
    """P's side: quotients after coin 1, then both vectors after coin 2.

    Claims are evaluated once: u and v are kept as they are, in the memory that they later fill modulo p.
    """

    def quotients(self) -> list[int]:
        """q_t = (Σ a + Σ b - Σ u·v) / 2^64 of each sum: the claims in subset t, the matrix claims of degree t."""
        q = [0] * self.shape.quotients
        length = self.shape.length
        self._u, self._v = np.empty(length, np.uint64), np.empty(length, np.uint64)
        self._a = np.empty(self.outputs, np.uint64)
        if self.stretches:
            sums = kernel.new_sums()
            at = done = 0
            rights = self.blocks(lambda s: s.right(False))
            for (bits, a, u), (_, b, v) in zip(self.blocks(lambda s: s.left(True)), rights, strict=True):
                kernel.add_quotients(a, b, u, v, bits, sums)
                self._a[done : done + a.size] = a
                done += a.size
                for us, vs in zip(u, v, strict=True):
                    self._u[at : at + us.size] = us.reshape(-1)
                    self._v[at : at + vs.size] = vs.reshape(-1)
                    at += us.size
            q[: self.chunk.limits.subsets] = kernel.quotients(sums)[: self.chunk.limits.subsets]
        self._matrices = []
        for index, part in enumerate(self.chunk.matrices):
            r, c = self.vectors(index)
            left, right = left_matrix(part, True, r, c), right_matrix(part, False, r, c)
            products = kernel.polynomial_products(left.x, right.y, right.x, left.y)
            for d, product in enumerate(products):
                q[d] += (left.sums[d] + right.sums[d] - product) >> 64
            self._matrices.append((left, right))
        return q

    def merge(self, m: Merged, shares: Sequence[int]) -> tuple[Word, Word, int]:
        """u, v modulo p, and A's share of the claim, from A's shares of the quotients."""
        f, u, v = m.f, self._u, self._v
        total, at, done = np.zeros(3, np.uint64), 0, 0
        table = f.weight_table(m.powers[: self.chunk.limits.subsets])
        for stretch, start, stop in self.steps():
            count = stop - start
            w = np.empty(count, np.uint64)
            f.weights(self.bits(done, done + count), table, w)
            kernel.weighted_sum(w, self._a[done : done + count], total)
            done += count
            for terms in stretch.groups:
                place = slice(at, at + count * terms)
                f.scale_rows(w, u[place].reshape(count, terms), u[place].reshape(count, terms))
                f.reduce(v[place], v[place])
                at += count * terms
        claim = _less_quotients(m, f.unweighted(total), shares)
        for left, right in self._matrices:
            for vector, pair in ((u, (left.x, left.y)), (v, (right.y, right.x))):
                _put_merged(m, vector[at:], pair)
            claim = f.add(claim, _weighted(m, left.sums))
            at += 2 * left.x.shape[1]
        return u, v, claim


def _put_merged(m: Merged, out: Word, pair: tuple[Word, Word]) -> None:
    at = 0
    for rows in pair:
        out[at : at + rows.shape[1]] = m.f.combine_rows(m.powers[: len(rows)], rows)
        at += rows.shape[1]


def _weighted(m: Merged, sums: Sequence[int]) -> int:
    return sum(power * value for power, value in zip(m.powers, sums, strict=False)) % m.f.p


def _less_quotients(m: Merged, claim: int, shares: Sequence[int]) -> int:
    """claim - 2^64·Σ_t ρ^t·q_t, with one verifier's shares of the quotients."""
    return (claim - (_weighted(m, shares) << 64)) % m.f.p


def verifier_side(
    s: Statement, m: Merged, is_a: bool, shares: Sequence[int], rounds: Sequence[Sequence[int]]
) -> tuple[Word, int]:
    """A's or B's vector after all rounds of folding, and its share of the first claim.

    They know every coin from the beginning, so they make their vector and fold it in one pass.
    """
    f = m.f
    folder = Folder(f, s.shape.length, rounds, s.block)
    total = np.zeros(3, np.uint64)
    table = f.weight_table(m.powers[: s.chunk.limits.subsets])
    half: Callable[[Stretch], Half] = (lambda t: t.left(False)) if is_a else (lambda t: t.right(True))
    for bits, sums, groups in s.blocks(half):
        w = np.empty(bits.size, np.uint64)
        f.weights(bits, table, w)
        kernel.weighted_sum(w, sums, total)
        for rows in groups:
            room = folder.room(rows.size)
            if is_a:
                f.scale_rows(w, rows, room.reshape(rows.shape))
            else:
                f.reduce(rows.reshape(-1), room)
            folder.put(rows.size)
    claim = _less_quotients(m, f.unweighted(total), shares)
    for index, part in enumerate(s.chunk.matrices):
        r, c = s.vectors(index)
        side = left_matrix(part, False, r, c) if is_a else right_matrix(part, True, r, c)
        for rows in (side.x, side.y) if is_a else (side.y, side.x):
            folder.take(f.combine_rows(m.powers[: len(rows)], rows))
        claim = f.add(claim, _weighted(m, side.sums))
    return folder.finish(), claim
