"""Exact comparison, selection, maximum and argmax of shared numbers: right at every value, the ones around zero
included.

The sign of x is the top bit of the sum of its three pieces: a majority, then the carry into the top place, by a tree
that keeps nothing else (ABY3, CCS 2018, §5.3, with each piece's bits shared by both of its holders). What is wanted
as a number goes through ``convert.to_number``.

Where parties are told of a slow link (``link``, the same at all three), the sign may go through Yao's sharing instead
(``yao.negative``): 2 rounds in place of 10, and 27 times the bytes; ``choice`` decides.
"""

from __future__ import annotations

import torch

from mpc_ray.cost.links import Link
from mpc_ray.errors import InputError
from mpc_ray.kernels.planes import planes
from mpc_ray.protocols.aby3 import yao
from mpc_ray.protocols.aby3.bits import Bits, and_, join, majority
from mpc_ray.protocols.aby3.choice import choose
from mpc_ray.protocols.aby3.convert import to_number
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.product import multiply
from mpc_ray.protocols.aby3.truncate import flat
from mpc_ray.protocols.runtime import Protocol, together
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared

RING_BITS = 64
SIGN_ROUNDS = 2 + (RING_BITS - 3).bit_length()


def sign_gates() -> int:
    """AND gates an element of ``less_than_zero``."""
    positions = RING_BITS - 2
    gates = RING_BITS - 1 + positions
    while positions > 1:
        gates += 2 * (positions // 2) - 1
        positions = (positions + 1) // 2
    return gates


def less_than_zero(place: Place, x: Shared) -> Protocol[Bits]:
    """[x < 0] for any x in Z_2^64 read as two's complement: one plane (1, words) of flat x.

    8 rounds; ``sign_gates()`` bits an element a party, spare ones of the last word included.
    """
    own, following, _ = flat(x)
    addends = Bits(planes(own, 0, 0, RING_BITS), planes(following, 0, 0, RING_BITS))
    carries = yield from majority(place, addends[: RING_BITS - 1])
    p = addends[1:] ^ carries  # places 1 … 63
    g = yield from and_(place, addends[1 : RING_BITS - 1], carries[: RING_BITS - 2])
    into_top = yield from _carry(place, g, p[: RING_BITS - 2])
    return p[RING_BITS - 2 :] ^ into_top


def _carry(place: Place, g: Bits, p: Bits) -> Protocol[Bits]:
    """The carry out of the highest place, from every place's generate and propagate bits; the lowest first."""
    while len(g) > 1:
        n = len(g)
        pairs = n // 2
        low, high = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        both = yield from and_(place, join([p[high], p[high][1:]]), join([g[low], p[low][1:]]))
        generate = g[high] ^ both[:pairs]
        propagate = join([p[:1], both[pairs:]])  # the lowest pair's is never looked at
        if n % 2:
            generate, propagate = join([generate, g[n - 1 :]]), join([propagate, p[n - 1 :]])
        g, p = generate, propagate
    return g


def less_than(place: Place, x: Shared, y: Shared) -> Protocol[Bits]:
    """[x < y], strictly, for |x|, |y| < 2^62 of one scale and shape; rounds and bytes as ``less_than_zero``."""
    check_scale(y.scale, x.scale, f"{place.label}: comparison")
    return (yield from less_than_zero(place, Shared(x.own - y.own, x.next - y.next, x.scale)))


def number_of(place: Place, bit: Bits, shape: torch.Size) -> Protocol[Shared]:
    """One plane as shared 0 or 1 of ``shape``, at scale 0. 2 rounds, 8 bytes an element a party."""
    number = yield from to_number(place, bit, shape.numel())
    return number.map(lambda t: t.reshape(shape))


def negative(place: Place, x: Shared, link: Link | None = None) -> Protocol[Shared]:
    """[x < 0] as 0 or 1 at scale 0. 10 rounds; or 2, by Yao's sharing, where ``link`` makes that faster."""
    if link is not None and choose(x.own.numel(), link) == "yao":
        return (yield from yao.negative(place, x))
    bit = yield from less_than_zero(place, x)
    return (yield from number_of(place, bit, x.shape))


def select(place: Place, bit: Shared, x: Shared, y: Shared) -> Protocol[Shared]:
    """x where bit is 1, y where it is 0: y + bit·(x - y), at their common scale. 1 round, 8 bytes an element a
    party.
    """
    check_scale(y.scale, x.scale, f"{place.label}: selection")
    chosen = yield from multiply(place, bit, Shared(x.own - y.own, x.next - y.next, x.scale))
    return y + chosen


def relu(place: Place, x: Shared, link: Link | None = None) -> Protocol[Shared]:
    """⟨max(x, 0)⟩, exact. 11 rounds; 16 bytes and ``sign_gates()`` bits an element a party. By Yao's sharing 3
    rounds.
    """
    bit = yield from negative(place, x, link)
    zero = Shared(torch.zeros_like(x.own), torch.zeros_like(x.next), x.scale)
    return (yield from select(place, bit, zero, x))


LEVEL_ROUNDS = SIGN_ROUNDS + 3


def maximum(place: Place, x: Shared, link: Link | None = None) -> Protocol[Shared]:
    """The largest along the last axis, |x| < 2^62. 11 rounds a level of the tournament, ⌈log2 n⌉ levels; 3
    a level by Yao's sharing, chosen for each level by itself.

    A pair (n - 1 a row): 16 bytes and ``sign_gates()`` bits a party.
    """
    value, _ = yield from _play(place, x, False, link)
    return value


def argmax(place: Place, x: Shared, link: Link | None = None) -> Protocol[Shared]:
    """The place of the largest along the last axis, at scale 0; of equals the first. As ``maximum``, and 8 bytes a
    pair a party more from the second level on.
    """
    _, index = yield from _play(place, x, True, link)
    return index


def _play(place: Place, x: Shared, indexed: bool, link: Link | None) -> Protocol[tuple[Shared, Shared]]:
    if not x.shape or x.shape[-1] == 0:
        raise InputError("maximum of nothing", remedy="the axis needs at least one entry")
    value = x
    numbers, zeros = torch.arange(x.shape[-1]).expand(x.shape), torch.zeros(x.shape, dtype=torch.int64)
    index = Shared(numbers if place.me == 0 else zeros, numbers if place.me == 2 else zeros, 0)
    first = True
    while value.shape[-1] > 1:
        even = value.shape[-1] // 2 * 2
        left, right = value[..., 0:even:2], value[..., 1:even:2]
        difference = Shared(left.own - right.own, left.next - right.next, x.scale)
        bit = yield from negative(place, difference, link)
        moves = [select(place, bit, right, left)]
        near, far = index[..., 0:even:2], index[..., 1:even:2]
        if indexed and not first:
            moves.append(select(place, bit, far, near))
        moved = yield from together(moves)
        # On the first level the two indices differ by 1, publicly.
        taken = near + bit if first else moved[-1]
        value = _joined(moved[0], value[..., even:])
        index = _joined(taken, index[..., even:]) if indexed else index
        first = False
    return value[..., 0], index[..., 0]


def _joined(x: Shared, rest: Shared) -> Shared:
    return Shared(torch.cat([x.own, rest.own], -1), torch.cat([x.next, rest.next], -1), x.scale)
