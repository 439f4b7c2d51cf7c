"""What the owner shares: every folded weight at the scale that its product needs, and a digest of the public part."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mpc_ray.errors import InputError
from mpc_ray.models.export import export_encoder
from mpc_ray.models.fold import fold
from mpc_ray.models.plan import ACTIVATION_SCALE, CONTEXT_SCALE, HIDDEN_SCALE
from mpc_ray.models.statistics import observe, observe_encoder
from mpc_ray.models.synthetic import peer_weights, random_bert
from mpc_ray.models.weights import make_encoder
from mpc_ray.sharing.fixed import decode

MODEL = random_bert(seed=8)
GAIN, BIAS = MODEL.embeddings.norm_gain, MODEL.embeddings.norm_bias
OBSERVED = observe(MODEL, [[2, *range(9, 40), 3], [2, 7, 3]])
EXPORT = export_encoder(MODEL.encoder, OBSERVED, (16,), gain=GAIN, bias=BIAS, normalize=True)


@pytest.mark.parametrize("layer", [0, 1])
def test_weights_at_their_scales(layer: int) -> None:
    folded, plan, h = fold(MODEL.encoder, GAIN, BIAS).layers[layer], EXPORT.plan.layers[layer], 32
    for name, weight, bias, first, scale in (
        ("qkv", folded.qkv, folded.qkv_bias, HIDDEN_SCALE, plan.qkv_scale),
        ("out", folded.out, folded.out_bias, CONTEXT_SCALE, plan.out_scale),
        ("up", folded.up, folded.up_bias, HIDDEN_SCALE, plan.up_scale),
        ("down", folded.down, folded.down_bias, ACTIVATION_SCALE, plan.down_scale),
    ):
        stored = EXPORT.secrets[f"layer {layer}/{name}"].value
        assert stored.shape == weight.shape
        added = EXPORT.secrets[f"layer {layer}/{name} bias"]
        assert added.scale == scale
        assert np.abs(decode(added.value, scale) - bias).max() <= 2.0**-scale
        split = len(weight) - h if name in ("out", "down") else len(weight)
        # A doubled product of an input at ``first`` comes out at ``scale``.
        for rows, input_scale in ((slice(0, split), first), (slice(split, None), HIDDEN_SCALE)):
            at = scale - input_scale - 1
            assert at >= 15, "weights of fewer bits would be the largest error"
            assert np.abs(decode(stored[rows], at) - weight[rows]).max(initial=0) <= 2.0 ** -(at + 1)


def test_what_is_exported_once() -> None:
    per_layer = [f"{name}{bias}" for name in ("qkv", "out", "up", "down") for bias in ("", " bias")]
    head = ["head/gain", "head/hidden bias", "head/pooled bias"]
    assert list(EXPORT.secrets) == [f"layer {i}/{name}" for i in (0, 1) for name in per_layer] + head


def test_the_digest_is_of_the_public_part() -> None:
    other = export_encoder(MODEL.encoder, OBSERVED, (16,), gain=GAIN * 1.01, bias=BIAS, normalize=True)
    assert not np.array_equal(other.secrets["layer 0/qkv"].value, EXPORT.secrets["layer 0/qkv"].value)
    assert other.digest == EXPORT.digest and len(other.digest) == 32
    assert export_encoder(MODEL.encoder, OBSERVED, (16,), gain=GAIN, bias=BIAS).digest != EXPORT.digest


def test_a_bare_encoder() -> None:
    encoder, x = peer_weights(1, 16, 2, 24, 5)
    export = export_encoder(encoder, observe_encoder(encoder, x), (5,))
    assert export.plan.embedding_norm is None
    assert np.array_equal(
        decode(export.secrets["head/gain"].value, export.secrets["head/gain"].scale), np.ones(16)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e12])
def test_a_weight_that_does_not_fit_is_named(value: float) -> None:
    layer = MODEL.layers[1]
    weight = layer.ffn1_weight.copy()
    weight[3, 4] = value
    wrong = dataclasses.replace(layer, ffn1_weight=weight)
    encoder = make_encoder(MODEL.config, [MODEL.layers[0], wrong])
    with pytest.raises(InputError, match=r"layer 1/up.* at index \["):
        export_encoder(encoder, OBSERVED, (16,), gain=GAIN, bias=BIAS)
