"""The plan: windows twice the span seen, scales that fit the ring, tables as accurate as they say."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.errors import ScaleError
from mpc_ray.functions.plan import EXP_SCALE, NormPlan
from mpc_ray.functions.spline import evaluate
from mpc_ray.models import plan as plans
from mpc_ray.models.observed import NormRange, Observed
from mpc_ray.models.plan import (
    ACTIVATIONS,
    BUCKET_LOG,
    HIDDEN_SCALE,
    MARGIN,
    MASK_DEPTH,
    EncoderPlan,
    plan_encoder,
)
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import random_bert

SAMPLE = [[2, *np.random.default_rng(i).integers(5, 128, 3 + i % 50).tolist(), 3] for i in range(40)]
MODEL = random_bert(layers=1, seed=7)
OBSERVED = observe(MODEL, SAMPLE)
LENGTHS = (16, 255, 256, 512)
PLAN = plan_encoder(MODEL.config, OBSERVED, LENGTHS, normalize=True)
FLOATS = st.floats(-100, 100, allow_subnormal=False)


def planned(**changes: Any) -> EncoderPlan:
    """A plan of layer 0 with other ranges."""
    layers = (dataclasses.replace(OBSERVED.layers[0], **changes), *OBSERVED.layers[1:])
    return plan_encoder(MODEL.config, dataclasses.replace(OBSERVED, layers=layers, embedding_norm=None), ())


@given(FLOATS, st.floats(0, 230))
def test_the_middle_half_of_a_score_window_holds_what_was_seen(low: float, span: float) -> None:
    start, buckets = plans._score_window("here", (low, low + span), 0.0)
    width = buckets * 2.0**BUCKET_LOG
    assert buckets >= 16 and buckets & (buckets - 1) == 0
    assert start + width / 4 <= low and low + span <= start + 3 * width / 4 + 1 / 16
    assert width >= 2 * MARGIN * span


def test_masked_scores_have_room_below() -> None:
    for layer, seen in zip(PLAN.layers, OBSERVED.layers, strict=True):
        for head, (low, high) in enumerate(seen.scores):
            width = layer.masked_buckets[head] * 2.0**BUCKET_LOG
            assert layer.masked_low[head] + width / 4 <= low - MASK_DEPTH
            assert high <= layer.masked_low[head] + 3 * width / 4
    assert PLAN.softmax(0, 16, masked=True).buckets == PLAN.layers[0].masked_buckets
    assert PLAN.softmax(0, 16, masked=False).low == PLAN.layers[0].low


def test_counts_have_room_for_every_score_of_a_row() -> None:
    """2^bits must exceed the length, or a full bucket would read as empty (semi_honest_3pc's zero test)."""
    for length in LENGTHS:
        assert 2 ** PLAN.softmax(0, length, masked=True).count_bits > length


def test_attention_too_sharp_is_named() -> None:
    heads = ((-200.0, 200.0), *OBSERVED.layers[0].scores[1:])
    with pytest.raises(
        ScaleError, match=r"layer 0/softmax: scores from -220 to 220 .* \(this model's attention"
    ):
        planned(scores=heads)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("high", [0.01, 3.0, 20.0, 90.0])
def test_activations_are_accurate(name: str, high: float) -> None:
    low = -high / 2
    scale, spline = plans._activation("here", name, (low, high))
    window = spline.window
    assert (window.scale, window.n <= plans.WIDEST_BITS) == (scale, True)
    assert window.width >= 2 * (high - low)
    assert (
        window.low + window.width / 4 - window.cell <= low
        and high <= window.high - window.width / 4 + 2 * window.cell
    )
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, 50_000)
    x[:25_000] *= min(1.0, 3 / high)  # half of them where functions bend
    above = (x - window.low) / window.cell % 1 > rng.random(x.size)
    error = evaluate(spline, x, above) - ACTIVATIONS[name](x)
    coarse = 4 if name == "relu" and not 1 < high < 15 else 1  # wide cells, or nothing but the kink
    assert np.sqrt((error**2).mean()) < 4e-4 * coarse
    assert np.abs(error).max() < 6e-3 * coarse


