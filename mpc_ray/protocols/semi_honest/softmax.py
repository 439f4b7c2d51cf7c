"""Softmax and attention in constant rounds, without an exact maximum.

The row's reference comes from ``maximum``; subtracting it costs nothing. exp is multiplicative, so it needs no
polynomial: e^x = T[j]·e^(c_low)·e^(-r_low). The division rides in the two rounds of the product with V.

Eight rounds from the scores: open; counts; rotation; theta; exp; reshare with the row sum's opening; product with V
and 1/sum; reshare.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mpc_ray.functions.plan import EXP_SCALE, FACTOR_BITS, ExpPlan, SoftmaxPlan, exp_plan
from mpc_ray.kernels.lookup import PreparedTables, prepare
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.protocols.semi_honest.lookup import (
    DealerProduct,
    OneHot,
    deal_index,
    spline_product,
    window_fraction,
    window_index,
)
from mpc_ray.protocols.semi_honest.maximum import ReferenceByDealer, ReferenceByOpening, Thermometer
from mpc_ray.protocols.semi_honest.open import Opening, Resharing, open_masked, reshare
from mpc_ray.protocols.semi_honest.product import Factor, matmul
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.row_scale import RowScale
from mpc_ray.protocols.semi_honest.truncate import Truncation
from mpc_ray.sharing.fixed import PRODUCT_BITS, check_scale
from mpc_ray.sharing.replicated import Shared


@dataclass(frozen=True)
class Group:
    """Heads whose windows have one number of buckets. ``low``: (g,) int64, units of the score scale."""

    low: torch.Tensor
    buckets: int
    plan: SoftmaxPlan

    @property
    def bucket_bit(self) -> int:
        """The bit of a score, in ring units, at which its bucket index begins."""
        return self.plan.score_scale + self.plan.bucket_log

    @property
    def bucket_bits(self) -> int:
        return int(math.log2(self.buckets))

    @property
    def exp(self) -> ExpPlan:
        return exp_plan(self.buckets, self.plan.bucket_log)


def attention(
    role: Role,
    q: Shared,
    k_transposed: Factor,
    v: Factor | Callable[[], Factor],
    group: Group,
    checks: RangeChecks,
    mask: torch.Tensor | None = None,
    keep: torch.Tensor | None = None,
    few_rounds: bool = False,
) -> Protocol[Shared]:
    """softmax(q·kᵀ + mask)·v for query rows q (g, t, d), kᵀ (g, d, n), v (g, n, d): (g, t, d) at plan.scale.

    1/√d is folded into q's weights. ``mask``: this party's summand of a shared additive mask (g, 1, n) at the score
    scale, -B where a key is padding. ``keep``: a public mask, uint8 broadcastable to (g, t, n).
    8 rounds; 7 with ``few_rounds`` (``exp_below_maximum``). ``v`` may be a function: it is asked in the last round but
    one. Bytes a score: 16 from each of E0, E1 to open and multiply and 8 to reshare; from D the buckets, 8 and 16.
    """
    plan = group.plan
    scores = matmul(role.runtime.me, q, k_transposed)
    check_scale(scores.scale, plan.score_scale, f"{role.label}: scores")
    value = scores.value if mask is None else scores.value + mask
    if role.is_e0:
        value = value - group.low.reshape(-1, 1, 1)
    opening = open_masked(role, value, scores.shape)
    checks.add(role, opening, group.bucket_bit + group.bucket_bits)
    if keep is not None:
        keep = keep.expand(scores.shape).reshape(-1, scores.shape[-1]).contiguous()
    e = yield from exp_below_maximum(role, opening, group, keep, few_rounds)
    return (yield from _weighted_values(role, e, opening.shape, v, plan, checks))


def exp_below_maximum(
    role: Role, opening: Opening, group: Group, keep: torch.Tensor | None = None, few_rounds: bool = False
) -> Protocol[torch.Tensor | None]:
    """Opening of scores (…, n) begun in this round → 2-of-2 shares of e^(s - m) at EXP_SCALE (D: None). 5 rounds.

    With ``few_rounds`` 4: the row's reference is opened to E0 and E1 under D's mask instead of going through D, for
    (buckets-1)·2^k·log2(buckets)/8 bytes a row from D in place of (buckets-1)·2^k/8.

    The reference m is within one bucket w of the row's true maximum, so a row's largest value lies in (e^-w, e^w).
    Error: about 2^-10·e^(h/2) relative for cells of h ≤ 4, and 2^-17·e^h absolute.
    """
    plan, shape, buckets = group.plan, opening.shape, group.buckets
    n, rows = shape[-1], shape[:-1].numel()
    if 1 << plan.count_bits <= n:
        raise ValueError(f"{n} scores a row need counts of more than {plan.count_bits} bits")
    cell_bit = plan.score_scale + group.exp.cell_log
    fine = min(group.bucket_bit, cell_bit)  # the unit of theta and eta
    turns = 1 << (group.bucket_bit + group.bucket_bits - fine)
    if turns > 256:
        raise ValueError(f"a window of {buckets} buckets does not fit theta's byte")

    bucket = shifted = None
    step = group.bucket_bit - fine
    reference: ReferenceByDealer | ReferenceByOpening = (
        ReferenceByOpening(role, rows, buckets, step)
        if few_rounds
        else ReferenceByDealer(role, rows, buckets, step)
    )
    if role.is_d:
        r = opening.r.reshape(rows, n)
        bucket = (r >> group.bucket_bit) & (buckets - 1)
        shifted = r + (reference.eta << fine).unsqueeze(-1)
    code = Thermometer(role, bucket, (rows, n), buckets, plan.count_bits)
    position = window_index(shifted, cell_bit, group.exp.bits) if shifted is not None else None
    one_hot = OneHot(role, position, shape.numel(), group.exp.bits)
    yield
    counts = None
    if not role.is_d:
        c = opening.c.reshape(rows, n)
        counts = code.counts((c >> group.bucket_bit) & (buckets - 1), keep)
    offset = yield from reference.find(counts, plan.count_bits)
    if offset is not None:
        shifted = c - (offset << fine).unsqueeze(-1)
    assert shifted is not None
    product = _exp_product(role, shifted, one_hot, group.exp, cell_bit)
    yield
    share = product.share()
    if share is None:
        return None
    if keep is not None:
        share = share * keep.reshape(-1)
    return share.reshape(shape)


def _exp_product(
    role: Role, shifted: torch.Tensor, one_hot: OneHot, exp: ExpPlan, cell_bit: int
) -> DealerProduct:
    """s·T[j]·e^(c_low - h/2) at the evaluators times s·e^(h/2 - r_low) at D."""
    position = window_fraction(shifted, cell_bit, FACTOR_BITS)
    flat = (position.numel(),)
    tables = _prepared(exp, role.runtime.place)
    if role.is_d:
        return DealerProduct(role, 1, flat, None, one_hot.sign * tables.dealer_factor[position])
    sums = one_hot.sums(window_index(shifted, cell_bit, exp.bits), tables.table)
    return DealerProduct(role, 1, flat, sums[:, 0] * tables.public_factor[position], None)


def _weighted_values(
    role: Role,
    e: torch.Tensor | None,
    shape: torch.Size,
    v: Factor | Callable[[], Factor],
    plan: SoftmaxPlan,
    checks: RangeChecks,
) -> Protocol[Shared]:
    """⟨Σ_j e_j·v_j / Σ_j e_j⟩. 3 rounds: reshare e with the sum's opening; product, 1/sum; reshare."""
    resharing = Resharing(role, e, shape, EXP_SCALE)
    total = open_masked(role, None if e is None else e.sum(-1), shape[:-1])
    window = plan.reciprocal.window
    check_scale(window.scale, EXP_SCALE, f"{role.label}: row sum")
    one_hot = deal_index(role, total, window)
    yield
    z = matmul(role.runtime.me, resharing.result(), v if isinstance(v, Factor) else v())
    context = Truncation(role, z, z.scale - plan.context_scale)
    checks.add(role, context.opening, PRODUCT_BITS + 1)
    inverse = spline_product(role, plan.reciprocal, one_hot, total).value
    scaled = RowScale(role, context, inverse, plan.reciprocal.degree + 1)
    yield
    return (yield from reshare(role, scaled.share(), z.shape, plan.scale))


@dataclass(frozen=True)
class _ExpTables:
    """An exp plan's tables on one device."""

    table: PreparedTables
    public_factor: torch.Tensor
    dealer_factor: torch.Tensor


_PREPARED: dict[tuple[int, torch.device], _ExpTables] = {}


def _prepared(exp: ExpPlan, place: torch.device) -> _ExpTables:
    key = id(exp), place  # exp plans are made once and kept
    if key not in _PREPARED:
        table, public, dealer = (t.to(place) for t in (exp.table, exp.public_factor, exp.dealer_factor))
        _PREPARED[key] = _ExpTables(prepare(table), public, dealer)
    return _PREPARED[key]
