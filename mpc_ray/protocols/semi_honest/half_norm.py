"""Rows whose normalisation is under way: known as shares before the norm, their 1/√ still to come.

φ_i·(z_i·W) = (φ_i·z_i)·W, so what follows a norm need not wait for it: the product with the next weights runs on the
rows before normalisation, which are reshared while the sum of squares is opened, and φ is multiplied onto its result,
in the round that multiplies it onto the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mpc_ray.functions.plan import NormPlan
from mpc_ray.kernels.elementwise import polynomial_parts, powers
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.protocols.semi_honest.lookup import DealerProduct, window_fraction, window_index
from mpc_ray.protocols.semi_honest.norm import Squares, open_squares
from mpc_ray.protocols.semi_honest.open import Resharing, reshare
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.row_scale import RowScale
from mpc_ray.protocols.semi_honest.thirds import Halves
from mpc_ray.protocols.semi_honest.truncate import Truncation
from mpc_ray.sharing.fixed import PRODUCT_BITS
from mpc_ray.sharing.replicated import Shared, Summand

COARSER = 4  # bits that ``coarse`` has less than the norm's own factor


@dataclass(eq=False)
class HalfNorm:
    """One chunk after two of ``normalise``'s four rounds. ``z``: ⟨rows⟩ at plan.centre_scale, not normalised.

    In the round in which ``begin`` is called ``fine`` and, if asked for, ``coarse`` are begun: the factor φ of each row
    at plan.rsqrt.scale, and at COARSER bits less.
    """

    role: Role
    plan: NormPlan
    checks: RangeChecks
    squares: Squares
    z: Shared
    fine: DealerProduct | None = None
    coarse: DealerProduct | None = None

    def begin(self, coarse: bool) -> None:
        """Begin the round that multiplies signs and positions into φ; both factors come from one look-up.

        Bytes a row: d+1 times 16 from E0 and E1 together and 8(d+2) from D, for each factor; the flag 32.
        """
        role, spline = self.role, self.plan.rsqrt
        opening, one_hot, window = self.squares.opening, self.squares.one_hot, self.plan.rsqrt.window
        wanted, tables = [spline], None
        if coarse:
            other, tables = spline.coarser(COARSER, role.runtime.place)
            wanted.append(other)
        made, shape, parts = [], tuple(opening.shape), spline.degree + 1
        sums = flag = None
        if not role.is_d:
            sums = one_hot.sums(
                window_index(opening.c, window.t, window.n), tables or spline.prepared_on(role.runtime.place)
            )
        for i, one in enumerate(wanted):
            at = window_fraction(opening.r if role.is_d else opening.c, window.t, one.fraction)
            if sums is None:
                beta = powers(one_hot.sign, at, one.degree)
                made.append(DealerProduct(role, parts, shape, None, beta, opening.phase))
            else:
                first = i * (parts + (spline.flags is not None))
                own = polynomial_parts(sums[:, first : first + parts].contiguous(), at)
                made.append(DealerProduct(role, parts, shape, own, None))
        if spline.flags is not None:
            if sums is None:
                flag = DealerProduct(role, 1, shape, None, one_hot.sign, opening.phase)
            else:
                flag = DealerProduct(role, 1, shape, sums[:, parts], None)
        self.checks.add_flag(role, flag)
        self.fine, self.coarse = made[0], made[1] if coarse else None

    def finish(self, coarse: bool = False) -> Protocol[Shared]:
        """⟨φ_i·z_i⟩ at plan.scale, as ``normalise`` gives it. 2 rounds; φ is begun in the first."""
        self.begin(coarse)
        assert self.fine is not None
        truncation = self.squares.truncation
        scaled = RowScale(self.role, truncation, self.fine, self.plan.rsqrt.degree + 1)
        yield
        return (yield from reshare(self.role, scaled.share(), truncation.shape, self.plan.scale))

    def scaled(
        self, role: Role, u: Summand | Halves, f: int, factor: DealerProduct, checks: RangeChecks
    ) -> Protocol[torch.Tensor | None]:
        """[u] (rows, m), a product of ``z`` → 2-of-2 shares of φ_i·(u_i >> f); D gets None. 1 round.

        ``factor``: ``fine`` or ``coarse``, begun in this round. Bytes an element: 8 from E0 and E1 each, from D
        (d+2)·(8 + ⌈f/8⌉).
        """
        truncation = Truncation(role, u, f)
        if f:
            checks.add(role, truncation.opening, PRODUCT_BITS + 1)
        scaled = RowScale(role, truncation, factor, self.plan.rsqrt.degree + 1)
        yield
        return scaled.share()


def half_norm(role: Role, z: Summand | Halves, plan: NormPlan, checks: RangeChecks) -> Protocol[HalfNorm]:
    """[z] (rows, d) → its normalisation, half done. 2 rounds: those of ``open_squares``, with z reshared in the second.

    Bytes: as those rounds of ``normalise``, and 16 an element more for the reshare.
    """
    squares = yield from open_squares(role, z, plan, checks)
    truncation = squares.truncation
    resharing = Resharing(role, truncation.shares(), truncation.shape, plan.centre_scale)
    yield
    return HalfNorm(role, plan, checks, squares, resharing.result())
