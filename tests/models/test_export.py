"""What the owner shares: every folded weight at the scale that its product needs, and a digest of the public part."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from mpc_ray.errors import InputError, ModelError
from mpc_ray.models.export import export_encoder
from mpc_ray.models.fold import fold
from mpc_ray.models.plan import ACTIVATION_SCALE, CONTEXT_SCALE, HIDDEN_SCALE
from mpc_ray.models.public import check_tensor, weights_of
from mpc_ray.models.record import from_record
from mpc_ray.models.statistics import observe, observe_encoder
from mpc_ray.models.synthetic import peer_weights, random_bert
from mpc_ray.models.weights import make_encoder
from mpc_ray.sharing.fixed import decode
from mpc_ray.sharing.integers import to_integers

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


PUBLIC = export_encoder(
    MODEL.encoder, OBSERVED, (16,), gain=GAIN, bias=BIAS, normalize=True, weights="public"
)


def test_public_weights_have_the_bit_that_doubling_costs() -> None:
    assert (PUBLIC.visibility, EXPORT.visibility) == ("public", "secret")
    assert not PUBLIC.secrets and not EXPORT.weights
    scales = {tensor.name: tensor.scale for tensor in PUBLIC.plan.weights}
    for layer in (0, 1):
        folded, plan = fold(MODEL.encoder, GAIN, BIAS).layers[layer], PUBLIC.plan.layers[layer]
        for name, weight, product in (("qkv", folded.qkv, plan.qkv_scale), ("up", folded.up, plan.up_scale)):
            stored, at = PUBLIC.weights[f"layer {layer}/{name}"], scales[f"layer {layer}/{name}"]
            assert at == product - HIDDEN_SCALE == EXPORT.secrets[f"layer {layer}/{name}"].scale + 1
            assert stored.dtype == np.int32
            assert np.abs(decode(stored.astype(np.int64), at) - weight).max() <= 2.0 ** -(at + 1)
            assert scales[f"layer {layer}/{name} bias"] == product


def test_a_public_residual_is_two_vectors_that_are_its_matrix() -> None:
    h = MODEL.encoder.config.hidden
    for name, matrix, first in (("out", "out", CONTEXT_SCALE), ("down", "down", ACTIVATION_SCALE)):
        plan, folded = PUBLIC.plan.layers[1], fold(MODEL.encoder, GAIN, BIAS).layers[1]
        product = plan.out_scale if name == "out" else plan.down_scale
        whole = getattr(folded, matrix)
        top = PUBLIC.weights[f"layer 1/{name}"]
        assert top.shape == whole[:-h].shape
        assert np.abs(decode(top.astype(np.int64), product - first) - whole[:-h]).max() <= 2.0**-15
        diagonal, mean = (PUBLIC.weights[f"layer 1/{name} {part}"] for part in ("diagonal", "mean"))
        square = np.diag(diagonal) - mean[:, None]
        assert np.array_equal(square, to_integers(whole[-h:], product - HIDDEN_SCALE))


def test_large_public_weights_keep_64_bits() -> None:
    first = MODEL.layers[0]  # without its norm's bias, which would go into a bias that no longer fits
    layer = dataclasses.replace(
        first, ffn1_weight=first.ffn1_weight * 2**20, attention_norm_bias=np.zeros(32)
    )
    encoder = make_encoder(MODEL.config, (layer, MODEL.layers[1]))
    weights = export_encoder(encoder, OBSERVED, (16,), gain=GAIN, bias=BIAS, weights="public").weights
    assert weights["layer 0/up"].dtype == np.int64
    assert weights["layer 1/up"].dtype == np.int32


def test_the_record_of_public_weights_holds_their_digests() -> None:
    again = from_record(json.loads(json.dumps(PUBLIC.record)), PUBLIC.tables)
    assert again.weights == PUBLIC.plan.weights == weights_of(PUBLIC.record)
    assert weights_of(EXPORT.record) == ()
    for tensor in again.weights:
        check_tensor(tensor, PUBLIC.weights[tensor.name])
    first = again.weights[0]
    changed = PUBLIC.weights[first.name].copy()
    changed[0, 0] ^= 1
    with pytest.raises(ModelError, match="layer 0/qkv are not those of the public record"):
        check_tensor(first, changed)
    for wrong in (None, changed.astype(np.int64), changed[1:]):
        with pytest.raises(ModelError, match="layer 0/qkv are"):
            check_tensor(first, wrong)
    other = export_encoder(
        MODEL.encoder, OBSERVED, (16,), gain=GAIN * 1.01, bias=BIAS, normalize=True, weights="public"
    )
    assert len({other.digest, PUBLIC.digest, EXPORT.digest}) == 3


@pytest.mark.parametrize("weights", [[1], [{"name": "a"}], [{"name": "a", "shape": 3}], 7])
def test_a_record_with_weights_that_are_none(weights: object) -> None:
    with pytest.raises(ModelError, match="names no weights"):
        weights_of({**PUBLIC.record, "weights": weights})


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
