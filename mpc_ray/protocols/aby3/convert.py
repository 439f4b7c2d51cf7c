"""Between numbers and bits: windows of a number as bits, and sums of bits as numbers.

**Arithmetic to Boolean.** Piece x_i is known to two parties, so its bits are shared without a message. Three addends
become two by one majority (carry-save), two become one by a parallel-prefix adder (Sklansky, 1960), over the bits of
the window only: bits t … t+n-1 of Σ x_i are those of Σ (x_i >> t) mod 2^n but for what the bits below carry, so a
window is its true value, or that less 1 or 2.

**Boolean to arithmetic.** b = b_k ⊕ b_{k+1} ⊕ b_{k+2}: with u = b_k ⊕ b_{k+1}, known to the owner, b = b_{k+2} +
(1 - 2·b_{k+2})·u, so Σ_j c_j·b_j is a one-party sum: J elements from the owner, and one each from the others for
every sum that is wanted of the same bits. (One bit by itself: 3 elements, as in malicious.md's form of ABY3 §5.4.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mpc_ray.kernels.planes import WORD, planes, spread
from mpc_ray.kernels.replicated import bits_others, bits_owner, bits_sum
from mpc_ray.protocols.aby3.bits import Bits, and_, join, majority, stack
from mpc_ray.protocols.aby3.one_party import one_party_sums
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.sharing.replicated import Shared


def add_rounds(n: int) -> int:
    """Rounds of a window of n bits: majority, generate, and the levels of the prefix tree."""
    return 0 if n == 1 else 1 if n == 2 else 2 + max(0, (n - 3).bit_length())


def add_gates(n: int) -> int:
    """AND gates an element of a window of n bits."""
    if n < 3:
        return n - 1
    positions = n - 2
    gates = (n - 1) + positions
    for level in range((positions - 1).bit_length()):
        chosen = [q for q in range(positions) if q >> level & 1]
        gates += len(chosen) + sum(1 for q in chosen if q >> (level + 1))
    return gates


def window(place: Place, x: Shared, t: int, n: int, constant: int = 0) -> Protocol[Bits]:
    """Bits of ⌊(x + constant) / 2^t⌋ mod 2^n, or of that less 1 or 2 (t = 0: exact): planes (n, …, words) along x's
    last axis.

    ``add_rounds(n)`` rounds, ``add_gates(n)`` bits an element a party; spare bits of the last word count.
    """
    me = place.me
    first = planes(x.own, constant if me == 0 else 0, t, n)
    second = planes(x.next, constant if me == 2 else 0, t, n)
    addends = Bits(first, second)  # piece i of the sum without carries is the bits of x_i
    if n == 1:
        return addends
    carries = yield from majority(place, addends[: n - 1])
    return (yield from _add(place, addends, carries))


def _add(place: Place, a: Bits, carries: Bits) -> Protocol[Bits]:
    """a + 2·carries mod 2^n."""
    n = len(a)
    p = a[1:] ^ carries  # positions 1 … n-1
    if n == 2:
        return join([a[:1], p])
    g = yield from and_(place, a[1 : n - 1], carries[: n - 2])
    into = yield from _prefix(place, g, p[: n - 2])
    return join([a[:1], p[:1], p[1:] ^ into])


def _prefix(place: Place, g: Bits, p: Bits) -> Protocol[Bits]:
    """Carries out of positions 0 … q for every q, from generate and propagate bits."""
    generate = [g[q] for q in range(len(g))]
    propagate = [p[q] for q in range(len(p))]
    level = 0
    while 1 << level < len(generate):
        chosen = [q for q in range(len(generate)) if q >> level & 1]
        partner = {q: (q >> level << level) - 1 for q in chosen}
        more = [q for q in chosen if q >> (level + 1)]
        left = stack([propagate[q] for q in chosen] + [propagate[q] for q in more])
        right = stack([generate[partner[q]] for q in chosen] + [propagate[partner[q]] for q in more])
        both = yield from and_(place, left, right)
        for i, q in enumerate(chosen):
            generate[q] = generate[q] ^ both[i]
        for i, q in enumerate(more):
            propagate[q] = both[len(chosen) + i]
        level += 1
    return stack(generate)


@dataclass(frozen=True)
class _BitSums:
    """Σ_j coefficients[r, j]·b_j: the part that needs the owner."""

    own: torch.Tensor  # planes (J, words)
    next: torch.Tensor
    coefficients: torch.Tensor

    @property
    def parts(self) -> int:
        return len(self.own)

    @property
    def outputs(self) -> int:
        return len(self.coefficients)

    def _planes(self, side: int, part: slice) -> torch.Tensor:
        return (self.own if side == 0 else self.next)[:, part.start // WORD : part.stop // WORD]

    def owner(self, k: int, part: slice, masks: torch.Tensor) -> torch.Tensor:
        return bits_owner(self._planes(0, part), self._planes(1, part), masks)

    def others(self, k: int, which: int, part: slice, d: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return bits_others(self._planes(1 if which == 1 else 0, part), d, self.coefficients, masks)

    def terms(self, r: int) -> int:
        return 2

    def left(self, side: int, k: int, part: slice, r: int) -> Sequence[torch.Tensor]:
        b = self._bit(side, part, r)
        return [b, 1 - 2 * b]

    def right(self, side: int, k: int, part: slice, r: int) -> Sequence[torch.Tensor]:
        b = self._bit(side, part, r)
        return [torch.ones_like(b), b]

    def factors(self, side: int, k: int, part: slice, output: int) -> Sequence[torch.Tensor]:
        return [self.coefficients[output, j] * (1 - 2 * self._bit(side, part, j)) for j in range(self.parts)]

    def values(self, side: int, k: int, which: int, part: slice, d: torch.Tensor) -> Sequence[torch.Tensor]:
        return list(d)

    def _bit(self, side: int, part: slice, j: int) -> torch.Tensor:
        return spread(self._planes(side, part)[j], part.stop - part.start)


def sums_of_bits(
    place: Place, bits: Bits, coefficients: torch.Tensor, constants: torch.Tensor, scale: int
) -> Protocol[list[Shared]]:
    """⟨Σ_j coefficients[r, j]·b_j + constants[r]⟩ for every r: coefficients int64 (R, J), bits (J, words), elements
    64·words each, flat.

    2 rounds; 8·(J + 2R) bytes an element, all parties together. A single bit as a number: R = J = 1, 24 bytes.
    """
    me, count = place.me, WORD * bits.shape[-1]
    form = _BitSums(bits.own, bits.next, coefficients)
    q = yield from one_party_sums(place, form, count)
    own, following = q.own, q.next
    # Piece k+2's own bits, in owner k's chunk, belong to both others: no message.
    for k in range(3):
        words = slice(bits.shape[-1] * k // 3, bits.shape[-1] * (k + 1) // 3)
        part = slice(WORD * words.start, WORD * words.stop)
        for side, pieces, sums in ((0, bits.own, own), (1, bits.next, following)):
            if (me + side) % 3 == (k + 2) % 3 and words.start < words.stop:
                sums[:, part] += bits_sum(pieces[:, words], coefficients, part.stop - part.start)
    if me != 1:  # piece 0's two holders
        (own if me == 0 else following).add_(constants.unsqueeze(-1))
    return [Shared(own[r], following[r], scale) for r in range(len(coefficients))]


def to_number(place: Place, bit: Bits, count: int, scale: int = 0) -> Protocol[Shared]:
    """A shared bit as a shared 0 or 1 at ``scale``, flat (count,). 2 rounds, 8 bytes an element a party."""
    one = torch.tensor([[1 << scale]])
    (number,) = yield from sums_of_bits(place, bit, one, torch.zeros(1, dtype=torch.int64), scale)
    return number[:count]
