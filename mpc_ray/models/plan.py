"""The encoder's public parameters: a scale for every tensor, a window and tables for every function.

Made by the model's owner from calibrated ranges, proved to fit the ring, sent to all parties with the model, and part
of the digest that they compare. Nothing between a norm and the next product is truncated; the scales make that
possible (docs/protocols.md, Scales).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from mpc_ray.errors import ScaleError
from mpc_ray.functions.plan import EXP_SCALE, LONGEST, NormPlan, SoftmaxPlan
from mpc_ray.functions.spline import Function, Spline, fit_finest, total_error
from mpc_ray.functions.window import Window
from mpc_ray.models.inputs import InputScales
from mpc_ray.models.observed import LayerRange, NormRange, Observed, Span
from mpc_ray.models.public import PublicTensor
from mpc_ray.models.weights import BertConfig
from mpc_ray.sharing.fixed import prove_fits

HIDDEN_SCALE = 34  # normalised rows, never truncated
WEIGHT_SCALE = 20
QUERY_KEY_SCALE = 16
SCORE_SCALE = 2 * QUERY_KEY_SCALE + 1
CONTEXT_SCALE = 36  # attention's result: 14 + 22
ACTIVATION_SCALE = 35
POOL_SCALE = 18
POOLED_SCALE = 20
GAIN_SCALE = 18
UNIT_CENTRE_SCALE = 18
UNIT_SCALE = 30  # 1/norm of a pooled vector
MASK_DEPTH = 14.0  # what is left of a masked key is at most e^-14, in most windows nothing
ONE_HOT_BITS = 10  # of an activation's window: the largest plain one-hot
WIDEST_BITS = 12
CHECKED_BITS = 61  # what calibration saw stays below 2^61; the ring allows 2^62


@dataclass(frozen=True)
class LayerPlan:
    """Stored scales (a doubled product is one larger) and functions of one layer."""

    qkv_scale: int
    value_scale: int
    low: tuple[float, ...]
    buckets: tuple[int, ...]
    masked_low: tuple[float, ...]
    masked_buckets: tuple[int, ...]
    out_scale: int
    attention_norm: NormPlan
    up_scale: int
    activation: Spline
    down_scale: int
    ffn_norm: NormPlan


@dataclass(frozen=True)
class EncoderPlan:
    """``reciprocals``: 1/sum for each padded length. ``weights``: those that are public; none where they are secret."""

    hidden: int
    heads: int
    embedding_norm: NormPlan | None
    layers: tuple[LayerPlan, ...]
    pool: NormPlan | None
    reciprocals: dict[int, Spline]
    weights: tuple[PublicTensor, ...] = ()

    def softmax(self, layer: int, length: int, masked: bool) -> SoftmaxPlan:
        """The softmax of one layer at one padded length."""
        plan = self.layers[layer]
        low, buckets = (plan.masked_low, plan.masked_buckets) if masked else (plan.low, plan.buckets)
        return SoftmaxPlan(
            low,
            buckets,
            BUCKET_LOG,
            SCORE_SCALE,
            max(8, length.bit_length()),
            self.reciprocals[length],
            plan.value_scale,
            CONTEXT_SCALE - self.reciprocals[length].scale,
        )


MARGIN = 1.1  # beyond what calibration saw: unseen texts of the same kind differ by a few per cent
BUCKET_LOG = 1
ROW_ERROR = 2.5e-4  # mean relative error, over orders of magnitude, of 1/sum and rsqrt
RECIPROCAL_SCALE = 22  # up to 128 keys; sums grow with the length, so more bits go to 1/sum above


def input_scales(plan: EncoderPlan) -> InputScales:
    """What the model's clients need to know of its plan. Raises ScaleError for a bare encoder, which takes no texts."""
    if plan.embedding_norm is None:
        raise ScaleError(
            "a bare encoder takes no texts", remedy="share embedded input, or load a whole model"
        )
    depth = MASK_DEPTH + 2.0**BUCKET_LOG
    return InputScales(plan.embedding_norm.centre_scale, SCORE_SCALE, POOL_SCALE, depth)


