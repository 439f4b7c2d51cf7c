"""The range check: did every argument stay where the protocol is right? Looked at once, at the end of a job.

A place keeps the top bits of its pieces; when the job is over, all places add theirs up as windows of bits, side by
side, and compare them with public bounds. A value inside the middle half of its window, where calibration saw it, is
never reported; one outside the window always is; in the outer quarters, which are still computed rightly, some are.
For x in a window [-2^(m-1), 2^(m-1)): d = ⌊(x + 2^(m-1)) / 2^(m-3)⌋ less 0, 1 or 2 is in [0, 6) for the middle half
and at least 6, or negative, outside; d is taken modulo 2^K, K at most 10: what aliases lies 2^7 windows away, where
no score can be while queries and keys pass their own checks.

20 random 0/1 sums, mod 2, of the results over each (layer, function) go as XOR shares to the client alone, with the
output: parties learn nothing, and a value outside is missed with probability 2^-20. Where several clients' jobs share
a run, each has sums of its own, over the elements of its own texts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch

from mpc_ray.correlation.prf import expand
from mpc_ray.functions.piecewise import Piecewise
from mpc_ray.kernels.planes import WORD, words
from mpc_ray.kernels.ring import shift_right_logical
from mpc_ray.protocols.aby3.bits import Bits
from mpc_ray.protocols.aby3.convert import window
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.thresholds import at_least
from mpc_ray.protocols.aby3.truncate import RANGE_BITS
from mpc_ray.protocols.runtime import Protocol, Runtime, together
from mpc_ray.sharing.replicated import Shared

SUMS = 20
ROW_BITS = 15  # of what is positive: from the end of its window down
MOST_BITS = 24
SYMMETRIC_BITS = 10
MIDDLE = 6  # d of the middle half is below


@dataclass(frozen=True)
class _Kept:
    """One label's top bits: int32 codes of both pieces, one line a job, padded to whole words with a code that
    passes.
    """

    own: torch.Tensor
    next: torch.Tensor


@dataclass
class _Book:
    """By (label, bits, least, bound): for each job what was kept of it."""

    kept: dict[tuple[str, int, int, int], list[list[_Kept]]] = field(default_factory=dict)


@dataclass(frozen=True)
class RangeChecks:
    """The checks of one run, gathered by "layer/function" and by job. ``texts``: how many texts each job has."""

    me: int
    job: bytes
    enabled: bool = True
    texts: tuple[int, ...] = ()
    _book: _Book = field(default_factory=_Book, repr=False)

    def product(self, label: str, x: Shared) -> None:
        """|x| < 2^61: what a truncation needs. The leading axis is in the order of the texts."""
        self.symmetric(label, x, RANGE_BITS + 1)

    def symmetric(self, label: str, x: Shared, m: int, centre: int = 0) -> None:
        """|x - centre| < 2^(m-1)."""
        bits = min(67 - m, SYMMETRIC_BITS)
        self._keep(label, x, m - 3, bits, (1 << (m - 1)) - centre, 0, MIDDLE)

    def positive(self, label: str, x: Shared, f: Piecewise, smallest: float) -> None:
        """x from about ``smallest`` to the end of f's window, whose lower half is what calibration saw."""
        top = f.t + f.n
        t = max(0, top - ROW_BITS + 1)
        least = max(0, (math.floor(math.ldexp(smallest, f.scale)) >> t) - 2)
        self._keep(label, x, t, min(64 - t, MOST_BITS), 0, least, (1 << (top - t)) - 2)

    def _keep(self, label: str, x: Shared, t: int, bits: int, constant: int, least: int, bound: int) -> None:
        """Bits t … t+bits-1 of x + constant must lie in [least, bound), less 0, 1 or 2 included."""
        if not self.enabled or x.own.numel() == 0:
            return
        jobs = self._book.kept.setdefault((label, bits, least, bound), [[] for _ in self.texts or (1,)])
        mask = (1 << bits) - 1
        word = (constant + (1 << 63)) % (1 << 64) - (1 << 63)
        codes = []
        for piece, i in ((x.own, self.me), (x.next, (self.me + 1) % 3)):
            shifted = shift_right_logical(piece + word if i == 0 else piece, t) & mask
            codes.append(shifted.to(torch.int32))
        for job, part in enumerate(self._stretches(x.shape)):
            lines = []
            for code, i in zip(codes, (self.me, (self.me + 1) % 3), strict=True):
                line = code[part].reshape(-1)
                passing = least if i == 0 else 0
                lines.append(torch.nn.functional.pad(line, (0, -len(line) % WORD), value=passing))
            jobs[job].append(_Kept(lines[0], lines[1]))

    def _stretches(self, shape: Sequence[int]) -> list[slice]:
        """The rows of the leading axis that are each job's."""
        if len(self.texts) < 2:
            return [slice(0, shape[0])]
        each, rest = divmod(shape[0], sum(self.texts))
        if rest:
            raise ValueError("what is checked must lie in the order of the texts")
        ends = np.cumsum([0, *self.texts]) * each
        return [slice(int(a), int(b)) for a, b in pairwise(ends)]

    def settle(self, runtime: Runtime) -> Protocol[dict[str, Bits]]:
        """{label: this party's two pieces of the sums mod 2, int64 (jobs, SUMS)}, in one order at all parties.

        The rounds of one window of MOST_BITS bits and its comparison, at most; none if nothing was kept.
        """
        kept = self._book.kept
        found = yield from together([self._sums(runtime, key, jobs) for key, jobs in kept.items()])
        out: dict[str, Bits] = {}
        for (label, *_), sums in zip(kept, found, strict=True):
            out[label] = out[label] ^ sums if label in out else sums
        kept.clear()
        return out

    def _sums(
        self, runtime: Runtime, key: tuple[str, int, int, int], jobs: list[list[_Kept]]
    ) -> Protocol[Bits]:
        label, bits, least, bound = key
        layer, _, function = label.rpartition("/")
        place = Place(runtime, layer, f"{function} check")
        own, following = (
            torch.cat([getattr(part, name) for parts in jobs for part in parts]).to(torch.int64)
            for name in ("own", "next")
        )
        d = yield from window(place, Shared(own, following, 0), 0, bits)
        outside = yield from self._outside(place, d, least, bound)
        sums, start = Bits(*(torch.zeros((len(jobs), SUMS), dtype=torch.int64) for _ in range(2))), 0
        for job, parts in enumerate(jobs):
            size = sum(words(len(part.own)) for part in parts)
            for piece, plane in ((sums.own, outside.own), (sums.next, outside.next)):
                piece[job] = _parities(plane[start : start + size], _coins(self.job, key))
            start += size
        return sums

    def _outside(self, place: Place, d: Bits, least: int, bound: int) -> Protocol[Bits]:
        """[d < least or d ≥ bound]: one plane."""
        thresholds = [least, bound] if least else [bound]
        reached = yield from at_least(place, d, thresholds)
        return reached[0] if not least else (reached[0] ^ reached[1]).flipped(self.me)


def _coins(job: bytes, key: object) -> bytes:
    return hashlib.sha256(b"mpc-ray aby3 range check" + job + repr(key).encode()).digest()


def _parities(plane: torch.Tensor, key: bytes) -> torch.Tensor:
    """SUMS parities of random halves of the bits. Coefficients are public coins: they decide what is detected."""
    count = len(plane)
    coins = expand(key, 0, 0, 8 * SUMS * count).view(np.int64).reshape(SUMS, count)
    folded = np.bitwise_xor.reduce(coins & plane.numpy(), axis=1)
    return torch.tensor([(int(word) & (2**64 - 1)).bit_count() & 1 for word in folded])
