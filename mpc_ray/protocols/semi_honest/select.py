"""A secret bit times a secret value, exactly: conversion of bits, selection, ReLU.

D knows a fresh random bit ρ; E0 and E1 open v = b ⊕ ρ, one bit. For y = C - r_hi + g·r_msb·2^(64-f), the masked form of
an opening (f = 0: y = c - r), ρ·y is local once D has dealt ρ, ρ·r_hi and ρ·r_msb, and
    b = v + (1 - 2v)·ρ,    b·y = v·y + (1 - 2v)·ρ·y.

Who receives what: E0 and E1 each other's half of v, padded by a half of ρ that the receiver lacks, so v is uniform to
both; E1 from D the dealt values under one-time pads of S_k. D receives nothing.
"""

from __future__ import annotations

import torch

from mpc_ray.channel.meter import OFFLINE
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.protocols.semi_honest.bits import SecretBit, packed_bytes, unpack
from mpc_ray.protocols.semi_honest.compare import sign
from mpc_ray.protocols.semi_honest.open import reshare
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Dealt, Role
from mpc_ray.protocols.semi_honest.truncate import Truncation
from mpc_ray.sharing.fixed import PRODUCT_BITS, check_scale
from mpc_ray.sharing.replicated import Shared, Summand, summand


class Selection:
    """b·y for one bit and any number of values in masked form, begun in this round; read after it.

    The values' openings may belong to this very round. ``values`` have the bit's shape. E0 and E1 send ⌈N/8⌉ bytes
    each; D 8 bytes an element, and for every value 8 + ⌈f/8⌉ more.
    """

    def __init__(self, role: Role, bit: SecretBit, values: list[Truncation]) -> None:
        self.role, self.bit, self.values = role, bit, values
        shape, length = bit.shape, packed_bytes(bit.count)
        rho = None
        if role.is_d:
            both = role.bytes_with_e0("select mask", length) ^ role.bytes_with_e1("select mask", length)
            rho = unpack(both, bit.count).reshape(shape)
        else:
            assert bit.share is not None
            self._mine = bit.share ^ role.bytes_with_dealer("select mask", length)
            role.send(role.other, self._mine, "select")
            self._arrival = role.expect(role.other, length)
        self._rho = role.deal(rho, shape, "rho", phase=OFFLINE)
        self._high: list[Dealt] = []
        self._top: list[Dealt | None] = []
        for y in values:
            assert y.shape == shape
            high = top = None
            if rho is not None:
                high = rho * y.r_hi
                top = rho * y.r_msb if y.r_msb is not None else None
            phase = y.opening.phase
            self._high.append(role.deal(high, shape, "rho·r_hi", phase=phase))
            self._top.append(role.deal(top, shape, "rho·r_msb", y.bit_bytes, phase) if y.f else None)
        self._v: torch.Tensor | None = None

    @property
    def v(self) -> torch.Tensor:
        """b ⊕ ρ (evaluators), int64."""
        if self._v is None:
            self._v = unpack(self._mine ^ self._arrival.bytes(), self.bit.count).reshape(self.bit.shape)
        return self._v

    def bit_share(self) -> torch.Tensor | None:
        """2-of-2 share of b in Z_2^64; D gets None."""
        if self.role.is_d:
            return None
        share = (1 - 2 * self.v) * self._rho.share()
        return share + self.v if self.role.is_e0 else share

    def product(self, i: int, whole: torch.Tensor | None) -> torch.Tensor | None:
        """2-of-2 share of b·y_i. ``whole``: an evaluator's 2-of-2 share of y_i."""
        if self.role.is_d:
            return None
        assert whole is not None
        y = self.values[i]
        c, g = y.public
        rho_y = c * self._rho.share() - self._high[i].share()
        top = self._top[i]
        if g is not None and top is not None:
            rho_y += (g * top.share()) << (64 - y.f)
        return self.v * whole + (1 - 2 * self.v) * rho_y


def two_of_two(role: Role, x: Shared) -> torch.Tensor:
    """⟨x⟩ → 2-of-2 at E0 and E1, local: E0 takes x_k + x_{k+1}, E1 x_{k+2}, D nothing (zeros)."""
    if role.is_e0:
        return x.own + x.next
    return x.next if role.is_e1 else torch.zeros_like(x.own)


def masked(role: Role, value: torch.Tensor, scale: int) -> Truncation:
    """A 2-of-2 value in masked form, opened in this round; D passes zeros, and what it deals for it is free of data."""
    opened = Truncation(role, Summand(value, scale), 0)
    opened.opening.phase = OFFLINE
    return opened


def to_shared(role: Role, bit: SecretBit) -> Protocol[Shared]:
    """XOR-shared b → ⟨b⟩ at scale 0. 2 rounds; E0, E1 send ⌈N/8⌉ + 8N bytes each, D 8N."""
    selection = Selection(role, bit, [])
    yield
    return (yield from reshare(role, selection.bit_share(), bit.shape, 0))


def select(role: Role, bit: SecretBit, x: Shared, y: Shared) -> Protocol[Shared]:
    """⟨x where b, else y⟩, exact, at the scale of both. x, y: the bit's shape, |x - y| may wrap.

    2 rounds: x - y is opened with v; reshare. E0, E1 send 16N + ⌈N/8⌉ bytes each, D 16N.
    """
    check_scale(y.scale, x.scale, f"{role.label}: selection")
    first, second = two_of_two(role, x), two_of_two(role, y)
    difference = masked(role, first - second, x.scale)
    selection = Selection(role, bit, [difference])
    yield
    chosen = selection.product(0, first - second)
    return (yield from reshare(role, None if chosen is None else second + chosen, x.shape, x.scale))


def relu(role: Role, z: Summand | Shared, f: int = 0, checks: RangeChecks | None = None) -> Protocol[Shared]:
    """⟨max(z, 0) >> f⟩ at z.scale - f, exact at every value; the truncation costs no round.

    f = 0: any z, the result is exactly max(z, 0). f > 0: |z| < 2^62; z >> f is rounded as in ``truncate``, and a
    negative z gives exactly 0. 5 rounds: sign (3), selection, reshare. For N values, B = ⌈N/8⌉, m = ⌈f/8⌉:
    E0 and E1 send 16N + 34B bytes each; D (48 + m)N + 96B, and (8 + m)N more for the shares of z >> f unless z is
    replicated and f = 0.
    """
    local = isinstance(z, Shared) and f == 0
    if isinstance(z, Shared):
        z = Summand(two_of_two(role, z), z.scale) if local else summand(z)
    y = masked(role, z.value, z.scale) if local else Truncation(role, z, f).deal_shares()
    if checks is not None and f:
        checks.add(role, y.opening, PRODUCT_BITS + 1)
    negative = yield from sign(role, y.opening, 1 << PRODUCT_BITS if f else 0)
    selection = Selection(role, negative.flipped(role), [y])
    yield
    whole = z.value if local else y.shares()
    return (yield from reshare(role, selection.product(0, whole), z.shape, y.scale))


def relu_bytes(count: int, f: int, local: bool) -> tuple[int, int]:
    """Bytes that (each evaluator, D) sends in ``relu``; ``local``: z is replicated and f = 0."""
    b, m = packed_bytes(count), -(-f // 8)
    return 16 * count + 34 * b, (48 + m + (0 if local else 8 + m)) * count + 96 * b