def _widened(seen: Span) -> Span:
    room = (seen[1] - seen[0]) * (MARGIN - 1) / 2
    return seen[0] - room, seen[1] + room


def product_scale(where: str, largest: float, at_most: int) -> int:
    """The largest stored scale at which ``largest``, and MARGIN, stays below 2^61, at most ``at_most``."""
    largest *= MARGIN
    scale = min(at_most, math.floor(CHECKED_BITS - math.log2(max(largest, 1e-3))))
    prove_fits(where, largest, scale, CHECKED_BITS)
    return scale


def plan_encoder(
    config: BertConfig, observed: Observed, lengths: tuple[int, ...], normalize: bool = False
) -> EncoderPlan:
    """Scales, windows and tables for ``config`` over the ranges ``observed``, for each padded length.

    Raises ScaleError where a calibrated range does not fit, naming layer and function.
    """
    if max(lengths, default=0) >= LONGEST:
        raise ScaleError(
            f"padded length {max(lengths)}: counts of scores have at most 10 bits",
            remedy=f"use buckets below {LONGEST}",
        )
    embedding = observed.embedding_norm
    return EncoderPlan(
        hidden=config.hidden,
        heads=config.heads,
        embedding_norm=_norm_plan("embeddings", config, embedding) if embedding is not None else None,
        layers=tuple(_layer_plan(f"layer {i}", config, seen) for i, seen in enumerate(observed.layers)),
        pool=_unit_plan(config, observed.pooled_square) if normalize and observed.pooled_square else None,
        reciprocals={n: _reciprocal(n) for n in lengths},
    )


def _layer_plan(where: str, config: BertConfig, seen: LayerRange) -> LayerPlan:
    root = config.head_size**0.5
    largest = max(max(seen.query) / root, *seen.key, *seen.value)
    weighted = max(seen.weighted_value) * math.exp(2.0**BUCKET_LOG)
    value_scale = product_scale(f"{where}/attention values", weighted, 51) - EXP_SCALE - 1
    plain = [_score_window(f"{where}/softmax", s, 0.0) for s in seen.scores]
    masked = [_score_window(f"{where}/softmax", s, MASK_DEPTH + 2.0**BUCKET_LOG) for s in seen.scores]
    up_scale, activation = _activation(f"{where}/{config.activation}", config.activation, seen.ffn_input)
    return LayerPlan(
        qkv_scale=product_scale(f"{where}/qkv", largest, HIDDEN_SCALE + WEIGHT_SCALE + 1),
        value_scale=min(value_scale, QUERY_KEY_SCALE),
        low=tuple(low for low, _ in plain),
        buckets=tuple(n for _, n in plain),
        masked_low=tuple(low for low, _ in masked),
        masked_buckets=tuple(n for _, n in masked),
        out_scale=product_scale(f"{where}/attention out", seen.attention_norm.centred, 55),
        attention_norm=_norm_plan(f"{where}/attention norm", config, seen.attention_norm),
        up_scale=up_scale,
        activation=activation,
        down_scale=product_scale(f"{where}/ffn out", seen.ffn_norm.centred, 55),
        ffn_norm=_norm_plan(f"{where}/ffn norm", config, seen.ffn_norm),
    )


def _score_window(where: str, seen: Span, depth: float) -> tuple[float, int]:
    """(low, buckets): the middle half holds what was seen and MARGIN, and masked scores ``depth`` below it."""
    low, high = _widened(seen)
    low -= depth
    bucket = 2.0**BUCKET_LOG
    buckets = max(16, 2 ** math.ceil(math.log2((2 * (high - low) + bucket) / bucket)))
    if buckets > 256:
        raise ScaleError(
            f"{where}: scores from {low:.0f} to {high:.0f} need a window of {buckets} buckets, at most 256 fit",
            remedy="this model's attention is too sharp for semi_honest_3pc's softmax",
        )
    return math.floor((low + high - buckets * bucket) * 8) / 16, buckets