def test_relu_has_fine_cells_while_one_hots_are_plain() -> None:
    bits = {
        width: plans._activation("here", "relu", (-width / 4 / MARGIN, width / 4 / MARGIN))[1].window.n
        for width in (8, 32, 256, 4096)
    }
    assert bits == {8: 10, 32: 10, 256: 11, 4096: 12}


@pytest.mark.parametrize("ratio", [1.5, 30.0, 1000.0])
@pytest.mark.parametrize("largest", [1e-3, 1.0, 1e4])
def test_norms_are_accurate_and_fit(largest: float, ratio: float) -> None:
    seen = NormRange(centred=0.0, variance=(largest / ratio, largest), normalised=0.0)
    norm: NormPlan = plans._norm_plan("here", MODEL.config, seen)
    h = MODEL.config.hidden
    assert norm.scale == HIDDEN_SCALE
    assert 2 * h * largest * 4.0**norm.centre_scale < 2.0**62
    assert (
        norm.rsqrt.window.width >= 2 * h * largest
    )  # the lower half, which the range check allows, holds what was seen
    variance = np.geomspace(largest / ratio, largest, 500)
    x = h * variance
    up = (x / norm.rsqrt.window.cell) % 1 > np.random.default_rng(1).random(x.size)
    relative = evaluate(norm.rsqrt, x, up) * np.sqrt(variance) - 1
    assert np.abs(relative).mean() < 1e-3
    assert math.sqrt(largest / ratio) * 2.0**norm.centre_scale > 8  # the smallest rows are more than rounding


def test_reciprocals_cover_every_row_sum() -> None:
    """A row's largest value lies within e^±w of 1, so its sum lies in [e^-w, length·e^w]."""
    w = 2.0**BUCKET_LOG
    for length, spline in PLAN.reciprocals.items():
        assert spline.window.scale == EXP_SCALE
        x = np.geomspace(1.0, length, 2000)
        up = (x / spline.window.cell) % 1 > np.random.default_rng(2).random(x.size)
        assert np.abs(evaluate(spline, x, up) * x - 1).mean() < 2e-3
        assert spline.window.high >= length * math.exp(w)


@given(st.floats(1e-6, 1e9), st.integers(20, 55))
def test_product_scales_use_the_ring_and_never_more(largest: float, at_most: int) -> None:
    scale = plans.product_scale("here", largest, at_most)
    assert MARGIN * largest * 2.0**scale < 2.0**61
    assert scale == at_most or MARGIN * largest * 2.0 ** (scale + 1) >= 2.0**61


def test_every_product_of_the_plan_fits() -> None:
    for layer, seen in zip(PLAN.layers, OBSERVED.layers, strict=True):
        for scale, largest in (
            (layer.qkv_scale, max(*seen.key, *seen.value)),
            (layer.out_scale, seen.attention_norm.centred),
            (layer.down_scale, seen.ffn_norm.centred),
            (layer.value_scale + EXP_SCALE + 1, max(seen.weighted_value) * math.exp(2.0**BUCKET_LOG)),
        ):
            assert largest * 2.0**scale < 2.0**61
        assert layer.activation.window.width * 2.0**layer.up_scale < 2.0**63


@pytest.mark.parametrize("value", [1e4, 1e6])
def test_larger_values_take_smaller_scales(value: float) -> None:
    norm = dataclasses.replace(OBSERVED.layers[0].ffn_norm, centred=value, variance=(value, value**2 / 4))
    layer = planned(ffn_norm=norm).layers[0]
    assert layer.down_scale < PLAN.layers[0].down_scale
    assert layer.ffn_norm.centre_scale < PLAN.layers[0].ffn_norm.centre_scale


def test_what_a_bare_encoder_lacks() -> None:
    bare: Observed = dataclasses.replace(OBSERVED, embedding_norm=None, pooled=None, pooled_square=None)
    plan = plan_encoder(MODEL.config, bare, (), normalize=True)
    assert plan.embedding_norm is None and plan.pool is None
    assert PLAN.embedding_norm is not None and PLAN.pool is not None
