"""An inner product ⟨u, v⟩ = c_A + c_B, u at A, v at B, both at P: reduced in rounds, masked at both sides, compared.

One round: P shares the matrix M[j][k] = Σ_b u[4b + j]·v[4b + k], whose trace is the claim, *before* it learns the
coins λ, μ; then u[b] ← Σ λ_j u[4b + j], v[b] ← Σ μ_k v[4b + k] and the claim becomes Σ λ_j μ_k M[j][k]. The corner
M[0][0] is not sent: each of A and B takes its share of the claim less its shares of the rest of the diagonal, so the
trace is right by construction and a wrong claim means a wrong matrix, which a random λ, μ misses with probability
2/p. Everything here is local; ``roles`` sends it. The same over F_p and over GF(2^64).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Word = NDArray[np.uint64]


class Field(Protocol):
    """F_p or GF(2^64): ``kernels.field.PrimeField``, ``kernels.gf64.BinaryField``."""

    random_bytes: int

    def add(self, x: int, y: int) -> int: ...

    def sub(self, x: int, y: int) -> int: ...

    def mul(self, x: int, y: int) -> int: ...

    def element(self, raw: bytes, nonzero: bool = False) -> int: ...

    def valid(self, x: int) -> bool: ...

    def cross(self, u: Word, v: Word) -> list[int]: ...

    def coefficients(self, elements: Sequence[int]) -> Word: ...

    def fold(self, u: Word, c: Word) -> Word: ...

    def inner(self, u: Word, v: Word) -> int: ...


def elements(f: Field, raw: NDArray[np.uint8], nonzero: bool = False) -> list[int]:
    """Uniform elements from uniform bytes, ``random_bytes`` each."""
    data, size = raw.tobytes(), f.random_bytes
    return [f.element(data[i : i + size], nonzero) for i in range(0, len(data), size)]


def array(values: Sequence[int]) -> Word:
    """Elements as a vector."""
    return np.array(values, np.uint64)


def to_wire(values: Sequence[int]) -> bytes:
    """Elements as bytes, 8 each, little endian."""
    return array(values).tobytes()


def from_wire(f: Field, data: bytes) -> list[int] | None:
    """The elements of a message; None if one of them is none."""
    values: list[int] = np.frombuffer(data, np.uint64).tolist()
    return values if all(map(f.valid, values)) else None


def padded(u: Word) -> Word:
    """u with zeros up to a length that 4 divides; u itself if it has one."""
    rest = -u.size % 4
    return np.concatenate((u, np.zeros(rest, np.uint64))) if rest else u


def next_claim(
    f: Field,
    claim: int,
    shares: Sequence[int],
    lam: Sequence[int],
    mu: Sequence[int],
    eta: Sequence[int] | None = None,
) -> int:
    """A verifier's share of Σ λ_j μ_k M[j][k] from its shares of all entries but the corner, row by row.

    The old claim is Σ eta_j M[j][j] with eta_0 = 1, by default the trace. A share of the corner follows from it.
    """
    r = len(lam)
    diagonal = [shares[(r + 1) * j - 1] for j in range(1, r)]
    weights = list(eta[1:]) if eta is not None else [1] * (r - 1)
    corner = f.sub(claim, f.inner(array(weights), array(diagonal)))
    rows = f.fold(array([corner, *shares]), f.coefficients(mu))
    return f.inner(rows, array(lam))


def blinded_claim(f: Field, claim: int, shares: Sequence[int], lam: int, mu: int) -> int:
    """A verifier's share of ⟨u + λ·s_A, v + μ·s_B⟩ from its shares of ⟨u, s_B⟩, ⟨s_A, v⟩ and ⟨s_A, s_B⟩."""
    us, sv, ss = shares
    claim = f.add(claim, f.mul(mu, us))
    claim = f.add(claim, f.mul(lam, sv))
    return f.add(claim, f.mul(f.mul(lam, mu), ss))


def blinded(f: Field, u: Word, factor: int, mask: Sequence[int]) -> list[int]:
    """u + factor·mask."""
    return [f.add(int(x), f.mul(factor, s)) for x, s in zip(u, mask, strict=True)]


def less(f: Field, values: Sequence[int], masks: Sequence[int]) -> list[int]:
    """B's shares: the values less A's shares of them."""
    return [f.sub(value, mask) for value, mask in zip(values, masks, strict=True)]


class Folder:
    """A long vector made block by block and folded at once, so that it is never held whole.

    ``coefficients``: those of each round, 4 a round. As many rounds as ``WIDE`` entries allow are folded while the
    vector is made, the rest at the end. What A and B do, who know all coins from the beginning.
    """

    ROUNDS = 3
    WIDE = 4**ROUNDS

    def __init__(self, f: Field, length: int, coefficients: Sequence[Sequence[int]], block: int) -> None:
        self._f = f
        first, self._rest = coefficients[: self.ROUNDS], coefficients[self.ROUNDS :]
        self._wide = f.coefficients(joint(f, first))
        self._r = self._wide.size
        self._out = np.empty(-(-length // self._r), np.uint64)
        self._done = self._held = 0
        self._buffer = np.empty(block + self._r, np.uint64)

    def room(self, count: int) -> Word:
        """Where the next ``count`` entries (``block`` at most) are to be put."""
        return self._buffer[self._held : self._held + count]

    def put(self, count: int) -> None:
        """The room has been filled."""
        self._held += count
        whole = self._held - self._held % self._r
        self._fold(whole)
        self._buffer[: self._held - whole] = self._buffer[whole : self._held].copy()
        self._held -= whole

    def take(self, values: Word) -> None:
        """Append entries, as many as there are."""
        block = self._buffer.size - self._r
        for start in range(0, values.size, block):
            part = values[start : start + block]
            self.room(part.size)[:] = part
            self.put(part.size)

    def finish(self) -> Word:
        """The vector after all rounds."""
        self._fold(self._held)
        vector = self._out
        assert self._done == vector.size, "a vector of another length than its schedule says"
        for coefficients in self._rest:
            vector = self._f.fold(vector, self._f.coefficients(coefficients))
        return vector

    def _fold(self, count: int) -> None:
        if count:
            folded = self._f.fold(self._buffer[:count], self._wide)
            self._out[self._done : self._done + folded.size] = folded
            self._done += folded.size


def joint(f: Field, rounds: Sequence[Sequence[int]]) -> list[int]:
    """The coefficients of several rounds of folding at once: entry j3·16 + j2·4 + j1 is the product of the three."""
    wide = [1]
    for coefficients in rounds:
        wide = [f.mul(c, x) for c in coefficients for x in wide]
    return wide
