"""Exact truncation in masked form: what everything after a product is built on.

E0 and E1 open c = z + 2^62 + r. Then, for |z| < 2^62,
    z >> f  =  C - r_hi + g·r_msb·2^(64-f),   C = (c >> f) - 2^(62-f),  g = 1 - msb(c),
with r_hi = r >> f and r_msb = msb(r) known to D. The result is z/2^f rounded down, or one more with
probability equal to the fraction dropped; never a large error. (semi-honest analogue of the truncation pairs
of ABY3 §5.1, with the dealer's summand folded into the mask.)
"""

from __future__ import annotations

import torch

from mpc_ray.kernels.elementwise import truncate_dealer, truncate_public, truncated_share
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.protocols.semi_honest.open import Opening, open_masked, reshare
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Dealt, Role
from mpc_ray.protocols.semi_honest.thirds import Halves
from mpc_ray.sharing.fixed import PRODUCT_BITS
from mpc_ray.sharing.replicated import Shared, Summand


class Truncation:
    """z >> f in masked form. After the round: E0, E1 know (C, g); D knows (r_hi, r_msb) at once.

    f = 0 means z itself in masked form: C = c, r_hi = r, no top bit to correct.
    """

    def __init__(self, role: Role, z: Summand | Halves, f: int) -> None:
        if not 0 <= f < PRODUCT_BITS:
            raise ValueError(f"cannot truncate by {f} bits")
        self.role, self.f, self.shape = role, f, z.shape
        self.scale = z.scale - f
        self.bit_bytes = -(-f // 8)
        constant = 1 << PRODUCT_BITS if f else 0
        self.opening: Opening = open_masked(role, z.value, z.shape, constant)
        self._public: tuple[torch.Tensor, torch.Tensor | None] | None = None
        if role.is_d:
            r = self.opening.r
            self.r_hi: torch.Tensor = r
            self.r_msb: torch.Tensor | None = None
            if f:
                self.r_hi, self.r_msb = truncate_dealer(r, f)
        self._r_hi: Dealt | None = None
        self._r_msb: Dealt | None = None
        self._squares: Dealt | None = None
        self._cross: Dealt | None = None

    def deal_shares(self, squares: bool = False) -> Truncation:
        """D deals r_hi and r_msb (mod 2^f); with ``squares`` also what a row's sum of squares needs.

        D sends 8 + ⌈f/8⌉ bytes an element; squares: ⌈f/8⌉ an element and 8 a row more.
        """
        role, d, phase = self.role, self.role.is_d, self.opening.phase
        self._r_hi = role.deal(self.r_hi if d else None, self.shape, "r_hi", phase=phase)
        if self.f:
            self._r_msb = role.deal(self.r_msb if d else None, self.shape, "r_msb", self.bit_bytes, phase)
        if squares:
            total = (self.r_hi * self.r_hi).sum(-1) if d else None
            self._squares = role.deal(total, self.shape[:-1], "r_hi²", phase=phase)
            if self.f:
                cross = self.r_hi * self.r_msb if d else None  # type: ignore[operator]
                self._cross = role.deal(cross, self.shape, "r_hi·r_msb", self.bit_bytes, phase)
        return self

    @property
    def public(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(C, g) at an evaluator; g is None when f = 0."""
        if self._public is None:
            self._public = truncate_public(self.opening.c, self.f) if self.f else (self.opening.c, None)
        return self._public

    def shares(self) -> torch.Tensor | None:
        """2-of-2 shares of z >> f (evaluators; D gets None). Needs ``deal_shares``."""
        if self.role.is_d:
            return None
        assert self._r_hi is not None
        c, g = self.public
        mine = c if self.role.is_e0 else None
        if g is None:
            return -self._r_hi.share() if mine is None else mine - self._r_hi.share()
        assert self._r_msb is not None
        return truncated_share(mine, g, self._r_hi.share(), self._r_msb.share(), self.f)

    def sum_of_squares(self) -> torch.Tensor | None:
        """2-of-2 shares of Σ_j (z_j >> f)² along the last dimension, no message. Needs squares dealt.

        (C - r_hi + t)² with t = g·r_msb·2^(64-f): every term is public·dealt, mod 2^64.
        """
        if self.role.is_d:
            return None
        assert self._r_hi is not None and self._squares is not None
        c, g = self.public
        total = c * self._r_hi.share() * -2
        if self.role.is_e0:
            total = total + c * c
        if g is not None:
            assert self._r_msb is not None and self._cross is not None
            bit = self._r_msb.share()
            total = total + ((g * (c * bit - self._cross.share())) << (65 - self.f))
            if 2 * self.f > 64:
                total = total + ((g * bit) << (128 - 2 * self.f))
        return total.sum(-1) + self._squares.share()


def truncate(role: Role, z: Summand | Halves, f: int, checks: RangeChecks | None = None) -> Protocol[Shared]:
    """[z] → ⟨z >> f⟩. 2 rounds; 8 + 8 bytes an element from E0 and E1 each, 8 + ⌈f/8⌉ from D. |z| < 2^62."""
    truncation = Truncation(role, z, f).deal_shares()
    if checks is not None and f:
        checks.add(role, truncation.opening, PRODUCT_BITS + 1)
    yield
    return (yield from reshare(role, truncation.shares(), truncation.shape, truncation.scale))
