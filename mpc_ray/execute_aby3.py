"""What a party runs for its client under aby3: the same model, shares and jobs as under semi_honest_3pc."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch

from mpc_ray.execute import Body, Executor, Outcome, Run
from mpc_ray.functions.exp_digits import factor_table, level_steps
from mpc_ray.functions.piecewise import Piecewise, activation, row_function
from mpc_ray.functions.plan import NormPlan
from mpc_ray.functions.spline import Function, Spline, evaluate
from mpc_ray.holdings import CPU, Take, required
from mpc_ray.kernels.memory import give_back
from mpc_ray.kernels.warm import warm
from mpc_ray.models import bert
from mpc_ray.models.plan import (
    ACTIVATION_SCALE,
    CONTEXT_SCALE,
    HIDDEN_SCALE,
    POOLED_SCALE,
    QUERY_KEY_SCALE,
    EncoderPlan,
)
from mpc_ray.protocols.aby3.bits import Bits
from mpc_ray.protocols.aby3.blocks import Aby3Blocks, LayerShares, ModelShares
from mpc_ray.protocols.aby3.exponential import EXP_SCALE
from mpc_ray.protocols.aby3.norm import RowNorm
from mpc_ray.protocols.aby3.product import Linear
from mpc_ray.protocols.aby3.range_check import RangeChecks
from mpc_ray.protocols.aby3.softmax import Softmax
from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.sharing.replicated import Shared, summand

SMALLEST_SUM = 0.2  # of a row's e^x: the largest score is at most 1.5 below the reference


def run_pieces(runtime: Runtime, shares: ModelShares, run: Run) -> Protocol[tuple[Shared, dict[str, Bits]]]:
    """A job: this party's two pieces of the output, and of the range checks' sums by label."""
    checks = RangeChecks(runtime.me, run.job, run.range_check, run.texts)
    blocks = Aby3Blocks(runtime, shares, checks, run.inputs.get("mask"), run.inputs.get("pooling"))
    output = yield from bert.encode(blocks, run.program, run.inputs["x"], run.progress, run.tap)
    return output, (yield from checks.settle(runtime))


def _program(runtime: Runtime, shares: ModelShares, run: Run) -> Protocol[Outcome]:
    output, found = yield from run_pieces(runtime, shares, run)
    return Outcome(summand(output), {label: (1, sums.own) for label, sums in found.items()})


def prepare(me: int, plan: EncoderPlan, take: Take, place: torch.device = CPU) -> ModelShares:
    """This party's prepared weights. Raises ModelError if one of the plan is missing."""
    warm()
    h = plan.hidden

    def linear(name: str, scale: int, *inputs: int) -> Linear:
        weight, bias = required(take, name), required(take, f"{name} bias", scale)
        rows = weight.shape[0]
        sizes = (rows,) if len(inputs) == 1 else (rows - h, h)  # of two, the second is the residual
        made = Linear(weight, bias, inputs, (0,) * len(inputs), sizes)
        give_back()  # what is left between small blocks would add up
        return made

    layers = {}
    for i, p in enumerate(plan.layers):
        at = bert.layer_name(i)
        layers[at] = LayerShares(
            qkv=linear(f"{at}/qkv", p.qkv_scale, HIDDEN_SCALE),
            out=linear(f"{at}/out", p.out_scale, CONTEXT_SCALE, HIDDEN_SCALE),
            up=linear(f"{at}/up", p.up_scale, HIDDEN_SCALE),
            down=linear(f"{at}/down", p.down_scale, ACTIVATION_SCALE, HIDDEN_SCALE),
            query_key_scale=QUERY_KEY_SCALE,
            value_scale=p.value_scale,
            softmax=partial(_softmax, plan, i),
            attention_norm=row_norm_of(p.attention_norm),
            activation=activation_of(p.activation),
            ffn_norm=row_norm_of(p.ffn_norm),
        )
    return ModelShares(
        heads=plan.heads,
        embedding_norm=None if plan.embedding_norm is None else row_norm_of(plan.embedding_norm),
        layers=layers,
        gain=required(take, "head/gain"),
        hidden_bias=required(take, "head/hidden bias"),
        pooled_bias=required(take, "head/pooled bias"),
        pooled_scale=POOLED_SCALE,
        pool=None if plan.pool is None else row_norm_of(plan.pool),
    )


