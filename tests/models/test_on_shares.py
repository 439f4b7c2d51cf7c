"""Models of many shapes on three real parties: embeddings equal the plain ones, and rare rows are told apart."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from mpc_ray.errors import ModelError, RangeExceeded
from mpc_ray.models import bert, query
from mpc_ray.models.bert_float import encoder_float, forward
from mpc_ray.models.export import Export, Visibility, export_encoder
from mpc_ray.models.pooling import normalized, pooling_vector
from mpc_ray.models.statistics import observe, observe_encoder
from mpc_ray.models.synthetic import peer_weights, random_bert
from mpc_ray.models.weights import Array, BertModel, make_encoder, make_model

LENGTHS = (1, 2, 5, 14, 16)


def texts(count: int, vocab: int = 128) -> list[list[int]]:
    return [
        [2, *np.random.default_rng(i).integers(5, vocab, max(0, LENGTHS[i % 5] - 2)).tolist(), 3][
            : LENGTHS[i % 5]
        ]
        for i in range(count)
    ]


SAMPLE = texts(200)
ROWS = SAMPLE[:5]


def exported(model: BertModel, lengths: tuple[int, ...] = (16,), weights: Visibility = "secret") -> Export:
    tables = model.embeddings
    return export_encoder(
        model.encoder,
        observe(model, SAMPLE),
        lengths,
        gain=tables.norm_gain,
        bias=tables.norm_bias,
        normalize=model.normalize,
        weights=weights,
    )


def plain(model: BertModel, rows: list[list[int]]) -> Array:
    hidden = [forward(model, [row])[-1][0] for row in rows]
    out = np.array([pooling_vector(model.pooling, len(x)) @ x for x in hidden])
    return normalized(out) if model.normalize else out


def far(a: Array, b: Array) -> tuple[float, float]:
    """Largest 1 - cosine, and mean error over the mean size."""
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return float((1 - cosine).max()), float(np.abs(a - b).mean() / np.abs(b).mean())


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden": 128, "heads": 2, "ffn": 512},
        {"hidden": 64, "heads": 4, "ffn": 256, "layers": 4},
        {"hidden": 16, "heads": 1, "ffn": 16, "layers": 1},
        {"hidden": 48, "heads": 12, "ffn": 32},
        {"activation": "relu"},
        {"activation": "silu"},
        {"activation": "gelu_tanh"},
        {"normalize": False},
        {"pooling": "cls", "normalize": False},
        {"pooling": "lasttoken"},
        {"pooling": "weightedmean"},
        {"pooling": "mean_sqrt_len", "normalize": False},
        {"eps": 1e-5, "activation": "relu", "pooling": "cls"},
    ],
    ids=lambda shape: " ".join(f"{k}={v}" for k, v in shape.items()),
)
def test_embeddings_equal_the_plain_ones(trio: Any, shape: dict[str, Any]) -> None:
    model = random_bert(**shape)
    export = exported(model)
    trio.load(export)
    got = query.embeddings(model, ROWS, trio.run(query.embedding_secrets(model, export, ROWS, 16)))
    turned, error = far(got, plain(model, ROWS))
    assert turned < 5e-7 and error < 1e-3


@pytest.mark.parametrize(
    "shape",
    [{"hidden": 48, "heads": 12, "ffn": 32}, {"activation": "relu"}, {"pooling": "cls", "normalize": False}],
    ids=str,
)
def test_embeddings_with_public_weights(trio: Any, shape: dict[str, Any]) -> None:
    """Within the same errors, in the same rounds and bytes, of which more could be dealt ahead."""
    model = random_bert(**shape)
    answers = {}
    for weights in ("secret", "public"):
        export = exported(model, weights=weights)  # type: ignore[arg-type]
        trio.load(export)
        answers[weights] = trio.run(query.embedding_secrets(model, export, ROWS, 16))
        turned, error = far(query.embeddings(model, ROWS, answers[weights]), plain(model, ROWS))
        assert turned < 5e-7 and error < 1e-3
    secret, public = ([a.header for a in answers[w]] for w in ("secret", "public"))
    assert [a["bytes_sent"] for a in public] == [a["bytes_sent"] for a in secret]
    assert [a["rounds"] for a in public] == [a["rounds"] for a in secret]
    assert sum(a["bytes_sent_offline"] for a in public) > sum(a["bytes_sent_offline"] for a in secret)


@pytest.mark.parametrize("length", [1, 2, 9])
def test_a_bare_encoder_with_public_weights(trio: Any, length: int) -> None:
    encoder, x = peer_weights(2, 32, 4, 48, length)
    export = export_encoder(encoder, observe_encoder(encoder, x), (length,), weights="public")
    trio.load(export)
    got = query.result(trio.run(query.hidden_secrets(x[None]), "hidden"))
    assert np.abs(got[0] - encoder_float(encoder, x)).mean() < 1e-3


@pytest.mark.parametrize("change", ["another number", "missing"])
def test_a_party_that_was_given_other_public_weights_refuses(make_trio: Any, change: str) -> None:
    export = exported(random_bert(layers=1), weights="public")
    weights = dict(export.weights)
    if change == "missing":
        del weights["layer 0/up"]
    else:
        weights["layer 0/up"] = weights["layer 0/up"] + np.int32(1)
    with pytest.raises(ModelError, match="public weights layer 0/up are"):
        make_trio().load(dataclasses.replace(export, weights=weights))


def scaled(model: BertModel, **factors: float) -> BertModel:
    """The same model with some of its weights multiplied."""
    layers = [
        dataclasses.replace(
            layer, **{name: getattr(layer, name) * factor for name, factor in factors.items()}
        )
        for layer in model.layers
    ]
    return make_model(
        make_encoder(model.config, layers), model.embeddings, pooling=model.pooling, normalize=model.normalize
    )


@pytest.mark.parametrize(
    "factors",
    [
        {"q_weight": 5.0},
        {"ffn1_weight": 30.0},
        {"ffn2_weight": 100.0},
        {"ffn2_weight": 0.01, "o_weight": 0.01},
        {"ffn_norm_gain": 4.0},
    ],
    ids=str,
)
def test_weights_of_other_sizes(trio: Any, factors: dict[str, float]) -> None:
    """Sharp attention, windows of 11 bits, large and small residuals: scales and windows follow."""
    model = scaled(random_bert(layers=1, seed=1), **factors)
    export = exported(model)
    trio.load(export)
    got = query.embeddings(model, ROWS, trio.run(query.embedding_secrets(model, export, ROWS, 16)))
    turned, error = far(got, plain(model, ROWS))
    assert turned < 2e-6 and error < 2e-3


@pytest.mark.parametrize("length", [1, 2, 9])
def test_a_bare_encoder_on_embedded_input(trio: Any, length: int) -> None:
    encoder, x = peer_weights(2, 32, 4, 48, length)
    export = export_encoder(encoder, observe_encoder(encoder, x), (length,))
    trio.load(export)
    got = query.result(trio.run(query.hidden_secrets(x[None]), "hidden"))
    assert np.abs(got[0] - encoder_float(encoder, x)).mean() < 1e-3


def test_hidden_states_after_the_embedding_norm(trio: Any) -> None:
    model = random_bert(seed=2)
    export = exported(model, (16,))
    trio.load(export)
    shared = query.embedding_secrets(model, export, [SAMPLE[4]], 16)
    got = query.result(trio.run({"x": shared["x"]}, "hidden"))
    assert np.abs(got - forward(model, [SAMPLE[4]])[-1]).mean() < 5e-4


def test_an_input_outside_the_calibrated_range_is_named(trio: Any) -> None:
    """Calibrated for inputs around 50 where they lie around 0: an error that names the layer, not garbage."""
    model = random_bert(seed=3)
    observed = observe(model, SAMPLE)
    layer = observed.layers[1]
    narrow = dataclasses.replace(layer, ffn_input=(50.0, 54.0))
    observed = dataclasses.replace(observed, layers=(observed.layers[0], narrow))
    tables = model.embeddings
    export = export_encoder(
        model.encoder, observed, (16,), gain=tables.norm_gain, bias=tables.norm_bias, normalize=True
    )
    trio.load(export)
    answers = trio.run(query.embedding_secrets(model, export, ROWS, 16))
    assert query.outside(answers)[0] == f"{bert.layer_name(1)}/activation"
    with pytest.raises(RangeExceeded, match="layer 1/activation"):
        query.result(answers)
