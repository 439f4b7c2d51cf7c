"""Exact maximum and argmax along an axis: a tournament of exact comparisons.

Every level compares neighbours, d = left - right, and keeps left - [d < 0]·d; the index goes with it. Between levels
the values stay 2-of-2 at E0 and E1, so a level costs 4 rounds and only the end is reshared. Of equal entries the first
wins.
Nobody learns anything: every message is one of ``compare``, ``select`` and ``reshare``.
"""

from __future__ import annotations

import torch

from mpc_ray.errors import InputError
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.protocols.semi_honest.bits import packed_bytes
from mpc_ray.protocols.semi_honest.compare import sign, sign_bytes
from mpc_ray.protocols.semi_honest.open import reshare
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.select import Selection, masked, two_of_two
from mpc_ray.sharing.replicated import Shared


def rounds(n: int) -> int:
    """Rounds of ``maximum`` and ``argmax`` over n entries: 4⌈log2 n⌉ + 1."""
    return 4 * (n - 1).bit_length() + 1 if n > 1 else 0


def tournament_bytes(rows: int, n: int, index: bool) -> tuple[int, int]:
    """Bytes that (each evaluator, D) sends: over levels of N pairs, signs and B = ⌈N/8⌉ and 16N; index: 8N both, not
    on the first level; 8 a row from each evaluator to reshare."""
    if n == 1:
        return 0, 0
    evaluator, dealer, width, first = 8 * rows, 0, n, True
    while width > 1:
        pairs = rows * (width // 2)
        e, d = sign_bytes(pairs)
        extra = 8 * pairs if index and not first else 0
        evaluator += e + packed_bytes(pairs) + extra
        dealer += d + 16 * pairs + extra
        width, first = (width + 1) // 2, False
    return evaluator, dealer


def maximum(role: Role, x: Shared, axis: int = -1) -> Protocol[Shared]:
    """⟨max x⟩ along ``axis``, exact, at x's scale. |x| < 2^62.

    4⌈log2 n⌉ + 1 rounds; n = 1: none. Bytes: ``tournament_bytes(rows, n, index=False)``, 84.5 a compared pair, all
    parties together.
    """
    x = x.map(lambda t: t.movedim(axis, -1).contiguous())
    if _width(x) == 1:
        return x[..., 0]
    best, _ = yield from _play(role, x, indexed=False)
    return (yield from reshare(role, None if role.is_d else best, best.shape, x.scale))


def argmax(role: Role, x: Shared, axis: int = -1) -> Protocol[Shared]:
    """⟨index of the maximum⟩ along ``axis`` at scale 0, the lowest where several are equal. |x| < 2^62.

    Rounds as ``maximum``; bytes: ``tournament_bytes(rows, n, index=True)``. No party learns the index.
    """
    x = x.map(lambda t: t.movedim(axis, -1).contiguous())
    if _width(x) == 1:
        return Shared(torch.zeros_like(x.own[..., 0]), torch.zeros_like(x.own[..., 0]), 0)
    _, index = yield from _play(role, x, indexed=True)
    return (yield from reshare(role, None if role.is_d else index, index.shape, 0))


def _width(x: Shared) -> int:
    if not x.shape or x.shape[-1] == 0:
        raise InputError("maximum of nothing", remedy="the axis needs at least one entry")
    return int(x.shape[-1])


def _play(role: Role, x: Shared, indexed: bool) -> Protocol[tuple[torch.Tensor, torch.Tensor]]:
    """2-of-2 shares of (maximum, its index), shape without the last axis; zeros at D."""
    value = two_of_two(role, x)
    index = torch.arange(x.shape[-1]).expand(x.shape) * int(role.is_e0)
    first = True
    while value.shape[-1] > 1:
        even = value.shape[-1] // 2 * 2
        left, place = value[..., 0:even:2], index[..., 0:even:2]
        d, apart = left - value[..., 1:even:2], place - index[..., 1:even:2]
        opened = [masked(role, d, x.scale)]
        if indexed and not first:
            opened.append(masked(role, apart, 0))
        right_wins = yield from sign(role, opened[0].opening)
        selection = Selection(role, right_wins, opened)
        yield
        if not role.is_d:
            change = selection.product(0, d)
            assert change is not None
            left = left - change
            if indexed:  # on the first level the two indices differ by 1, publicly
                moved = selection.bit_share() if first else selection.product(1, apart)
                assert moved is not None
                place = place + moved if first else place - moved
        value = torch.cat([left, value[..., even:]], -1)
        index = torch.cat([place, index[..., even:]], -1)
        first = False
    return value[..., 0], index[..., 0]
