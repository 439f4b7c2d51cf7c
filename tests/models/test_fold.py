"""Folding moves what is linear and known into the weights; the product of folded weights is the layer's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.models.fold import centred, fold
from mpc_ray.models.synthetic import random_bert

MODEL = random_bert(layers=3, hidden=24, heads=3, ffn=40, seed=6)
GAIN, BIAS = MODEL.embeddings.norm_gain, MODEL.embeddings.norm_bias
FOLDED = fold(MODEL.encoder, GAIN, BIAS)
SEEDS = st.integers(0, 2**32)


def rows(seed: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((5, width))


@given(SEEDS)
def test_query_key_value_read_normalised_rows(seed: int) -> None:
    h = rows(seed, 24)
    w, x = MODEL.layers[0], h * GAIN + BIAS
    got = h @ FOLDED.layers[0].qkv + FOLDED.layers[0].qkv_bias
    root = 8**0.5  # of the head size: scores come out divided by it
    assert np.allclose(got[:, :24], (x @ w.q_weight + w.q_bias) / root, rtol=0, atol=1e-12)
    assert np.allclose(got[:, 24:48], x @ w.k_weight + w.k_bias, rtol=0, atol=1e-12)
    assert np.allclose(got[:, 48:], x @ w.v_weight + w.v_bias, rtol=0, atol=1e-12)


@given(SEEDS)
def test_projections_bring_residual_gain_and_centring(seed: int) -> None:
    h, context, active = rows(seed, 24), rows(seed + 1, 24), rows(seed + 2, 40)
    w, f = MODEL.layers[0], FOLDED.layers[0]
    want = centred(context @ w.o_weight + w.o_bias + h * GAIN + BIAS)
    assert np.allclose(np.hstack([context, h]) @ f.out + f.out_bias, want, rtol=0, atol=1e-12)
    x = h * w.attention_norm_gain + w.attention_norm_bias
    assert np.allclose(h @ f.up + f.up_bias, x @ w.ffn1_weight + w.ffn1_bias, rtol=0, atol=1e-12)
    want = centred(active @ w.ffn2_weight + w.ffn2_bias + x)
    assert np.allclose(np.hstack([active, h]) @ f.down + f.down_bias, want, rtol=0, atol=1e-12)


def test_each_layer_takes_the_gain_of_the_norm_before_it() -> None:
    before = MODEL.layers[0]
    want = before.ffn_norm_gain[:, None] * MODEL.layers[1].k_weight
    assert np.array_equal(FOLDED.layers[1].qkv[:, 24:48], want)
    last = MODEL.layers[-1]
    assert FOLDED.gain is last.ffn_norm_gain and FOLDED.bias is last.ffn_norm_bias


def test_a_bare_encoder_has_no_gain_before_it() -> None:
    bare = fold(MODEL.encoder)
    assert np.array_equal(bare.layers[0].qkv[:, 24:48], MODEL.layers[0].k_weight)
    assert np.array_equal(bare.layers[0].qkv_bias[24:48], MODEL.layers[0].k_bias)
    assert np.allclose(bare.layers[0].out[24:], np.eye(24) - 1 / 24)


@given(SEEDS)
def test_centred_rows_have_mean_zero(seed: int) -> None:
    x = rows(seed, 24)
    assert np.abs(centred(x).mean(-1)).max() < 1e-14
    assert np.allclose(centred(centred(x)), centred(x), atol=1e-14)
