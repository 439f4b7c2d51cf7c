"""Normalisation of rows: layer norm (of values whose mean the weights already remove) and L2 norm."""

from __future__ import annotations

from dataclasses import dataclass

from mpc_ray.functions.plan import NormPlan
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.protocols.semi_honest.lookup import OneHot, deal_index, spline_product
from mpc_ray.protocols.semi_honest.open import Opening, open_masked, reshare
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.row_scale import RowScale
from mpc_ray.protocols.semi_honest.thirds import Halves
from mpc_ray.protocols.semi_honest.truncate import Truncation
from mpc_ray.sharing.fixed import PRODUCT_BITS, check_scale
from mpc_ray.sharing.replicated import Shared, Summand


@dataclass(frozen=True, eq=False)
class Squares:
    """Rows in masked form, and the opening of their sums of squares, begun in this round, with D's one-hot."""

    truncation: Truncation
    opening: Opening
    one_hot: OneHot


def open_squares(role: Role, z: Summand | Halves, plan: NormPlan, checks: RangeChecks) -> Protocol[Squares]:
    """[z] (rows, d) → z in masked form at plan.centre_scale, its rows' sums of squares being opened. 1 round, and a
    second one begun.

    The sum of squares itself costs no message: it is public·dealt in masked form.
    """
    truncation = Truncation(role, z, z.scale - plan.centre_scale).deal_shares(squares=True)
    if truncation.f:
        checks.add(role, truncation.opening, PRODUCT_BITS + 1)
    yield
    opening = open_masked(role, truncation.sum_of_squares(), z.shape[:-1])
    window = plan.rsqrt.window
    check_scale(window.scale, 2 * plan.centre_scale, f"{role.label}: sum of squares")
    one_hot = deal_index(role, opening, window)
    checks.add(role, opening, window.t + window.n, centred=False)
    return Squares(truncation, opening, one_hot)


def scaled_rows(role: Role, z: Summand | Halves, plan: NormPlan, checks: RangeChecks) -> Protocol[RowScale]:
    """[z] (rows, d) → z_ij·rsqrt(Σ_j z_ij²) in 2-of-2 form, at plan.centre_scale + plan.rsqrt.scale.

    3 rounds: open with the truncation, open the sum of squares, multiply. Bytes an element: 8 from E0, E1 each; from
    D 8 + 2⌈f/8⌉ and (d+2)·(8 + ⌈f/8⌉) for the scaling, with d the spline's degree.
    """
    squares = yield from open_squares(role, z, plan, checks)
    yield
    product = spline_product(role, plan.rsqrt, squares.one_hot, squares.opening)
    checks.add_flag(role, product.flag)
    scaled = RowScale(role, squares.truncation, product.value, plan.rsqrt.degree + 1)
    yield
    return scaled


def normalise(role: Role, z: Summand | Halves, plan: NormPlan, checks: RangeChecks) -> Protocol[Shared]:
    """[z] → ⟨z_ij·rsqrt(Σ_j z_ij²/d)⟩ at plan.scale. 4 rounds: ``scaled_rows`` and a reshare."""
    scaled = yield from scaled_rows(role, z, plan, checks)
    return (yield from reshare(role, scaled.share(), z.shape, plan.scale))
