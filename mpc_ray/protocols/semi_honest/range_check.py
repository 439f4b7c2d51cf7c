"""The range check: did every argument stay in the middle half of its window?

For c = y + r with y = x - low - W/4, W = 2^m: E0 and E1 know h_c, D knows h_r, the bits from m-2 up. In the middle
half of the window d = h_c - h_r mod 2^K, K = 66 - m, is 0, 1 or 2; outside it is something else, always.
- K ≤ 7 (products, arguments of activations): D deals a one-hot of 2^K bits at h_r; its bits at h_c, h_c - 1, h_c - 2
  are an XOR sharing of [d in {0,1,2}]. 2^K/8 bytes an element.
- otherwise (scores, sums of squares) P = d(d-1)(d-2) mod 2^K, zero inside and at 2^(K-1), 2^(K-1) + 2, which is
  (h_c³ - 3h_c² + 2h_c) + (6h_c - 3h_c² - 2)·h_r + 3(h_c - 1)·h_r² - h_r³; D deals h_r and h_r². K is cut to 16 bits,
  4 bytes an element: what would alias lies 2^13 windows away, where the checks of the products before it strike.
A function whose window begins at 0 (rsqrt of a sum of squares) has the lower half for what calibration saw, and a flag,
one more table of the same look-up, for arguments below it.
20 random 0/1 sums over each (layer, function) go, as shares, to the client alone, with the output: parties learn
nothing, and a value outside is missed with probability 2^-20. 0 rounds. The outer quarters are still computed
rightly; about half of the values there are reported.

Where several clients' jobs share a run, each has sums of its own, over the elements of its own texts: everything that
is checked stands in the order of the texts, so a job's elements are one stretch of every chunk. What is sent is the
same as for one job of as many texts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from mpc_ray.correlation.on_device import CPU, expand_on
from mpc_ray.kernels.histogram import pick_bits
from mpc_ray.kernels.subset import subset_sums
from mpc_ray.protocols.semi_honest.lookup import DealerProduct, OneHot
from mpc_ray.protocols.semi_honest.open import Opening
from mpc_ray.protocols.semi_honest.role import Dealt, Role

SUMS = 20
HIGH_BITS = 16
ONE_HOT_BITS = 7


@dataclass
class _Book:
    """What all chunks of a run write into: by label a share of SUMS sums mod 2^K for each job."""

    sums: dict[str, torch.Tensor] = field(default_factory=dict)
    bits: dict[str, int] = field(default_factory=dict)
    pending: list[tuple[str, int, _Pending, list[tuple[int, int, int]]]] = field(default_factory=list)
    count: int = 0


@dataclass(frozen=True)
class RangeChecks:
    """The checks of one run, gathered by "layer/function" and by job.

    ``texts``: how many texts of the batch each job has, in order; none means that all are one job's. Where there are
    several jobs, checks are added through ``chunk``.
    """

    job: bytes
    enabled: bool = True
    texts: tuple[int, ...] = ()
    place: torch.device = CPU
    _rows: tuple[int, int] | None = None  # of this chunk: its first row, and rows a text
    _book: _Book = field(default_factory=_Book, repr=False)

    def chunk(self, first: int, total: int) -> RangeChecks:
        """The same checks for a chunk that begins at row ``first`` of ``total``: rows of the leading axis of what will
        be checked, in the order of the texts, as many for each."""
        if len(self.texts) < 2:
            return self
        each, rest = divmod(total, sum(self.texts))
        if rest:
            raise ValueError(f"{total} rows of {sum(self.texts)} texts: whose they are cannot be told")
        return replace(self, _rows=(first, each))

    def add(self, role: Role, opening: Opening, m: int, centred: bool = True) -> None:
        """Check an opening begun in this round, which opens x - low with window 2^m; D deals now.

        ``centred``: the middle half of the window is what calibration saw; else the lower half (a sum of squares).
        """
        if not self.enabled or opening.shape.numel() == 0:
            return
        bits = min(66 - m, HIGH_BITS)
        h = _high(opening.r, m, bits) if role.is_d else None
        pending: _Pending
        if bits <= ONE_HOT_BITS:
            one_hot = OneHot(
                role,
                h.reshape(-1) if h is not None else None,
                opening.shape.numel(),
                bits,
                "range check",
                opening.phase,
            )
            pending = _OneHot(role, opening, m, bits, centred, one_hot)
        else:
            nbytes = -(-bits // 8)
            share = role.deal(h, opening.shape, "range check", nbytes, opening.phase)
            square = role.deal(
                h * h if h is not None else None, opening.shape, "range check", nbytes, opening.phase
            )
            pending = _Polynomial(role, opening, m, bits, centred, h, share, square)
        self._append(role.label, pending, opening.shape)

    def add_flag(self, role: Role, flag: DealerProduct | None) -> None:
        """Check the flag of a spline whose product was begun in this round: 1 where the argument was too small."""
        if self.enabled and flag is not None:
            self._append(role.label, _Flag(role, flag), flag.shape)

    def _append(self, label: str, pending: _Pending, shape: Sequence[int]) -> None:
        book = self._book
        if book.bits.get(label, pending.sum_bits) != pending.sum_bits:
            label = f"{label} ({pending.sum_bits} bits)"
        # Named here and not when it is folded: the program's order is the same at all parties.
        book.bits.setdefault(label, pending.sum_bits)
        book.count += 1
        book.pending.append((label, book.count, pending, self._stretches(shape)))
        if len(book.pending) > 64:
            self.settle()

    def _stretches(self, shape: Sequence[int]) -> list[tuple[int, int, int]]:
        """(job, from, to): whose the flat elements of ``shape`` are; jobs without any are left out."""
        rows, count = shape[0], math.prod(shape)
        if len(self.texts) < 2:
            return [(0, 0, count)]
        if self._rows is None:
            raise ValueError("a run of several jobs is checked chunk by chunk")
        first, each = self._rows
        found, end = [], 0
        for job, texts in enumerate(self.texts):
            start, end = end, end + texts * each
            low, high = max(start, first) - first, min(end, first + rows) - first
            if low < high:
                found.append((job, low * count // rows, high * count // rows))
        return found

    def settle(self) -> None:
        """Fold in what has arrived, so that openings need not be kept to the end of the job."""
        book = self._book
        waiting = [entry for entry in book.pending if not entry[2].ready]
        for entry in book.pending:
            if entry[2].ready:
                self._fold(*entry)
        book.pending[:] = waiting

    def finish(self) -> dict[str, tuple[int, torch.Tensor]]:
        """{label: (K, sums mod 2^K as this party's summand, (jobs, SUMS))}; call when the rounds are over.

        Every job has every label, in the same order at all parties.
        """
        book = self._book
        for entry in book.pending:
            self._fold(*entry)
        book.pending.clear()
        return {label: (bits, self._sums(label)) for label, bits in book.bits.items()}

    def _sums(self, label: str) -> torch.Tensor:
        none = torch.zeros((max(1, len(self.texts)), SUMS), dtype=torch.int64, device=self.place)
        return self._book.sums.setdefault(label, none)

    def _fold(self, label: str, number: int, p: _Pending, stretches: list[tuple[int, int, int]]) -> None:
        summand = p.summand()
        if summand is None:
            return
        values = summand.reshape(-1)
        # The coefficients are public coins: they decide what is detected, not what is learned. Each check has its own,
        # by its number, so that an element which is outside in two of them cannot cancel itself.
        key = hashlib.sha256(b"mpc-ray range check" + self.job).digest()
        words = expand_on(values.device, key, number, 0, 4 * values.numel(), p.role.runtime.correlation.prf)
        words = words.view(torch.int32)
        sums = self._sums(label)
        for job, start, end in stretches:
            sums[job] += subset_sums(values[start:end], words[start:end], SUMS)
            sums[job] &= (1 << p.sum_bits) - 1


class _Pending(Protocol):
    """A check begun in some round. ``summand`` once it is ``ready``: this party's summand, mod 2^sum_bits; None for
    zeros."""

    role: Role

    @property
    def sum_bits(self) -> int: ...

    @property
    def ready(self) -> bool: ...

    def summand(self) -> torch.Tensor | None: ...


@dataclass
class _Flag:
    """0 or 1, out of a look-up."""

    role: Role
    flag: DealerProduct
    sum_bits: int = HIGH_BITS

    @property
    def ready(self) -> bool:
        return self.flag.ready

    def summand(self) -> torch.Tensor | None:
        return self.flag.share()


@dataclass
class _OneHot:
    """Few high bits: XOR shares of "outside", one bit an element."""

    role: Role
    opening: Opening
    m: int
    bits: int
    centred: bool
    one_hot: OneHot
    sum_bits: int = 1

    @property
    def ready(self) -> bool:
        return self.opening.ready

    def summand(self) -> torch.Tensor | None:
        """This party's XOR share of [d not in {0, 1, 2}], int64 (mod 2); D has none."""
        if self.role.is_d:
            return None
        h = _high(self.opening.c - _lower(self.m, self.centred), self.m, self.bits).reshape(-1)
        mask = (1 << self.bits) - 1
        e = self.one_hot.bits()
        inside = pick_bits(e, h) ^ pick_bits(e, (h - 1) & mask) ^ pick_bits(e, (h - 2) & mask)
        return (inside ^ 1 if self.role.is_e0 else inside).to(torch.int64)


@dataclass
class _Polynomial:
    """Many high bits: P(d) mod 2^K."""

    role: Role
    opening: Opening
    m: int
    bits: int
    centred: bool
    h_r: torch.Tensor | None
    share: Dealt
    square: Dealt

    @property
    def sum_bits(self) -> int:
        return self.bits

    @property
    def ready(self) -> bool:
        return self.opening.ready

    def summand(self) -> torch.Tensor:
        """This party's summand of P, int64; only its low K bits mean anything."""
        if self.role.is_d:
            assert self.h_r is not None
            return -(self.h_r * self.h_r * self.h_r)
        h = _high(self.opening.c - _lower(self.m, self.centred), self.m, self.bits)
        total = (6 * h - 3 * h * h - 2) * self.share.share() + 3 * (h - 1) * self.square.share()
        if self.role.is_e0:
            total = total + h * (h - 1) * (h - 2)
        return total


def _high(value: torch.Tensor, m: int, bits: int) -> torch.Tensor:
    return (value >> (m - 2)) & ((1 << bits) - 1)


def _lower(m: int, centred: bool) -> int:
    return 1 << (m - 2) if centred else 0
