"""Attention of all heads: scores, a reference for every row, e^x below it, the product with V, the division.

Scores lie with their keys first, (keys, rows): a row of the softmax is a line of planes, so the maximum is a
tournament of whole words. The row's reference is not its maximum but the upper end of what its coarse maximum (cells
of half a unit, known but for two cells) may be: at most 1.5 above the largest score, never below it, so every x = s -
reference is below zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from mpc_ray.functions.piecewise import Piecewise
from mpc_ray.functions.plan import SoftmaxPlan
from mpc_ray.kernels.planes import WORD
from mpc_ray.protocols.aby3.convert import sums_of_bits, window
from mpc_ray.protocols.aby3.exponential import exp_below_zero
from mpc_ray.protocols.aby3.maximum import largest
from mpc_ray.protocols.aby3.piecewise import row_values
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.product import matmul, multiply
from mpc_ray.protocols.aby3.range_check import RangeChecks
from mpc_ray.protocols.aby3.truncate import truncate
from mpc_ray.protocols.runtime import Protocol, together
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared

CELL_LOG = -1  # cells of the coarse maximum: half a unit
BEYOND = 3  # cells from a score's index to above the score


@dataclass(frozen=True)
class Softmax:
    """One attention at one padded length: ``plan``'s windows and scales; ``reciprocal``: 1/sum."""

    plan: SoftmaxPlan
    reciprocal: Piecewise

    @property
    def bits(self) -> int:
        """Of a score's index in the widest head's window."""
        return int(math.log2(max(self.plan.buckets))) + self.plan.bucket_log - CELL_LOG


def attention(
    place: Place,
    q: Shared,
    k: Shared,
    v: Shared,
    softmax: Softmax,
    checks: RangeChecks,
    mask: Shared | None = None,
) -> Protocol[Shared]:
    """softmax(q·kᵀ + mask)·v for q, k, v (b, heads, n, d): the same shape, at plan.scale, not truncated.

    ``mask``: (b, n) at the score scale, -B where a key is padding.
    Rounds: 1 (scores), the window, the maximum, 2 (as numbers); ``exp_below_zero``; then 1/sum's, beside the product
    with V and its truncation (3); 1.
    """
    plan = softmax.plan
    b, heads, n, _ = q.shape
    z = yield from matmul(place, k, q.map(lambda t: t.transpose(-1, -2)))
    scores = z.rescaled(plan.score_scale - z.scale)  # (b, heads, keys, queries)
    scores = _less_low(place.me, scores, plan)
    if mask is not None:
        check_scale(mask.scale, plan.score_scale, f"{place.label}: mask")
        scores = scores + mask.map(lambda t: t[:, None, :, None].expand(scores.shape))
    _check(checks, place.label, scores, plan)
    lines = scores.map(lambda t: _padded(t.permute(2, 0, 1, 3).reshape(n, -1)))
    x = yield from _below_zero(place, lines, softmax.bits)
    rows = lines.shape[1]
    e = yield from exp_below_zero(place, x.map(lambda t: t.reshape(-1)), softmax.bits - 2)
    e = e.map(lambda t: t.reshape(n, rows)[:, : b * heads * n])
    total = e.map(lambda t: t.sum(0))
    weights = e.map(lambda t: t.reshape(n, b, heads, n).permute(1, 2, 3, 0))

    def weighted() -> Protocol[Shared]:
        product = yield from matmul(place, weights, v)
        checks.product(place.label, product)
        return (yield from truncate(place, product, product.scale - plan.context_scale))

    def inverse() -> Protocol[Shared]:
        return row_values(place, total, softmax.reciprocal, plan.scale - plan.context_scale)

    context, factor = yield from together([weighted(), inverse()])
    return (yield from multiply(place, context, factor.map(lambda t: t.reshape(b, heads, n, 1))))


def _below_zero(place: Place, scores: Shared, bits: int) -> Protocol[Shared]:
    """scores (keys, rows) less their row's reference: below zero everywhere, at least -1.5 at the largest."""
    t = scores.scale + CELL_LOG
    index = yield from window(place, scores, t, bits)
    top = yield from largest(place, index)
    weights = torch.tensor([[1 << (t + i) for i in range(bits)]])
    beyond = torch.tensor([BEYOND << t])
    (reference,) = yield from sums_of_bits(place, top, weights, beyond, scores.scale)
    return Shared(scores.own - reference.own, scores.next - reference.next, scores.scale)


def _less_low(me: int, scores: Shared, plan: SoftmaxPlan) -> Shared:
    """S - low, head by head: of piece 0, by its two holders."""
    low = torch.tensor([round(v * 2**plan.score_scale) for v in plan.low])[None, :, None, None]
    return Shared(
        scores.own - low if me == 0 else scores.own,
        scores.next - low if me == 2 else scores.next,
        scores.scale,
    )


def _check(checks: RangeChecks, label: str, scores: Shared, plan: SoftmaxPlan) -> None:
    """Every score of every head in its own window."""
    for buckets in sorted(set(plan.buckets)):
        heads = [i for i, count in enumerate(plan.buckets) if count == buckets]
        m = int(math.log2(buckets)) + plan.bucket_log + plan.score_scale
        checks.symmetric(label, scores[:, heads], m, 1 << (m - 1))


def _padded(x: torch.Tensor) -> torch.Tensor:
    missing = -x.shape[-1] % WORD
    return torch.nn.functional.pad(x, (0, missing)) if missing else x.contiguous()
