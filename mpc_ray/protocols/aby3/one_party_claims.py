"""What the three places of a one-party sum claim, as records for whoever proves them (``claims``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from mpc_ray.protocols.aby3.claims import Draw, Lazy, LazyTerms, OneParty
from mpc_ray.protocols.aby3.place import Place, as_words

if TYPE_CHECKING:
    from mpc_ray.protocols.aby3.one_party import Form


Rows = Callable[[range, slice], torch.Tensor]
"""(rows, columns) → those of a table of what was drawn or sent."""


@dataclass
class Chunk:
    """Owner k's elements, and what this party saw of them: what it may not know stays None."""

    k: int
    part: slice
    share: Draw | None = None
    result: Draw | None = None
    middle: Draw | None = None
    d: torch.Tensor | None = field(default=None, repr=False)
    second: torch.Tensor | None = field(default=None, repr=False)
    third: torch.Tensor | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        return int(self.part.stop - self.part.start)


def claim_chunk(place: Place, form: Form, chunk: Chunk, bits: int) -> None:
    """Record the claims of P_k (one for each D_r), of P_{k+1} and of P_{k+2} (one for each output).

    P_k: F_r + d_r = Σ u·v. P_{k+1}: q_{k+1} - M = Σ values·C. P_{k+2}: (q_{k+2} + M) + R = Σ C·values.
    """
    k, start, which = chunk.k, chunk.part.start, (place.me - chunk.k) % 3
    # Where this party has pieces k, k+1 and k+2: own 0, next 1.
    at = {(k + (which + side) % 3) % 3: side for side in (0, 1)}
    first, second, third = (at.get((k + i) % 3) for i in range(3))

    def again(draw: Draw | None) -> Rows | None:
        if draw is None:
            return None
        return lambda rows, at: _expanded(place, draw, chunk.size, bits, rows, at)

    def sent(kept: torch.Tensor | None) -> Rows | None:
        """What was sent, as it arrived: both ends must hold the same words."""
        low = _low(kept, bits)
        return None if low is None else lambda rows, at: low[rows.start : rows.stop, at]

    def row(of: Rows | None, r: int, sign: int = 1) -> Lazy | None:
        if of is None:
            return None
        return lambda at: of(range(r, r + 1), at)[0] if sign == 1 else -of(range(r, r + 1), at)[0]

    def terms(make: Callable[[slice], Sequence[torch.Tensor]], known: bool) -> LazyTerms | None:
        """``make`` is given a slice of all elements, not of this chunk's."""
        return (lambda at: make(slice(start + at.start, start + at.stop))) if known else None

    def values(side: int | None, which: int, of: Rows | None, known: bool) -> LazyTerms | None:
        every = range(form.parts)
        if not known:
            return None
        assert of is not None, "asked for what this party does not know"
        return lambda at: form.values(
            side or 0, k, which, slice(start + at.start, start + at.stop), of(every, at)
        )

    masks, result, middle = again(chunk.share), again(chunk.result), again(chunk.middle)
    share, q1, q2 = (sent(kept) for kept in (chunk.d, chunk.second, chunk.third))

    def add(
        prover: int, count: int, a: Lazy | None, b: Lazy | None, u: LazyTerms | None, v: LazyTerms | None
    ) -> None:
        place.claim(OneParty(place.label, prover % 3, bits, chunk.size, count, a, b, u, v))

    for r in range(form.parts):
        add(
            k,
            form.terms(r),
            row(masks, r),
            row(share, r),
            terms(lambda part, r=r: form.left(first or 0, k, part, r), first is not None),  # type: ignore[misc]
            terms(lambda part, r=r: form.right(second or 0, k, part, r), second is not None),  # type: ignore[misc]
        )
    for o in range(form.outputs):
        factors = terms(lambda part, o=o: form.factors(third or 0, k, part, o), third is not None)  # type: ignore[misc]
        add(
            k + 1,
            form.parts,
            None if which == 2 else row(q1, o),
            None if which == 0 else row(middle, o, -1),
            values(second, 1, share, which != 2),
            factors,
        )
        add(
            k + 2,
            form.parts,
            _sum(row(q2, o), row(middle, o)),
            row(result, o),
            factors,
            values(first, 2, masks, which != 1),
        )


def _low(x: torch.Tensor | None, bits: int) -> torch.Tensor | None:
    return x if x is None or bits == 64 else x & ((1 << bits) - 1)


def _sum(x: Lazy | None, y: Lazy | None) -> Lazy | None:
    return None if x is None or y is None else lambda at: x(at) + y(at)


def _expanded(place: Place, draw: Draw, columns: int, bits: int, rows: range, at: slice) -> torch.Tensor:
    """Columns ``at`` of some rows of a stream once more; ``columns`` and ``at.start`` are whole words of 64."""
    nbytes = bits // 8
    name = (draw.seed, draw.purpose, draw.role, draw.site, draw.chunk)
    length = nbytes * (at.stop - at.start)
    again = place.runtime.correlation.again
    lines = [as_words(again(*name, length, nbytes * (r * columns + at.start)), nbytes) for r in rows]
    return lines[0].unsqueeze(0) if len(lines) == 1 else torch.stack(lines)
