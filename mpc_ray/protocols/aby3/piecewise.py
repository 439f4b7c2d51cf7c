"""Piecewise polynomials of shared numbers: the piece by comparison with public knots, its coefficients as sums of
bits.
"""

from __future__ import annotations

import torch

from mpc_ray.functions.piecewise import ARGUMENT_SCALE, FOURTH_SCALE, ROW_FINER, Piecewise
from mpc_ray.protocols.aby3.convert import sums_of_bits, window
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.product import dot, multiply
from mpc_ray.protocols.aby3.thresholds import at_least
from mpc_ray.protocols.aby3.truncate import flat, truncate
from mpc_ray.protocols.runtime import Protocol, together
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared


def coefficients(place: Place, x: Shared, f: Piecewise) -> Protocol[list[Shared]]:
    """The coefficients of x's piece, for flat x of whole words; raw integers, at scale 0.

    Rounds: a window of f.n bits, its comparison, 2; none where there is one piece.
    """
    if not f.knots:
        return [_public(place.me, value, x.own) for value in f.constants]
    index = yield from window(place, x, f.t, f.n, f.constant)
    chosen = yield from at_least(place, index, f.knots)
    return (yield from sums_of_bits(place, chosen, f.steps, f.constants, 0))


def activate(place: Place, x: Shared, f: Piecewise) -> Protocol[Shared]:
    """⟨f(x)⟩ at f.out_scale (not truncated) for x at f.scale, any shape: x, x² and x⁴ times coefficients.

    Rounds: ``coefficients``' and 1 (the powers take 6, side by side). Bytes an element, all parties together: the
    gates', 4·⌈(f.scale - ARGUMENT_SCALE)/8⌉ (x), 24 (x²), 24 + 12 (x⁴), 8·(J + 8), 24.
    """
    check_scale(x.scale, f.scale, f"{place.label}: argument")
    own, following, count = flat(x)
    line = Shared(own, following, x.scale)

    def powers() -> Protocol[list[Shared]]:
        first = yield from truncate(place, line, f.scale - ARGUMENT_SCALE)
        second = yield from multiply(place, first, first)
        fourth = yield from multiply(place, second, second)
        return [first, second, (yield from truncate(place, fourth, fourth.scale - FOURTH_SCALE))]

    found, c = yield from together([powers(), coefficients(place, line, f)])
    return _shaped((yield from _combined(place, found, c, f.out_scale)), count, x.shape)


def row_values(place: Place, x: Shared, f: Piecewise, scale: int) -> Protocol[Shared]:
    """⟨f(x)⟩ at ``scale`` for x at f.scale, one number a row, any shape.

    Rounds: ``coefficients``', 1, and 2 for the truncation.
    """
    check_scale(x.scale, f.scale, f"{place.label}: argument")
    own, following, count = flat(x)
    line = Shared(own, following, x.scale)

    def powers() -> Protocol[list[Shared]]:
        first = yield from truncate(place, line, f.t - ROW_FINER)
        second = yield from multiply(place, first, first)
        if f.square_shift:
            second = yield from truncate(place, second, f.square_shift)
        return [first, second]

    found, c = yield from together([powers(), coefficients(place, line, f)])
    value = yield from _combined(place, found, c, f.out_scale)
    return _shaped((yield from truncate(place, value, f.out_scale - scale)), count, x.shape)


def lookup(
    place: Place, x: Shared, table: torch.Tensor, low_units: int, t: int, scale: int
) -> Protocol[Shared]:
    """⟨table[⌊(x - low) / 2^t⌋ mod 2^n]⟩, exact, for a public table of 2^n entries at ``scale``; x of any shape.

    All t + n low bits are added up, and compared with every entry's beginning. Rounds: a window of t + n bits, its
    comparison, 2. Bytes an element, all parties together: the gates', and 8·(2^n + 1).
    """
    n = (len(table) - 1).bit_length()
    own, following, count = flat(x)
    bits = yield from window(place, Shared(own, following, x.scale), 0, t + n, -low_units)
    reached = yield from at_least(place, bits, [j << t for j in range(1, 1 << n)])
    steps, first = (table[1:] - table[:-1]).unsqueeze(0), table[:1]
    (value,) = yield from sums_of_bits(place, reached, steps, first, scale)
    return _shaped(value, count, x.shape)


def _combined(place: Place, powers: list[Shared], c: list[Shared], scale: int) -> Protocol[Shared]:
    """c_0 + Σ c_k·power_k, whose scales the coefficients' make one. 1 round."""
    left, right = (
        Shared(torch.stack([p.own for p in parts]), torch.stack([p.next for p in parts]), 0)
        for parts in (powers, c[1:])
    )
    total = yield from dot(place, left, right, 0)
    return Shared(total.own + c[0].own, total.next + c[0].next, scale)


def _public(me: int, value: torch.Tensor, like: torch.Tensor) -> Shared:
    """A public number as shares: piece 0 is it."""
    whole, nothing = value.expand_as(like), torch.zeros_like(like)
    return Shared(whole if me == 0 else nothing, whole if me == 2 else nothing, 0)


def _shaped(x: Shared, count: int, shape: torch.Size) -> Shared:
    return x.map(lambda t: t[:count].reshape(shape))
