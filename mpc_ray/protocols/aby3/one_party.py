"""Sums over three pieces at once: Σ_r C_r(x_{k+2})·D_r(x_k, x_{k+1}), the step from bits and digits to numbers.

P_k, the *owner* of a chunk, holds pieces k and k+1, so it knows every D_r, and shares them. P_{k+1} and P_{k+2}, the
*others*, both hold piece k+2, so both know every C_r, and each multiplies its half of D_r by it. Two rounds:

1. D_r = F_r(S_k) + d_r; the owner sends d_r to P_{k+1}, and P_{k+2} expands F_r. P_{k+2}'s part of the next round
   depends on F alone and goes along: q_{k+2} = Σ C_r·F_r - M(S_{k+2}) - R(S_k), to P_{k+1}.
2. P_{k+1} sends q_{k+1} = Σ C_r·d_r + M(S_{k+2}) to the owner; q_k = R(S_k).

With every D_r a sum of products of something of piece k and something of piece k+1, all three parts are claims that
can be proved (``claims``). d_r is masked by S_k, which P_{k+1} lacks; q_{k+1} by M(S_{k+2}), which the owner lacks;
q_{k+2} by R(S_k), which P_{k+1} lacks.

Elements are cut into three chunks of whole words, one for each owner, so that bytes and work even out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol as Interface

import torch

from mpc_ray.errors import InputError
from mpc_ray.kernels.planes import WORD
from mpc_ray.protocols.aby3.claims import Draw
from mpc_ray.protocols.aby3.one_party_claims import Chunk, claim_chunk
from mpc_ray.protocols.aby3.place import Place, as_words
from mpc_ray.protocols.runtime import Protocol

OWN, NEXT = 0, 1  # which of a party's two pieces


@dataclass(frozen=True)
class Halves:
    """A party's two pieces of results: int64 (outputs, count)."""

    own: torch.Tensor = field(repr=False)
    next: torch.Tensor = field(repr=False)


class Form(Interface):
    """What is computed at each place, on the slice ``part`` of the elements of owner ``k``'s chunk.

    ``parts``: how many D_r; ``outputs``: how many sums. The first two methods are what runs; the rest say the same as
    products of what two parties know, for whoever proves them. ``side`` is where the party that asks has the piece.
    """

    @property
    def parts(self) -> int: ...

    @property
    def outputs(self) -> int: ...

    def owner(self, k: int, part: slice, masks: torch.Tensor) -> torch.Tensor:
        """D_r - masks[r], int64 (parts, n), from both pieces."""

    def others(self, k: int, which: int, part: slice, d: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Σ C_r·d_r + masks, int64 (outputs, n). ``which``: 1 for P_{k+1}, whose next piece is k+2, or 2 for P_{k+2},
        whose own piece it is."""

    def terms(self, r: int) -> int:
        """How many products D_r is a sum of."""

    def left(self, side: int, k: int, part: slice, r: int) -> Sequence[torch.Tensor]:
        """u of D_r = Σ u·v, from piece k."""

    def right(self, side: int, k: int, part: slice, r: int) -> Sequence[torch.Tensor]:
        """v of D_r = Σ u·v, from piece k+1."""

    def factors(self, side: int, k: int, part: slice, output: int) -> Sequence[torch.Tensor]:
        """C_r for every r, from piece k+2."""

    def values(self, side: int, k: int, which: int, part: slice, d: torch.Tensor) -> Sequence[torch.Tensor]:
        """What C_r multiplies at P_{k+which}: d_r, with what it adds of piece k+1 (which 1) or k (which 2)."""


def slice_of(count: int, k: int) -> slice:
    """The elements of owner k: whole words."""
    words = count // WORD
    return slice(words * k // 3 * WORD, words * (k + 1) // 3 * WORD)


def one_party_sums(place: Place, form: Form, count: int, nbytes: int = 8) -> Protocol[Halves]:
    """⟨Σ_r C_r·D_r⟩ mod 2^(8·nbytes) for every output and element; ``count`` is a multiple of 64.

    2 rounds. Bytes an element, all parties together: nbytes·(parts + 2·outputs), a third each but for the rounding of
    chunks to words.
    """
    if count % WORD:
        raise InputError(f"{place.label}: {count} elements in words of {WORD}", remedy="pad them")
    me, outputs = place.me, form.outputs
    own = torch.empty((outputs, count), dtype=torch.int64)
    following = torch.empty((outputs, count), dtype=torch.int64)

    def draw(chunk: Chunk, seed: int, purpose: str, lines: int) -> tuple[torch.Tensor, Draw]:
        return place.words(seed, purpose, (lines, chunk.size), 1 + chunk.k, nbytes)

    mine, after, before = (Chunk(k % 3, slice_of(count, k % 3)) for k in (me, me + 1, me - 1))
    # The owner's part of my own chunk.
    mask, mine.share = draw(mine, me, "share", form.parts)
    mine.d = form.owner(me, mine.part, mask)
    place.send(me + 1, mine.d, "share", nbytes)
    own[:, mine.part], mine.result = draw(mine, me, "result", outputs)
    # P_{k+2}'s part of the next party's chunk: it needs no message.
    k = after.k
    expanded, after.share = draw(after, k, "share", form.parts)
    following[:, after.part], after.result = draw(after, k, "result", outputs)
    middle, after.middle = draw(after, k + 2, "middle", outputs)
    third = form.others(k, 2, after.part, expanded, -(middle + following[:, after.part]))
    place.send(k + 1, third, "sum of masks", nbytes)
    own[:, after.part] = after.third = third
    # P_{k+1}'s part of the chunk of the party before.
    k = before.k
    shares = place.expect(k, form.parts * before.size, nbytes)
    from_third = place.expect(k + 2, outputs * before.size, nbytes)
    yield
    before.d = as_words(shares.bytes(), nbytes).reshape(form.parts, before.size)
    middle, before.middle = draw(before, k + 2, "middle", outputs)
    before.second = form.others(k, 1, before.part, before.d, middle)
    place.send(k, before.second, "sum", nbytes)
    from_second = place.expect(me + 1, outputs * mine.size, nbytes)
    before.third = as_words(from_third.bytes(), nbytes).reshape(outputs, before.size)
    own[:, before.part], following[:, before.part] = before.second, before.third
    yield
    mine.second = as_words(from_second.bytes(), nbytes).reshape(outputs, mine.size)
    following[:, mine.part] = mine.second
    if place.proving:
        for chunk in sorted((mine, after, before), key=lambda chunk: chunk.k):
            if chunk.size:
                claim_chunk(place, form, chunk, 8 * nbytes)
    return Halves(own, following)
