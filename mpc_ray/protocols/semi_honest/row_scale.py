"""Rows times a factor known to nobody, without a round of its own."""

from __future__ import annotations

import torch

from mpc_ray.channel.meter import OFFLINE, ONLINE
from mpc_ray.protocols.semi_honest.lookup import DealerProduct
from mpc_ray.protocols.semi_honest.role import Dealt, Role
from mpc_ray.protocols.semi_honest.truncate import Truncation


class RowScale:
    """y_ij = z_ij·f_i: a truncation in masked form times a DealerProduct of its row, in the product's round.

    D deals r_hi·β, r_hi·κ and the same for the top bit: (parts+1)·(8 + ⌈f/8⌉) bytes an element. No round.
    """

    def __init__(self, role: Role, z: Truncation, product: DealerProduct, parts: int) -> None:
        self.role, self.z, self.product = role, z, product
        shape = (parts + 1, *z.shape)
        high = bits = None
        if role.is_d:
            factors = torch.cat([product.beta, product.kappa.unsqueeze(0)]).unsqueeze(-1)
            high = z.r_hi * factors
            bits = z.r_msb * factors if z.f else None  # type: ignore[operator]
        phase = ONLINE if ONLINE in (z.opening.phase, product.phase) else OFFLINE
        self._high = role.deal(high, shape, "r_hi·beta", phase=phase)
        self._bits = role.deal(bits, shape, "r_msb·beta", z.bit_bytes, phase) if z.f else None

    def share(self) -> torch.Tensor | None:
        """An evaluator's share of y, at scale z.scale + f.scale; D gets None."""
        if self.role.is_d:
            return None
        c, g = self.z.public
        factor = self.product.share()
        assert factor is not None
        y = c * factor.unsqueeze(-1) - self._combine(self._high)
        if self._bits is not None and g is not None:
            y += (g * self._combine(self._bits)) << (64 - self.z.f)
        return y

    def _combine(self, dealt: Dealt) -> torch.Tensor:
        share = dealt.share()
        total = share[-1].clone()
        for i, m in enumerate(self.product.m):
            total += m.unsqueeze(-1) * share[i]
        return total
