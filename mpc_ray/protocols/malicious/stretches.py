"""The numbers of claims that have one output each, block by block, as each role of a proof holds them.

A claim is a + b ≡ Σ_t u_t·v_t mod 2^64, read as words. One mod 2^k is multiplied by 2^(64-k): a, b and u. Arrays are
numpy uint64: a and b (n); u and v groups of terms, (n, terms) each. P has all four, A has a and u, B has b and v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from mpc_ray.kernels.field import less_products
from mpc_ray.kernels.planes import WORD
from mpc_ray.protocols.aby3.claims import (
    Draw,
    Lazy,
    LazyTerms,
    MadePieces,
    Matrix,
    OneParty,
    Pieces,
    Product,
    Words,
)

Word = NDArray[np.uint64]
WINDOW = 1 << 15
"""Outputs of a one-party sum whose numbers are made at a time: few calls, and little memory."""
Expand = Callable[[Draw, int, int], np.ndarray]
"""(draw, start, length) → those bytes of the draw, once more; start is a multiple of 64 (``Correlation.again``)."""
Groups = list[Word]
Half = Callable[[int, int], tuple[Word, Groups]]
"""(start, stop) → a, u or b, v of those claims."""


def words_of(tensor: torch.Tensor) -> Word:
    """A tensor's elements as words, flat; a view where its memory allows it."""
    return tensor.reshape(-1).numpy().view(np.uint64)


@dataclass
class Masks:
    """F(S_me) and F(S_{me+1}) of outputs ``first`` … ``first`` + ``count`` - 1 of a record, one word each.

    Expanded once, when first needed: what masked a message can be computed again, so it is not kept until then.
    """

    record: Product | Matrix | Words
    first: int
    count: int
    expand: Expand
    _kept: dict[int, Word] = field(init=False, default_factory=dict)

    def __getitem__(self, which: int) -> Word:
        if which not in self._kept:
            skipped = self.first % 8
            raw = self.expand(
                self.record.masks[which], 8 * (self.first - skipped), 8 * (self.count + skipped)
            )
            self._kept[which] = raw.view(np.uint64)[skipped:]
        return self._kept[which]


@dataclass
class ProductStretch:
    """Claims ``first`` … ``first`` + ``count`` - 1 of a product."""

    record: Product
    first: int
    count: int
    masks: Masks

    @property
    def terms(self) -> int:
        return 2 * self.record.x.own.numel() // self.record.z.own.numel()

    @property
    def groups(self) -> list[int]:
        """Terms of each group."""
        return [self.terms // 2] * 2

    def left(self, own: bool) -> Half:
        """a = z - F - x·y and u = (x, y) of one piece: the prover's ``own``, or A's next."""
        mask = self.masks[0 if own else 1]
        x, y, z = (self._piece(p, own) for p in (self.record.x, self.record.y, self.record.z))

        def block(start: int, stop: int) -> tuple[Word, Groups]:
            xs, ys = x[start:stop], y[start:stop]
            return less_products(z[start:stop, 0], mask[start:stop], xs, ys), [xs, ys]

        return block

    def right(self, own: bool) -> Half:
        """b = F and v = (y, x) of one piece: B's ``own``, or the prover's next."""
        mask = self.masks[0 if own else 1]
        x, y = (self._piece(p, own) for p in (self.record.x, self.record.y))
        return lambda start, stop: (mask[start:stop], [y[start:stop], x[start:stop]])

    def _piece(self, pieces: Pieces, own: bool) -> Word:
        """(count, elements an output) of one piece."""
        rows = words_of(pieces.own if own else pieces.next).reshape(self.record.z.own.numel(), -1)
        return rows[self.first : self.first + self.count]


@dataclass(frozen=True)
class OneStretch:
    """Claims ``first`` … ``first`` + ``count`` - 1 of a one-party sum."""

    record: OneParty
    first: int
    count: int

    @property
    def terms(self) -> int:
        return self.record.terms

    @property
    def groups(self) -> list[int]:
        """Terms of each group."""
        return [1] * self.terms

    def left(self, own: bool) -> Half:
        """a and u, raised; ``own`` says nothing here: the record holds what its party may know."""
        return self._half(self.record.a, self.record.u, True)

    def right(self, own: bool) -> Half:
        """b, raised, and v."""
        return self._half(self.record.b, self.record.v, False)

    def _half(self, sums: Lazy | None, factors: LazyTerms | None, raised: bool) -> Half:
        assert sums is not None and factors is not None
        by = np.uint64(64 - self.record.bits)
        at = slice(0, 0)  # the window whose numbers are at hand
        total, rows = np.empty(0, np.uint64), list[Word]()

        def block(start: int, stop: int) -> tuple[Word, Groups]:
            nonlocal at, total, rows
            start, stop = self.first + start, self.first + stop
            if not at.start <= start or stop > at.stop:
                first = start - start % WORD
                last = max(stop, min(first + WINDOW, self.first + self.count))
                at = slice(first, min(last + -last % WORD, self.record.count))
                rows = [words_of(term)[:, None] for term in factors(at)]
                rows = [row << by for row in rows] if raised and by else rows
                total = words_of(sums(at)) << by
            place = slice(start - at.start, stop - at.start)
            return total[place], [row[place] for row in rows]

        return block


Stretch = ProductStretch | OneStretch


@dataclass
class MatrixPart:
    """One matrix product z = x @ y: pieces (m, k), (k, n), (m, n); ``masks`` are those of its outputs."""

    x: Pieces
    y: MadePieces
    z: Pieces
    masks: Masks

    @property
    def inner(self) -> int:
        return self.x.own.shape[-1]


@dataclass
class WordsPart:
    """Words ``first`` … ``first`` + ``count`` - 1 of a record of gates."""

    record: Words
    first: int
    count: int
    masks: Masks

    def pieces(self, own: bool) -> tuple[Word, Word | None, Word]:
        """x, y (None where the record has none) and z of one piece."""
        r, place = self.record, slice(self.first, self.first + self.count)
        x, y, z = (None if p is None else words_of(p.own if own else p.next)[place] for p in (r.x, r.y, r.z))
        assert x is not None and z is not None
        return x, y, z