# -- functions -----------------------------------------------------------------------------------------
# The public record has every function as a spline for look-ups; comparison needs few pieces instead of many cells, so
# each party fits them anew to what the record says. It is arithmetic in floating point: parties compare the digest.


def functions_of(plan: EncoderPlan) -> list[Piecewise]:
    """All functions of a model, in a fixed order."""
    norms = [norm for layer in plan.layers for norm in (layer.attention_norm, layer.ffn_norm)]
    norms += [norm for norm in (plan.embedding_norm, plan.pool) if norm is not None]
    return [
        *(activation_of(layer.activation) for layer in plan.layers),
        *(row_function_of(norm.rsqrt) for norm in norms),
        *(reciprocal(n) for n in sorted(plan.reciprocals)),
    ]


_MADE: dict[bytes, Piecewise] = {}


def activation_of(spline: Spline, scale: int | None = None) -> Piecewise:
    """For an argument at ``scale``; by default that of a textbook product, one bit below the spline's."""
    window = spline.window
    width_log = window.n + window.t - window.scale
    at = window.scale - 1 if scale is None else scale
    return _once(
        ("activation", at),
        spline,
        lambda f: activation(f, window.low, window.high, width_log, at, ACTIVATION_SCALE),
    )


def row_function_of(spline: Spline, smallest: float | None = None) -> Piecewise:
    """A positive function of positive arguments, 1/√ of a row's sum of squares: from ``smallest`` on, or from where
    the record's flags end.
    """
    window = spline.window
    top = math.ceil(math.log2(window.low + window.width))
    least = smallest_of(spline) if smallest is None else smallest
    noise = 2 * spline.max_error
    return _once(
        ("row", least),
        spline,
        lambda f: row_function(f, top, window.scale, least, high=window.high, noise=noise),
    )


def _once(kind: tuple[str, float], spline: Spline, fit: Callable[[Function], Piecewise]) -> Piecewise:
    """Fitted once a process for each spline of each model."""
    named = repr((kind, spline.window, spline.fraction, spline.scale)).encode()
    key = hashlib.sha256(named + spline.tables.numpy().tobytes()).digest()
    if key not in _MADE:
        _MADE[key] = fit(lambda x: _expected(spline, x))
    return _MADE[key]


def _expected(spline: Spline, x: np.ndarray) -> np.ndarray:
    """What a look-up gives on average: of the two cells that it may take, each as often as it does."""
    window = spline.window
    x = np.clip(x, window.low, window.high)
    part = (x - window.low) / window.cell % 1
    return np.asarray((1 - part) * evaluate(spline, x) + part * evaluate(spline, x, True))


def smallest_of(spline: Spline) -> float:
    """Below it the record flags arguments."""
    flagged = 0 if spline.flags is None else int(spline.flags.sum())
    return max(flagged, 4) * spline.window.cell


@cache
def reciprocal(length: int) -> Piecewise:
    """1/x for a row's sum of e^x over ``length`` keys."""
    top = max(1, (length - 1).bit_length())
    return row_function(lambda u: 1 / np.maximum(u, SMALLEST_SUM / 2), top, EXP_SCALE, SMALLEST_SUM)


def row_norm_of(plan: NormPlan) -> RowNorm:
    """A norm's scales, with its function in pieces."""
    spline = plan.rsqrt
    return RowNorm(plan.centre_scale, row_function_of(spline), spline.scale, smallest_of(spline))


def _softmax(plan: EncoderPlan, layer: int, length: int, masked: bool) -> Softmax:
    return Softmax(plan.softmax(layer, length, masked), reciprocal(length))


def _digest(plan: EncoderPlan) -> bytes:
    total = hashlib.sha256()
    for f in functions_of(plan):
        total.update(repr((f.low_units, f.t, f.n, f.scale, f.knots, f.out_scale, f.square_shift)).encode())
        total.update(f.steps.numpy().tobytes() + f.constants.numpy().tobytes())
    for table in (factor_table(), level_steps()):
        total.update(table.numpy().tobytes())
    return total.digest()


ABY3 = Body(_digest, prepare, _program)
executor = partial(Executor, body=ABY3)
