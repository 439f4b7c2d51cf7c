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
    k, part, which = chunk.k, chunk.part, (place.me - chunk.k) % 3
    # Where this party has pieces k, k+1 and k+2: own 0, next 1.
    at = {(k + (which + side) % 3) % 3: side for side in (0, 1)}
    first, second, third = (at.get((k + i) % 3) for i in range(3))

    def again(draw: Draw | None) -> Callable[[], torch.Tensor] | None:
        if draw is None:
            return None
        return lambda: _expanded(place, draw, chunk.size, bits)

    def row(of: Callable[[], torch.Tensor] | None, r: int, sign: int = 1) -> Lazy | None:
        return None if of is None else lambda: sign * of()[r]

    def terms(make: Callable[[], Sequence[torch.Tensor]], known: bool) -> LazyTerms | None:
        return make if known else None

    masks, result, middle = again(chunk.share), again(chunk.result), again(chunk.middle)
    # What was sent is kept as it arrived: both ends must hold the same words.
    d, q1, q2 = (_low(sent, bits) for sent in (chunk.d, chunk.second, chunk.third))
    share = None if d is None else lambda: d

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
            terms(lambda r=r: form.left(first or 0, k, part, r), first is not None),  # type: ignore[misc]
            terms(lambda r=r: form.right(second or 0, k, part, r), second is not None),  # type: ignore[misc]
        )
    for o in range(form.outputs):
        factors = terms(lambda o=o: form.factors(third or 0, k, part, o), third is not None)  # type: ignore[misc]
        add(
            k + 1,
            form.parts,
            None if which == 2 else row(None if q1 is None else (lambda: q1), o),
            None if which == 0 else row(middle, o, -1),
            terms(lambda: form.values(second or 0, k, 1, part, _known(share)), which != 2),
            factors,
        )
        add(
            k + 2,
            form.parts,
            None if q2 is None or middle is None else (lambda o=o: q2[o] + middle()[o]),  # type: ignore[misc]
            row(result, o),
            factors,
            terms(lambda: form.values(first or 0, k, 2, part, _known(masks)), which != 1),
        )


def _low(x: torch.Tensor | None, bits: int) -> torch.Tensor | None:
    return x if x is None or bits == 64 else x & ((1 << bits) - 1)


def _known(of: Callable[[], torch.Tensor] | None) -> torch.Tensor:
    assert of is not None, "asked for what this party does not know"
    return of()


def _expanded(place: Place, draw: Draw, columns: int, bits: int) -> torch.Tensor:
    raw = place.runtime.correlation.again(
        draw.seed, draw.purpose, draw.role, draw.site, draw.chunk, draw.length
    )
    return as_words(raw, bits // 8).reshape(-1, columns)
