"""The variant with the fewest rounds on models of several shapes: as near to the plain model as the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from test_on_shares import ROWS, SAMPLE, exported, far, plain, scaled

from mpc_ray.errors import RangeExceeded
from mpc_ray.models import query
from mpc_ray.models.bert_float import encoder_float
from mpc_ray.models.export import export_encoder
from mpc_ray.models.statistics import observe, observe_encoder
from mpc_ray.models.synthetic import peer_weights, random_bert


@pytest.fixture
def far_trio(trio: Any) -> Iterator[Any]:
    trio.use("rounds")
    yield trio
    trio.use("bytes")


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden": 128, "heads": 2, "ffn": 512},
        {"hidden": 16, "heads": 1, "ffn": 16, "layers": 1},
        {"hidden": 48, "heads": 12, "ffn": 32},
        {"activation": "relu"},
        {"pooling": "cls", "normalize": False},
        {"eps": 1e-5, "activation": "silu", "pooling": "lasttoken"},
    ],
    ids=lambda shape: " ".join(f"{k}={v}" for k, v in shape.items()),
)
def test_embeddings_equal_the_plain_ones(far_trio: Any, shape: dict[str, Any]) -> None:
    model = random_bert(**shape)
    export = exported(model)
    far_trio.load(export)
    got = query.embeddings(model, ROWS, far_trio.run(query.embedding_secrets(model, export, ROWS, 16)))
    turned, error = far(got, plain(model, ROWS))
    assert turned < 5e-7 and error < 1e-3


@pytest.mark.parametrize(
    "factors",
    [
        {"q_weight": 5.0},
        {"ffn2_weight": 100.0},
        {"ffn2_weight": 0.01, "o_weight": 0.01},
        {"ffn_norm_gain": 4.0},
    ],
    ids=str,
)
def test_weights_of_other_sizes(far_trio: Any, factors: dict[str, float]) -> None:
    """Sharp attention, large and small residuals: 1/√ and what it multiplies shift against each other."""
    model = scaled(random_bert(layers=2, seed=1), **factors)
    export = exported(model)
    far_trio.load(export)
    got = query.embeddings(model, ROWS, far_trio.run(query.embedding_secrets(model, export, ROWS, 16)))
    turned, error = far(got, plain(model, ROWS))
    assert turned < 2e-6 and error < 2e-3


@pytest.mark.parametrize("length", [1, 2, 9])
def test_a_bare_encoder_on_embedded_input(far_trio: Any, length: int) -> None:
    """Its first layer gets rows that are normalised already."""
    encoder, x = peer_weights(2, 32, 4, 48, length)
    far_trio.load(export_encoder(encoder, observe_encoder(encoder, x), (length,)))
    answers = far_trio.run(query.hidden_secrets(x[None]), "hidden")
    assert np.abs(query.result(answers)[0] - encoder_float(encoder, x)).mean() < 1e-3
    assert answers[0].header["rounds"] == 2 + 2 * 17 + 2


def test_queries_and_keys_outside_their_windows_are_named(far_trio: Any) -> None:
    """Calibrated for scores around 90 where they lie around 0."""
    import dataclasses

    model = random_bert(seed=3)
    observed = observe(model, SAMPLE)
    layer = observed.layers[1]
    narrow = dataclasses.replace(layer, scores=tuple((90.0, 92.0) for _ in layer.scores))
    observed = dataclasses.replace(observed, layers=(observed.layers[0], narrow))
    tables = model.embeddings
    export = export_encoder(
        model.encoder, observed, (16,), gain=tables.norm_gain, bias=tables.norm_bias, normalize=True
    )
    far_trio.load(export)
    answers = far_trio.run(query.embedding_secrets(model, export, ROWS, 16))
    assert any(place.startswith("layer 1/softmax") for place in query.outside(answers))
    with pytest.raises(RangeExceeded, match="layer 1"):
        query.result(answers)
