"""aby3's claims gathered into chunks: what is proved together, and how much may wait to be proved.

A chunk holds references to live tensors, never copies. It is closed at a size that follows from public shapes, so all
three parties close it at the same record. Arithmetic and Boolean claims gather side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch

from mpc_ray.protocols.aby3.claims import Claim, Matrix, OneParty, Pieces, Product, Words
from mpc_ray.protocols.malicious.schedule import Shape
from mpc_ray.protocols.malicious.stretches import (
    Expand,
    Masks,
    MatrixPart,
    OneStretch,
    ProductStretch,
    Stretch,
    WordsPart,
)

OUTPUTS = 1 << 20
"""Outputs of one prover in a chunk, matrices' among them."""
ENTRIES = 1 << 21
"""Products u·v of one prover in a chunk: its two vectors take 8 bytes each. (Soundness allows 2^25.)"""
WORDS = 1 << 18
"""Words of gates in a chunk: 2^24 gates, and again vectors of 2^21 entries."""
SUBSETS = 56
"""Random subsets of single outputs."""
VECTORS = 56
"""Random 0/1 vectors at each side of a matrix; a product becomes 2·56 - 1 claims."""


@dataclass(frozen=True)
class Limits:
    """The sizes above; tests take smaller ones. All three parties must have the same."""

    outputs: int = OUTPUTS
    entries: int = ENTRIES
    words: int = WORDS
    subsets: int = SUBSETS
    vectors: int = VECTORS
    weight_bits: int = 64  # of a block of gates; below 64 to see the error's rate, as with fewer subsets


@dataclass
class Arithmetic:
    """Claims mod 2^64 that one proof of each party covers."""

    limits: Limits
    labels: dict[str, None] = field(default_factory=dict)
    stretches: list[Stretch] = field(default_factory=list)
    matrices: list[MatrixPart] = field(default_factory=list)

    def of(self, prover: int) -> list[Stretch]:
        """The stretches that the proof of ``prover`` covers: every product, and its own one-party sums."""
        return [s for s in self.stretches if isinstance(s, ProductStretch) or s.record.prover == prover]

    def entries(self, prover: int) -> int:
        """Products u·v of that proof's single outputs."""
        return sum(s.count * s.terms for s in self.of(prover))

    def shape(self, prover: int) -> Shape:
        """Sizes of that proof: every matrix adds two terms of its inner dimension."""
        length = self.entries(prover) + sum(2 * m.inner for m in self.matrices)
        quotients = max(
            self.limits.subsets if self.of(prover) else 0,
            2 * self.limits.vectors - 1 if self.matrices else 0,
        )
        return Shape(length, quotients)


