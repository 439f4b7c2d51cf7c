"""Elementary functions on shares as functions of their own: splines, unit rows, layer norm, softmax.

Plans come from `functions.elementary` and `functions.rows`; they are public and the same at all parties. Everything is
composed of openings, dealt look-ups, products with what D knows and resharings: the arguments why nothing is learned
are theirs. One role a call; callers cut rows into chunks and run them side by side (``runtime.together``).
"""

from __future__ import annotations

import torch

from mpc_ray.errors import InputError
from mpc_ray.functions.plan import EXP_SCALE, NormPlan, SoftmaxPlan
from mpc_ray.functions.rows import LayerNormPlan
from mpc_ray.functions.spline import Spline
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.protocols.semi_honest.lookup import deal_index, spline_product
from mpc_ray.protocols.semi_honest.norm import normalise
from mpc_ray.protocols.semi_honest.open import open_masked, reshare
from mpc_ray.protocols.semi_honest.product import multiply
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.row_scale import RowScale
from mpc_ray.protocols.semi_honest.softmax import Group, exp_below_maximum
from mpc_ray.protocols.semi_honest.thirds import Halves
from mpc_ray.protocols.semi_honest.truncate import Truncation, truncate
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared, Summand, summand


def evaluate(
    role: Role, x: Summand | Halves | Shared, spline: Spline, checks: RangeChecks
) -> Protocol[Shared]:
    """⟨f(x)⟩ at spline.scale for x at the window's scale: gelu, silu, sigmoid, tanh, exp, reciprocal, rsqrt, or any.

    Range: the whole window gives the spline; spline.max_error bounds the error on the range it was fitted to, and the
    checks flag what lies outside (``functions.elementary``). The result is not truncated.
    3 rounds: opening with the one-hot; multiply; reshare. Bytes an element (d the degree): E0 and E1 8 + 8(d+1) + 8
    each; D 8(d+2) to E1, and the one-hot: 2^n/8 to E1 up to n = 10, above key_bytes(n) to each. reciprocal and rsqrt,
    for the flag of what is below their range: E0 and E1 8 more, D 16.
    """
    window = spline.window
    check_scale(x.scale, window.scale, f"{role.label}: argument")
    z = summand(x) if isinstance(x, Shared) else x
    value = z.value
    if role.is_e0 and value is not None:
        value = value - window.low_units
    opening = open_masked(role, value, z.shape)
    checks.add(role, opening, window.t + window.n, centred=spline.flags is None)
    one_hot = deal_index(role, opening, window)
    yield
    product = spline_product(role, spline, one_hot, opening)
    checks.add_flag(role, product.flag)
    del one_hot, opening, value  # an activation's are the largest of a pass
    yield
    return (yield from reshare(role, product.value.share(), z.shape, spline.scale))


def l2_normalise(role: Role, x: Summand | Shared, plan: NormPlan, checks: RangeChecks) -> Protocol[Shared]:
    """⟨x_ij/‖x_i‖⟩ at plan.scale for rows x (…, width); range and error: ``functions.rows.l2_plan``.

    4 rounds: opening; sum of squares; rsqrt with the scaling; reshare. Bytes an element, f = x.scale - centre_scale,
    m = ⌈f/8⌉, d the degree: E0 and E1 16 each; D 8 + 2m + (d+2)(8 + m). A row: E0 and E1 16 + 8(d+1) each; D
    24 + 8(d+2) and the one-hot.
    """
    return (yield from normalise(role, _at_least(x, plan.centre_scale), plan, checks))


def layer_norm(
    role: Role, x: Summand | Shared, plan: LayerNormPlan, gain: Shared, bias: Shared, checks: RangeChecks
) -> Protocol[Shared]:
    """⟨(x - mean)/√(variance + eps)·gain + bias⟩ at plan.out_scale, for rows x (…, width), not centred before.

    ``gain`` (width,) at plan.gain_scale, ``bias`` (width,) at any smaller scale or that of their product, 1 + both.
    Range and error: ``functions.rows.layer_norm_plan``; |x - mean|·width must stay below 2^62 units.
    6 rounds: those of ``l2_normalise`` on width·x - Σx, local, then the product with gain truncated (2). Bytes: as
    ``l2_normalise``, and an element E0 and E1 16 each, D 8 + ⌈g/8⌉ with g the bits truncated.
    """
    if x.shape[-1] != plan.width:
        raise InputError(
            f"{role.label}: rows of {x.shape[-1]}", remedy=f"the plan is for rows of {plan.width}"
        )
    check_scale(gain.scale, plan.gain_scale, f"{role.label}: gain")
    raised = _at_least(x, plan.norm.centre_scale)
    z = raised.map(lambda t: plan.width * t - t.sum(-1, keepdim=True))
    y = yield from normalise(role, z, plan.norm, checks)
    scaled = multiply(role.runtime.me, y, gain)
    shift = bias.rescaled(scaled.scale - bias.scale)
    total = Summand(scaled.value + shift.own, scaled.scale)
    return (yield from truncate(role, total, total.scale - plan.out_scale, checks))


