"""Plans of the functions of whole rows: L2 norm, layer norm, softmax; from ranges, as public parameters."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mpc_ray.errors import ScaleError
from mpc_ray.functions.elementary import TOLERANCE, positive
from mpc_ray.functions.plan import EXP_SCALE, LONGEST, NormPlan, SoftmaxPlan, exp_plan
from mpc_ray.functions.spline import Function
from mpc_ray.sharing.fixed import prove_fits

UNIT_SCALE = 48  # of rows of length 1
ROW_SCALE = 40  # of normalised rows, before gain
ROW_TOLERANCE = 2e-4
GAIN_SCALE = 16
SUM_BITS = 61  # an opened sum of squares, twice its range included
MASK_DEPTH = 12.0  # e^-12 rounds to 0 in exp's table
PROBABILITY_SCALE = 44
MOST_BUCKETS = 256
SOFTMAX_TOLERANCE = 4e-3


def l2_plan(
    width: int, smallest: float, largest: float, *, out_scale: int = UNIT_SCALE, tolerance: float = TOLERANCE
) -> NormPlan:
    """x/‖x‖ of rows of ``width`` with smallest ≤ ‖x‖ ≤ largest, largest/smallest up to about 40.

    Error of an entry y: at most tolerance·(|y| + 1/4), and the result is at ``out_scale``.
    """
    return _norm_plan(
        "l2 norm", lambda u: u**-0.5, width, smallest**2, largest**2, 1 / smallest, out_scale, tolerance
    )


@dataclass(frozen=True)
class LayerNormPlan:
    """Layer norm of rows whose mean is not yet removed: n·x - Σx replaces x - mean, so nothing is divided."""

    width: int
    norm: NormPlan
    gain_scale: int
    out_scale: int


def layer_norm_plan(
    width: int,
    variance: tuple[float, float],
    *,
    eps: float = 1e-5,
    largest_gain: float = 1.0,
    out_scale: int = 20,
    tolerance: float = ROW_TOLERANCE,
) -> LayerNormPlan:
    """(x - mean)/√(variance + eps)·gain + bias of rows of ``width`` whose variance lies in the range ``variance``.

    The range may span a factor of about 500. Error of a normalised entry y: at most tolerance·(|y| + 1/4); gain and
    rounding to ``out_scale`` come on top. ``largest_gain`` bounds |gain| and |bias|/√width.
    """
    low, high = variance
    cubed = float(width) ** 3
    plan = _norm_plan(
        "layer norm",
        lambda u: (u / width + width**2 * eps) ** -0.5,
        width,
        cubed * low,
        cubed * high,
        1 / (width * math.sqrt(low + eps)),
        ROW_SCALE,
        tolerance,
    )
    largest = 2 * math.sqrt(width) * largest_gain
    gain_scale = min(GAIN_SCALE, math.floor(SUM_BITS - math.log2(largest)) - ROW_SCALE - 1)
    prove_fits("layer norm: gain", largest, ROW_SCALE + gain_scale + 1)
    return LayerNormPlan(width, plan, gain_scale, out_scale)


def softmax_plan(
    low: float,
    high: float,
    length: int,
    score_scale: int,
    *,
    masked: bool = False,
    tolerance: float = SOFTMAX_TOLERANCE,
) -> SoftmaxPlan:
    """Softmax of rows of ``length`` scores in [low, high] at ``score_scale``, probabilities at scale 44.

    ``masked``: a shared mask will be added, 0 or -``mask_depth(…)``. ``tolerance``: of 1/sum, relative; the error
    of a probability is ``softmax_error``'s. Buckets of w = 2, or of 1 where 1/sum would not be accurate enough (long
    rows). Windows of more than 256 buckets are refused.
    """
    if not low < high:
        raise ScaleError(f"softmax: the range [{low:g}, {high:g}] is empty", remedy="give low < high")
    if length >= LONGEST:
        raise ScaleError(
            f"softmax: rows of {length} scores; counts have 10 bits", remedy=f"at most {LONGEST - 1}"
        )
    failure: ScaleError | None = None
    for bucket_log in (1, 0):
        w = 2.0**bucket_log
        bottom = low - mask_depth(low, high, bucket_log) if masked else low
        buckets = max(16, 2 ** math.ceil(math.log2((2 * (high - bottom) + w) / w)))
        if buckets > MOST_BUCKETS or buckets * w > MOST_BUCKETS * min(w, 4.0):
            failure = failure or _too_wide(bottom, high, buckets)
            continue
        scale = 24 + max(0, math.ceil(math.log2(length / 128)))
        least, most = math.exp(-w), length * math.exp(w)
        try:
            reciprocal = positive(
                "softmax: 1/sum",
                lambda u: 1 / u,
                least,
                most,
                EXP_SCALE,
                scale,
                tolerance,
                length,
                flag=False,
            )
        except ScaleError as error:
            failure = error
            continue
        start = (bottom + high) / 2 - buckets * w / 2
        return SoftmaxPlan(
            low=(start,),
            buckets=(buckets,),
            bucket_log=bucket_log,
            score_scale=score_scale,
            count_bits=max(8, length.bit_length()),
            reciprocal=reciprocal,
            value_scale=0,
            context_scale=PROBABILITY_SCALE - scale,
        )
    assert failure is not None
    raise failure


def mask_depth(low: float, high: float, bucket_log: int) -> float:
    """How far below zero a shared mask must lie: a masked score may exceed the others by the whole range."""
    return MASK_DEPTH + 2.0**bucket_log + (high - low)


def softmax_error(plan: SoftmaxPlan) -> tuple[float, float]:
    """(relative, absolute): |p̂ - p| ≤ relative·p + absolute·(1 + n·p) for rows of n scores.

    Relative: exp, above the line and below, and 1/sum. Exp's two factors are rounded to 2^-11 and may be as small as
    e^(-h/2), h its cell; the positions they stand for to h·2^-13. Absolute: an entry of exp's table is rounded by 2^-15
    and multiplied by up to e^h, and e is rounded once more at ``context_scale``; the row's largest e may be e^-w. Worst
    cases, all at once: usual errors are ten times smaller.
    """
    h = 2.0 ** exp_plan(plan.buckets[0], plan.bucket_log).cell_log
    factors = 2.0**-10 * math.exp(h / 2) + h * 2.0**-12
    rounding = 2.0**-15 * math.exp(h) + 2.0**-plan.context_scale
    return 2 * factors + plan.reciprocal.max_error, rounding * math.exp(plan.bucket)


def _too_wide(low: float, high: float, buckets: int) -> ScaleError:
    return ScaleError(
        f"softmax: scores from {low:.0f} to {high:.0f} need a window of {buckets} buckets, at most {MOST_BUCKETS} fit",
        remedy="scale the scores down or clip them",
    )


def _norm_plan(
    name: str, f: Function, row: int, low: float, high: float, factor: float, out_scale: int, tolerance: float
) -> NormPlan:
    """Centre scale: rounding of the values, 2^-c times the largest factor, stays below a quarter of the tolerance."""
    centre = max(0, math.ceil(math.log2(4 * factor / tolerance)))
    if math.log2(2 * high) + 2 * centre > SUM_BITS:
        raise ScaleError(
            f"{name}: sums of squares from {low:.3g} to {high:.3g} do not fit the ring at scale {2 * centre}",
            remedy="narrow the range or raise the tolerance",
        )
    spline = positive(name, f, low, high, 2 * centre, out_scale - centre, tolerance, row)
    return NormPlan(centre, spline)
