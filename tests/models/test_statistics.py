"""Observed ranges: exact extremes of what a forward pass computes, and the stored record."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_ray.errors import InputError, ModelError
from mpc_ray.models import calibrate
from mpc_ray.models.bert_float import forward
from mpc_ray.models.load import load_bert
from mpc_ray.models.observed import Observed, load_observed, observed_from_json, save_observed
from mpc_ray.models.pooling import unit_weights
from mpc_ray.models.statistics import observe, observe_encoder
from mpc_ray.models.synthetic import peer_weights, random_bert, save_bert
from mpc_ray.models.weights import BertModel

IDS = [[2, 9, 3], [2, 40, 41, 42, 43, 3], [2, 5, 3], [2, *range(5, 60), 3], [2, *range(60, 110), 3]]


def expected_ranges(model: BertModel, rows: list[list[int]]) -> dict[str, Any]:
    """Layer-0 and head ranges again, in numpy and float64, one row at a time."""
    layer, config = model.layers[0], model.config
    seen: dict[str, list[Any]] = {}

    def note(name: str, value: Any, axes: tuple[int, ...] | None = None) -> None:
        seen.setdefault(name, []).append((np.min(value, axis=axes), np.max(value, axis=axes)))

    tables = model.embeddings
    for word in tables.word[1:]:  # every token but padding, at every position
        total = word + tables.position + tables.token_type[0]
        note("embedding_centred", np.abs(total - total.mean(-1, keepdims=True)))
        note("embedding_variance", total.var(-1))
    for row in rows:
        n = len(row)
        states = forward(model, [row])
        x = states[0][0]
        q, k, v = (
            (x @ getattr(layer, f"{name}_weight") + getattr(layer, f"{name}_bias"))
            .reshape(n, config.heads, -1)
            .transpose(1, 0, 2)
            for name in "qkv"
        )
        s = q @ k.transpose(0, 2, 1) / np.sqrt(config.head_size)
        e = np.exp(s - s.max(-1, keepdims=True))
        heads = (1, 2)
        note("query", np.abs(q), heads)
        note("key", np.abs(k), heads)
        note("value", np.abs(v), heads)
        note("scores", s, heads)
        note("exp_sum", e.sum(-1), (1,))
        note("weighted_value", e @ np.abs(v), heads)
        note("context", np.abs(e @ v / e.sum(-1, keepdims=True)), heads)
        context = (e @ v / e.sum(-1, keepdims=True)).transpose(1, 0, 2).reshape(n, -1)
        total = x + context @ layer.o_weight + layer.o_bias
        note("attention_centred", np.abs(total - total.mean(-1, keepdims=True)))
        note("attention_variance", total.var(-1))
        note("output", np.abs(states[1]))
        pooled = unit_weights(model.pooling, n) @ states[-1][0]
        note("pooled", np.abs(pooled))
        note("pooled_square", pooled @ pooled)
    return {
        k: (np.min([p[0] for p in v], axis=0), np.max([p[1] for p in v], axis=0)) for k, v in seen.items()
    }


@pytest.mark.parametrize("pooling", ["mean", "lasttoken", "mean_sqrt_len"])
def test_ranges_are_the_extremes_of_the_forward_pass(pooling: Any) -> None:
    model = random_bert(pooling=pooling)
    observed = observe(model, IDS)
    want = expected_ranges(model, IDS)
    layer = observed.layers[0]

    def close(got: Any, expected: Any) -> bool:
        return bool(np.allclose(got, expected, rtol=2e-5, atol=0))

    for name in ("query", "key", "value", "exp_sum", "weighted_value", "context"):
        assert close(getattr(layer, name), want[name][1]), name
    assert close(np.array(layer.scores).T, np.stack(want["scores"]))
    assert close(layer.attention_norm.centred, want["attention_centred"][1])
    assert close(layer.attention_norm.variance, np.stack(want["attention_variance"]))
    assert close(layer.output, want["output"][1])
    assert observed.embedding_norm is not None
    assert close(observed.embedding_norm.centred, want["embedding_centred"][1])
    assert close(observed.embedding_norm.variance, np.stack(want["embedding_variance"]))
    assert close(observed.pooled, want["pooled"][1])
    assert close(observed.pooled_square, np.stack(want["pooled_square"]))
    assert (observed.sequences, observed.tokens, observed.longest) == (5, 121, 57)
    assert observed.digest == model.digest


def test_activation_range() -> None:
    layer = observe(random_bert(activation="relu"), IDS).layers[0]
    low, high = layer.ffn_input
    assert low < 0 < high
    assert layer.ffn_output == high


def test_more_sequences_only_widen() -> None:
    model = random_bert()
    few, many = observe(model, IDS[:2]).layers, observe(model, IDS).layers
    for a, b in zip(few, many, strict=True):
        assert all(lb <= la and ha <= hb for (la, ha), (lb, hb) in zip(a.scores, b.scores, strict=True))
        assert b.ffn_input[0] <= a.ffn_input[0]
        assert b.ffn_norm.variance[0] <= a.ffn_norm.variance[0]
        assert b.ffn_norm.centred >= a.ffn_norm.centred


def test_encoder_only() -> None:
    encoder, x = peer_weights(2, 16, 4, 24, 7)
    observed = observe_encoder(encoder, x)
    assert observed.embedding_norm is None
    assert observed.pooled_square is None
    assert (observed.sequences, observed.tokens) == (1, 7)
    batch = observe_encoder(encoder, [np.stack([x, x]), x])
    assert batch.layers == observed.layers
    assert batch.sequences == 3


def test_encoder_only_equals_the_whole_model() -> None:
    model = random_bert()
    inputs = [forward(model, [row])[0] for row in IDS]
    whole, bare = observe(model, IDS), observe_encoder(model.encoder, inputs)
    for a, b in zip(whole.layers, bare.layers, strict=True):
        assert np.allclose(a.scores, b.scores, rtol=1e-4)
        assert np.isclose(a.ffn_norm.centred, b.ffn_norm.centred, rtol=1e-4)


@pytest.mark.parametrize("ids", [[], [[]], [[2] * 65], [[2, 128]], [[-1]]])
def test_bad_sequences(ids: list[list[int]]) -> None:
    with pytest.raises(InputError):
        observe(random_bert(), ids)


def test_overflow_is_named() -> None:
    model = random_bert()
    layer = dataclasses.replace(model.layers[1], ffn1_weight=np.full((32, 64), 1e38))
    encoder = dataclasses.replace(model.encoder, layers=(model.layers[0], layer))
    with pytest.raises(ModelError, match="ffn_input in layer 1 is not finite"):
        observe_encoder(encoder, np.random.default_rng(0).standard_normal((3, 32)))


def test_progress_counts_every_sequence() -> None:
    seen: list[tuple[int, int]] = []
    observe(random_bert(), IDS, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


# -- the stored record ---------------------------------------------------------------------------------------


def record() -> Observed:
    return observe(random_bert(), IDS, sample="five")


def test_json_round_trip_is_exact() -> None:
    assert observed_from_json(record().to_json()) == record()
    bare = observe_encoder(*peer_weights(1, 16, 4, 24, 3))
    assert observed_from_json(bare.to_json()) == bare


def test_save_is_atomic_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "c.json"
    save_observed(record(), path)
    save_observed(record(), path)
    assert [p.name for p in path.parent.iterdir()] == ["c.json"]
    assert load_observed(path) == record()
    assert load_observed(tmp_path / "other.json") is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format": "mpc-ray observed ranges", "version": 1}'])
def test_damaged_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ModelError, match="damaged"):
        load_observed(tmp_path / "c.json")


def test_other_version() -> None:
    raw = {**json.loads(record().to_json()), "version": 99}
    with pytest.raises(ModelError, match="version 99"):
        observed_from_json(json.dumps(raw))


def test_cache_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        save_observed(record(), tmp_path / "file" / "c.json")


# -- calibration of a folder ------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BertModel:
    monkeypatch.setattr(calibrate, "COUNT", 40)
    return load_bert(save_bert(random_bert(), tmp_path / "model"))


def count_calibrations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    original = calibrate.calibrate

    def counted(*args: Any) -> Observed:
        calls.append(1)
        return original(*args)

    monkeypatch.setattr(calibrate, "calibrate", counted)
    return calls


def test_calibrated_once_then_loaded(
    model: BertModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calibrations(monkeypatch)
    cache = tmp_path / "cache"
    first = calibrate.observed_for(model, cache=cache)
    assert calibrate.observed_for(model, cache=cache) == first
    assert len(calls) == 1
    assert first.digest == model.digest
    assert first.sequences == 40 + 100
    assert model.folder is not None
    assert load_observed(model.folder / calibrate.BESIDE) == first
    assert not cache.exists()


def test_other_weights_and_other_texts_are_calibrated_anew(
    model: BertModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calibrations(monkeypatch)
    cache = tmp_path / "cache"
    first = calibrate.observed_for(model, cache=cache)
    other = load_bert(save_bert(random_bert(seed=9), tmp_path / "other"))
    assert calibrate.observed_for(other, cache=cache).digest != first.digest
    mine = calibrate.observed_for(model, texts=["my own text", "another"], cache=cache)
    assert mine.sequences == first.sequences + 2
    assert calibrate.observed_for(model, texts=["my own text", "another"], cache=cache) == mine
    assert len(calls) == 3


def test_a_record_beside_the_model_is_used_if_it_is_of_this_model(
    model: BertModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calibrations(monkeypatch)
    assert model.folder is not None
    shipped = observe(model, IDS, sample="the owner's")
    save_observed(shipped, model.folder / calibrate.BESIDE)
    assert calibrate.observed_for(model, cache=tmp_path / "cache") == shipped
    assert calls == []
    save_observed(dataclasses.replace(shipped, digest="0" * 64), model.folder / calibrate.BESIDE)
    assert calibrate.observed_for(model, cache=tmp_path / "cache").digest == model.digest
    assert calls == [1]


def test_a_folder_that_is_not_ours_to_write_is_left_alone(
    model: BertModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calibrations(monkeypatch)
    assert model.folder is not None
    installed = tmp_path / "lib" / "site-packages" / "a_model"
    shutil.copytree(model.folder, installed)
    before = sorted(installed.rglob("*"))
    inside = load_bert(installed)
    first = calibrate.observed_for(inside, cache=tmp_path / "cache")
    assert calibrate.observed_for(inside, cache=tmp_path / "cache") == first
    monkeypatch.setattr(calibrate.os, "access", lambda path, mode: Path(path) != model.folder)
    calibrate.observed_for(model, cache=tmp_path / "cache2")
    assert (len(calls), sorted(installed.rglob("*"))) == (2, before)
    assert not (model.folder / calibrate.BESIDE).exists()
    assert [len(list((tmp_path / name).iterdir())) for name in ("cache", "cache2")] == [1, 1]


def test_a_stale_sample_is_taken_anew_and_an_owners_record_is_never_replaced(
    model: BertModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = count_calibrations(monkeypatch)
    assert model.folder is not None
    beside, cache = model.folder / calibrate.BESIDE, tmp_path / "cache"
    save_observed(observe(model, IDS, sample="stdlib-1000-100-1"), beside)
    fresh = calibrate.observed_for(model, cache=cache)
    assert load_observed(beside) == fresh
    mine = calibrate.observed_for(model, texts=["my own"], cache=cache)
    assert load_observed(beside) == fresh  # my texts' extremes are for those who give my texts
    assert calibrate.observed_for(model, cache=cache) == fresh
    assert calibrate.observed_for(model, texts=["my own"], cache=cache) == mine
    save_observed(observe(model, IDS, sample="the owner's"), beside)
    other = calibrate.observed_for(model, texts=["other texts"], cache=cache)
    shipped = load_observed(beside)
    assert shipped is not None and shipped.sample == "the owner's"
    assert calibrate.observed_for(model, texts=["other texts"], cache=cache) == other
    assert len(calls) == 3


def test_default_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert calibrate.default_cache() == tmp_path / "mpc-ray"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert calibrate.default_cache() == tmp_path / ".cache" / "mpc-ray"
