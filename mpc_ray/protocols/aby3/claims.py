"""What a party claims when it sends a message: the hook by which malicious_3pc proves aby3's products.

In aby3 a party sends nothing but summands that it computed from what it holds, each masked by PRF values that it
shares with one of the others. So every message is a *claim* of its sender, prover i = P_i, about values that it
shares with one neighbour each. With A = P_{i-1} and B = P_{i+1}, for every output

    a + b  ≡  Σ u·v   (mod 2^bits; for words of gates: a ⊕ b = ⊕ u & v),     u, a known to A and P_i;  v, b to P_i and
    B.

Every party is P in its own claims, A in those of P_{me+1} and B in those of P_{me-1}; of a product all three parts
follow from what it holds anyway, so a product is one record at each party. A one-party sum is the claim of one
prover, and a party's record of it holds the parts that it may know.

Records are references to live tensors, which nobody changes after they are recorded, and the names of the streams
(``Draw``), which can be expanded again. They are made when the round is over, in the same order at all parties. What
is a function of a single piece x_i (a shift, its bits, a table of it) is known to both its holders and needs no
claim, and neither do linear maps and public constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol as Interface

import torch

Lazy = Callable[[slice], torch.Tensor]
LazyTerms = Callable[[slice], Sequence[torch.Tensor]]


@dataclass(frozen=True)
class Draw:
    """The name of a stream that was drawn: ``Correlation.again`` expands it once more. ``length`` in bytes."""

    seed: int
    purpose: str
    role: int
    site: int
    chunk: int
    length: int


@dataclass(frozen=True)
class Pieces:
    """A party's two pieces, of index me and me + 1: int64 tensors of one shape."""

    own: torch.Tensor = field(repr=False)
    next: torch.Tensor = field(repr=False)

    @property
    def ndim(self) -> int:
        return self.own.ndim


class MadePieces(Interface):
    """Pieces, each of which may be made anew whenever it is asked for: of weights, which are not kept twice."""

    @property
    def ndim(self) -> int: ...

    @property
    def own(self) -> torch.Tensor: ...

    @property
    def next(self) -> torch.Tensor: ...


@dataclass(frozen=True)
class Product:
    """z_i = x_i·y_i + x_i·y_{i+1} + x_{i+1}·y_i + F(S_i) - F(S_{i+1}) mod 2^64, for all three i.

    x and y are of one shape (expanded views where one was broadcast); z is summed over ``axis``, or has their shape
    where that is None. ``masks``: F(S_me) and F(S_{me+1}), 8 bytes an output. Claim of P_i: a = z_i - F(S_i) -
    x_i·y_i, b = F(S_{i+1}), terms (x_i, y_{i+1}), (y_i, x_{i+1}).
    """

    label: str
    x: Pieces
    y: Pieces
    z: Pieces
    masks: tuple[Draw, Draw]
    axis: int | None


@dataclass(frozen=True)
class Matrix:
    """As ``Product`` for z = x @ y: x (…, m, k), y (…, k, n), z (…, m, n), equal leading dimensions or y without any.

    ``y`` may be a transposed or otherwise strided view. A bias is added after z was reshared, so it is no part of it.
    """

    label: str
    x: Pieces
    y: MadePieces
    z: Pieces
    masks: tuple[Draw, Draw]


@dataclass(frozen=True)
class Words:
    """64 AND gates a word (int64): z_i = (x_i & y_i) ⊕ (x_i & y_{i+1}) ⊕ (x_{i+1} & y_i) ⊕ F(S_i) ⊕ F(S_{i+1}).

    Claim of P_i: a = z_i ⊕ F(S_i) ⊕ (x_i & y_i), b = F(S_{i+1}), terms (x_i, y_{i+1}) and (y_i, x_{i+1}).
    y None: the sum over the three pairs of neighbouring pieces alone (three bits' majority is made of it),
    z_i = (x_i & x_{i+1}) ⊕ F(S_i) ⊕ F(S_{i+1}): a = z_i ⊕ F(S_i), b = F(S_{i+1}), the one term (x_i, x_{i+1}).
    """

    label: str
    x: Pieces
    y: Pieces | None
    z: Pieces
    masks: tuple[Draw, Draw]


@dataclass(frozen=True)
class OneParty:
    """A sum that only P_prover computed, mod 2^bits: a + b ≡ Σ_r u_r·v_r, ``count`` outputs, int64 (count,) each.

    ``a`` and ``u`` are None at B = P_{prover+1}, ``b`` and ``v`` at A = P_{prover-1}; the prover has all four. They
    are computed when asked for, from pieces that are kept, for a slice of the outputs that begins and ends at whole
    words of 64 (or at ``count``); u and v are the same words at both who know them. Only the low ``bits`` of a + b,
    and of Σ u·v, mean anything.
    """

    label: str
    prover: int
    bits: int
    count: int
    terms: int
    a: Lazy | None = field(repr=False)
    b: Lazy | None = field(repr=False)
    u: LazyTerms | None = field(repr=False)
    v: LazyTerms | None = field(repr=False)


Claim = Product | Matrix | Words | OneParty


class Claims(Interface):
    """Where records go: ``Runtime.claims``; None, as in aby3 itself, keeps nothing.

    ``add`` is called in the party's own thread, between rounds, in the same order at all three parties, with one
    record of every product and of every one-party sum.
    """

    def add(self, claim: Claim) -> None: ...