def _norm_plan(where: str, config: BertConfig, seen: NormRange) -> NormPlan:
    """Balances rounding of the values (2^-c·rsqrt) against rounding of rsqrt (2^-i)."""
    smallest, largest = max(seen.variance[0], 1e-9) + config.eps, seen.variance[1] + config.eps
    balance = math.log2((smallest * largest) ** -0.5 / 3)
    centre = max(8, min(26, round((HIDDEN_SCALE + balance) / 2)))
    h = config.hidden
    top = math.ceil(math.log2(2 * MARGIN * h * largest))
    spline = _row_spline(
        lambda u: (np.maximum(u, h * smallest / 8) / h + config.eps) ** -0.5,
        top,
        2 * centre,
        HIDDEN_SCALE - centre,
        (h * smallest / 2, h * largest),
        flag_below=True,
    )
    prove_fits(f"{where}: sum of squares", 2 * MARGIN * h * largest, 2 * centre)
    return NormPlan(centre, spline)


def _unit_plan(config: BertConfig, seen: Span) -> NormPlan:
    smallest, largest = seen
    top = math.ceil(math.log2(2 * MARGIN * largest))
    spline = _row_spline(
        lambda u: np.maximum(u, smallest / 8) ** -0.5,
        top,
        2 * UNIT_CENTRE_SCALE,
        UNIT_SCALE,
        (smallest / 2, largest),
        flag_below=True,
    )
    return NormPlan(UNIT_CENTRE_SCALE, spline)


def _reciprocal(length: int) -> Spline:
    w = 2.0**BUCKET_LOG
    top = math.ceil(math.log2(length * math.exp(w)))
    scale = RECIPROCAL_SCALE + max(0, round(math.log2(length / 128)))
    used = (math.exp(-w), length * math.exp(w))
    return _row_spline(lambda u: 1 / np.maximum(u, math.exp(-w) / 2), top, EXP_SCALE, scale, used)


def _row_spline(
    f: Function, top: int, scale: int, out_scale: int, used: Span, flag_below: bool = False
) -> Spline:
    """A look-up of 16 bits by DPF over [0, 2^top], one a row, of the lowest degree that is accurate enough.

    Each degree costs 13 bytes an element of the row that is scaled.
    """
    window = Window(0.0, 16, scale + top - 16, scale)
    best: Spline | None = None
    for degree in (1, 2, 3):
        spline = fit_finest(
            f,
            window,
            degree=degree,
            fractions=(6, 7, 8),
            scale=out_scale,
            relative=True,
            used=used,
            flag_below=flag_below,
        )
        if best is None or total_error(spline) < 0.9 * total_error(best):
            best = spline
        if best.mean_error <= ROW_ERROR:
            break
    assert best is not None
    return best


def _activation(where: str, name: str, seen: Span) -> tuple[int, Spline]:
    """(stored scale of the product, spline): degree 2, the window twice the span seen.

    Cells of a quarter; for relu, whose kink no polynomial follows, all that 10 bits give and an eighth at most. Wide
    windows take up to 12 bits (above 10 a distributed point function each), and then wider cells.
    """
    seen = _widened(seen)
    # At least 16 units: the check of a narrower window could miss an argument half the ring away.
    width = max(4, math.ceil(math.log2(2 * max(seen[1] - seen[0], 1.0))))
    scale = min(55, 62 - width)
    n = min(width + 2, WIDEST_BITS)
    if name == "relu":
        n = max(min(width + 3, WIDEST_BITS), ONE_HOT_BITS)
    cell = math.ldexp(1.0, width - n)
    low = math.floor((seen[0] + seen[1] - math.ldexp(1.0, width)) / 2 / cell) * cell
    window = Window(low, n, width + scale - n, scale)
    prove_fits(f"{where}: window", window.width, scale, 63)
    return scale, fit_finest(
        ACTIVATIONS[name],
        window,
        degree=2,
        fractions=(10, 11, 12),
        scale=ACTIVATION_SCALE,
        relative=False,
        used=seen,
    )


def _gelu(x: np.ndarray) -> np.ndarray:
    t = torch.from_numpy(np.ascontiguousarray(x))
    return np.asarray(x * 0.5 * (1 + torch.erf(t / 2**0.5).numpy()))


ACTIVATIONS: dict[str, Function] = {
    "gelu": _gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}