@dataclass
class Boolean:
    """Words of gates that one proof of each party covers. The parts keep the records' order."""

    limits: Limits
    labels: dict[str, None] = field(default_factory=dict)
    parts: list[WordsPart] = field(default_factory=list)

    @property
    def words(self) -> int:
        """Words, rounded up to whole blocks of 8."""
        return -(-sum(part.count for part in self.parts) // 8) * 8

    def shape(self, prover: int) -> Shape:
        """Sizes of that proof: 64 entries for a block of 8 words, the same for all three."""
        return Shape(8 * self.words, 0)


Chunk = Arithmetic | Boolean


class Gatherer:
    """The sink of claims of one attempt: closes chunks and hands them to ``full``, in the same order everywhere."""

    def __init__(self, expand: Expand, full: Callable[[Chunk], None], limits: Limits) -> None:
        self.limits = limits
        self.records = 0
        self._expand, self._full = expand, full
        self._arithmetic, self._boolean = Arithmetic(limits), Boolean(limits)
        self._room = [limits.outputs] * 3, [limits.entries] * 3
        self._words = limits.words

    def add(self, claim: Claim) -> None:
        """Take a record: its tensors must never change again. A large one goes into several chunks.

        Raises ValueError for a sum over no products at all: it would have nothing to multiply and still be a claim.
        """
        self.records += 1
        if isinstance(claim, Product | Matrix) and claim.z.own.numel() and not claim.x.own.numel():
            raise ValueError(f"{claim.label}: a product over an empty axis")
        match claim:
            case Matrix():
                self._add_matrices(claim)
            case Words():
                self._add_words(claim)
            case Product():
                if claim.z.own.numel():
                    self._add_stretches(_flat(claim), range(3))
            case OneParty():
                if claim.count:
                    self._add_stretches(claim, (claim.prover,))

    def close(self) -> None:
        """Close what is open: nothing of the attempt stays unproved."""
        self._close_arithmetic()
        self._close_boolean()

    def _add_stretches(self, claim: Product | OneParty, provers: range | tuple[int]) -> None:
        total = claim.count if isinstance(claim, OneParty) else claim.z.own.numel()
        terms = claim.terms if isinstance(claim, OneParty) else 2 * claim.x.own.numel() // total
        first = 0
        while first < total:
            outputs, entries = self._room
            most = min(min(outputs[p], entries[p] // terms) for p in provers)
            fresh = not (self._arithmetic.stretches or self._arithmetic.matrices)
            if most <= 0 and not fresh:
                self._close_arithmetic()
                continue
            count = min(total - first, max(most, 1))  # one output with very many terms is a chunk of its own
            chunk = self._arithmetic
            chunk.labels[claim.label] = None
            chunk.stretches.append(
                OneStretch(claim, first, count)
                if isinstance(claim, OneParty)
                else ProductStretch(claim, first, count, Masks(claim, first, count, self._expand))
            )
            for p in provers:
                outputs[p] -= count
                entries[p] -= count * terms
            first += count
            if any(outputs[p] <= 0 or entries[p] < 2 for p in provers):
                self._close_arithmetic()

    def _add_matrices(self, claim: Matrix) -> None:
        for part in _apart(claim, self._expand):
            outputs, entries = self._room
            chunk = self._arithmetic
            chunk.labels[claim.label] = None
            chunk.matrices.append(part)
            for p in range(3):
                outputs[p] -= part.z.own.numel()
                entries[p] -= 2 * part.inner
            if outputs[0] <= 0 or entries[0] < 2:
                self._close_arithmetic()

    def _add_words(self, claim: Words) -> None:
        total, first = claim.z.own.numel(), 0
        while first < total:
            count = min(total - first, self._words)
            self._boolean.labels[claim.label] = None
            masks = Masks(claim, first, count, self._expand)
            self._boolean.parts.append(WordsPart(claim, first, count, masks))
            self._words -= count
            first += count
            if not self._words:
                self._close_boolean()

    def _close_arithmetic(self) -> None:
        chunk = self._arithmetic
        self._arithmetic = Arithmetic(self.limits)
        self._room = [self.limits.outputs] * 3, [self.limits.entries] * 3
        if chunk.stretches or chunk.matrices:
            self._full(chunk)

    def _close_boolean(self) -> None:
        chunk, self._boolean, self._words = self._boolean, Boolean(self.limits), self.limits.words
        if chunk.parts:
            self._full(chunk)


def _flat(claim: Product) -> Product:
    """The same record with a sum over the last axis, if any, and elements that lie in order: copies of those that do
    not."""
    axis = -1 if claim.axis is None else claim.axis

    def flat(pieces: Pieces) -> Pieces:
        return _map(pieces, lambda t: t.movedim(axis, -1).contiguous() if t.ndim else t)

    z = _map(claim.z, torch.Tensor.contiguous)
    return replace(claim, x=flat(claim.x), y=flat(claim.y), z=z, axis=None if claim.axis is None else -1)


def _apart(claim: Matrix, expand: Expand) -> Iterator[MatrixPart]:
    """A batch of products as single ones; one, of all rows, where y is the same for the whole batch."""
    total = claim.z.own.numel()
    if not total:
        return
    if claim.y.ndim == 2:
        x, z = (_map(p, lambda t: t.reshape(-1, t.shape[-1])) for p in (claim.x, claim.z))
        yield MatrixPart(x, claim.y, z, Masks(claim, 0, total, expand))
        return
    count = claim.z.own.shape[:-2].numel()
    each = total // count
    pieces = (claim.x, Pieces(claim.y.own, claim.y.next), claim.z)
    x, y, z = (_map(p, lambda t: t.reshape(count, *t.shape[-2:])) for p in pieces)
    for i in range(count):
        one = [Pieces(p.own[i], p.next[i]) for p in (x, y, z)]
        yield MatrixPart(one[0], one[1], one[2], Masks(claim, i * each, each, expand))


def _map(pieces: Pieces, f: Callable[[torch.Tensor], torch.Tensor]) -> Pieces:
    return Pieces(f(pieces.own), f(pieces.next))