def softmax(
    role: Role,
    scores: Summand | Shared,
    plan: SoftmaxPlan,
    checks: RangeChecks,
    mask: Shared | None = None,
    keep: torch.Tensor | None = None,
) -> Protocol[Shared]:
    """⟨softmax of rows⟩ (…, n) at plan.scale for scores (…, n) at plan.score_scale; nobody learns a maximum.

    ``mask``: additive, at the score scale, broadcastable: 0 or -mask_depth, with a plan made ``masked``. ``keep``:
    public, uint8, broadcastable to the scores; entries at 0 take no part and come out as exact zeros; every row keeps
    one.
    Range and error: ``functions.rows.softmax_plan``. n < 2^count_bits, else refused before any message.
    8 rounds: scores; counts; rotation; theta; exp; e with the row's sum; 1/sum with the scaling; reshare. Bytes,
    with m = ⌈(34 - context_scale)/8⌉, b buckets, k count_bits, 2^j cells of exp, d the degree of 1/sum:
    - a score: E0 and E1 8 (open) + 8 (exp) + 8 (e) + 8 (reshare) each; D b·k/8 + 2^j/8 + 16 + (d+2)(8 + m);
    - a row: E0 and E1 (b-1)·k/8 + b/8 + 8 (sum) + 8(d+1) each; D (b-1)·2^k/8, 1 to each, 8(d+2) and the one-hot.
    """
    n = scores.shape[-1]
    if n == 0 or n >= 1 << plan.count_bits:
        raise InputError(
            f"{role.label}: rows of {n} scores",
            remedy=f"the plan counts from 1 to {(1 << plan.count_bits) - 1}",
        )
    check_scale(scores.scale, plan.score_scale, f"{role.label}: scores")
    if keep is not None:
        keep = keep.expand(scores.shape).reshape(-1, n).contiguous()
        if not bool(keep.any(-1).all()):
            raise InputError(f"{role.label}: a row without a score to keep", remedy="every row must keep one")
    z = summand(scores) if isinstance(scores, Shared) else scores
    value = z.value
    if mask is not None:
        check_scale(mask.scale, plan.score_scale, f"{role.label}: mask")
        value = value + mask.own
    low = torch.tensor([round(plan.low[0] * 2**plan.score_scale)], device=value.device)
    group = Group(low, plan.buckets[0], plan)
    opening = open_masked(role, value - low if role.is_e0 else value, z.shape)
    checks.add(role, opening, group.bucket_bit + group.bucket_bits)
    e = yield from exp_below_maximum(role, opening, group, keep)
    return (yield from _over_sum(role, e, z.shape, plan))


def _over_sum(role: Role, e: torch.Tensor | None, shape: torch.Size, plan: SoftmaxPlan) -> Protocol[Shared]:
    """2-of-2 e (D: None) → ⟨e/Σe⟩. 3 rounds: e and its sum are opened under masks; 1/sum and the scaling; reshare."""
    held = torch.zeros(shape, dtype=torch.int64, device=role.runtime.place) if e is None else e
    masked = Truncation(role, Summand(held, EXP_SCALE), EXP_SCALE - plan.context_scale)
    total = open_masked(role, None if e is None else e.sum(-1), shape[:-1])
    window = plan.reciprocal.window
    check_scale(window.scale, EXP_SCALE, f"{role.label}: row sum")
    one_hot = deal_index(role, total, window)
    yield
    inverse = spline_product(role, plan.reciprocal, one_hot, total).value
    scaled = RowScale(role, masked, inverse, plan.reciprocal.degree + 1)
    yield
    return (yield from reshare(role, scaled.share(), shape, plan.scale))


def _at_least(x: Summand | Shared, scale: int) -> Summand:
    """[x] at ``scale`` or more: a smaller scale is raised, exactly and locally."""
    z = summand(x) if isinstance(x, Shared) else x
    missing = max(0, scale - z.scale)
    return Summand(z.value << missing, z.scale + missing)
