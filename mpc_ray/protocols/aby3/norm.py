"""Normalisation of rows whose mean the weights already remove: LayerNorm, and the L2 norm."""

from __future__ import annotations

from dataclasses import dataclass

from mpc_ray.functions.piecewise import Piecewise
from mpc_ray.protocols.aby3.piecewise import row_values
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.product import dot, multiply
from mpc_ray.protocols.aby3.range_check import RangeChecks
from mpc_ray.protocols.aby3.truncate import truncate
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.sharing.replicated import Shared


@dataclass(frozen=True)
class RowNorm:
    """Rows are truncated to ``centre_scale`` and multiplied by ``rsqrt`` of their sum of squares, at
    ``factor_scale``.
    """

    centre_scale: int
    rsqrt: Piecewise
    factor_scale: int
    smallest: float

    @property
    def scale(self) -> int:
        return self.centre_scale + self.factor_scale


def normalise(place: Place, z: Shared, plan: RowNorm, checks: RangeChecks) -> Protocol[Shared]:
    """⟨z_ij·f(Σ_j z_ij²)⟩ at plan.scale, not truncated, for rows (rows, width).

    Rounds: 2 where z must be truncated, 1, those of ``row_values``, 1.
    """
    if z.scale > plan.centre_scale:
        checks.product(place.label, z)
        z = yield from truncate(place, z, z.scale - plan.centre_scale)
    total = yield from dot(place, z, z, -1)
    checks.positive(place.label, total, plan.rsqrt, plan.smallest)
    factor = yield from row_values(place, total, plan.rsqrt, plan.factor_scale)
    return (yield from multiply(place, z, factor.map(lambda t: t.unsqueeze(-1))))
