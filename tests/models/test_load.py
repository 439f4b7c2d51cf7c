"""Import of a folder: what is read, and every way in which a folder can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mpc_ray.errors import ModelError
from mpc_ray.models.load import load_bert
from mpc_ray.models.synthetic import peer_weights, random_bert, save_bert
from mpc_ray.models.weights import BertModel, Layer

Q0 = "encoder.layer.0.attention.self.query.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_bert(random_bert(), tmp_path / "tiny")


def same(one: BertModel, other: BertModel) -> bool:
    arrays = [(one.embeddings, other.embeddings), *zip(one.layers, other.layers, strict=True)]
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for a, b in arrays for f in fields(a))


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, folder / "model.safetensors")


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        load_bert(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.remedy
    for word in words:
        assert word in message, message


# -- what is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
def test_round_trip(tmp_path: Path, activation: Any) -> None:
    model = random_bert(3, 24, 3, 40, 5, activation=activation, pooling="cls", normalize=False)
    loaded = load_bert(save_bert(model, tmp_path))
    assert same(model, loaded)
    assert loaded.digest == model.digest
    assert loaded.config == type(model.config)(**{**vars(model.config), "name": tmp_path.name})
    assert (loaded.pooling, loaded.normalize, loaded.max_tokens) == ("cls", False, 64)
    assert loaded.layers[0].ffn1_weight.shape == (24, 40)
    assert loaded.layers[0].ffn1_weight.flags.c_contiguous


def test_weights_are_transposed_to_in_out(folder: Path) -> None:
    stored = load_file(folder / "model.safetensors")[Q0]
    assert np.array_equal(load_bert(folder).layers[0].q_weight, stored.T.double().numpy())


def test_digest_sees_every_array_and_constant() -> None:
    base = random_bert()
    digests = {
        base.digest,
        random_bert(seed=1).digest,
        random_bert(heads=2).digest,
        random_bert(eps=1e-5).digest,
    }
    digests |= {random_bert(normalize=False).digest, random_bert(pooling="cls").digest}
    assert len(digests) == 6
    assert random_bert().digest == base.digest


@pytest.mark.parametrize("prefix", ["bert.", "model."])
def test_prefix_heads_and_buffers(folder: Path, prefix: str) -> None:
    before = load_bert(folder)

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[prefix + name] = tensors.pop(name)
        tensors["classifier.weight"] = torch.zeros(2, 32)
        tensors[prefix + "pooler.dense.weight"] = torch.zeros(32, 32)
        tensors[prefix + "embeddings.position_ids"] = torch.arange(64)[None]

    edit_tensors(folder, rename)
    edit_json(folder / "config.json", lambda c: c.update(architectures=["BertForSequenceClassification"]))
    assert load_bert(folder).digest == before.digest


def test_old_norm_names(folder: Path) -> None:
    before = load_bert(folder)

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for name in [n for n in tensors if "LayerNorm" in n]:
            new = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            )
            tensors[new] = tensors.pop(name)

    edit_tensors(folder, rename)
    assert load_bert(folder).digest == before.digest


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_exactly(folder: Path, dtype: torch.dtype) -> None:
    edit_tensors(folder, lambda t: t.update({k: v.to(dtype) for k, v in t.items()}))
    expected = load_file(folder / "model.safetensors")[Q0].double().numpy().T
    loaded = load_bert(folder)
    assert np.array_equal(loaded.layers[0].q_weight, expected)
    assert loaded.layers[0].q_weight.dtype == np.float64
    assert loaded.embeddings.word.dtype == np.float32


def shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({n: t for n, t in tensors.items() if files[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def test_sharded(folder: Path) -> None:
    before = load_bert(folder)
    shard(folder)
    assert load_bert(folder).digest == before.digest


def test_roberta_cuts_reserved_positions(folder: Path) -> None:
    before = load_bert(folder)
    edit_json(
        folder / "config.json", lambda c: c.update(model_type="roberta", architectures=["RobertaModel"])
    )
    edit_json(folder / "config.json", lambda c: c.update(pad_token_id=1))
    edit_tensors(folder, lambda t: t.update({"roberta." + name: t.pop(name) for name in list(t)}))
    loaded = load_bert(folder)
    assert loaded.config.max_positions == 62
    assert np.array_equal(loaded.embeddings.position, before.embeddings.position[2:])


def test_old_folder_with_transformer_below(tmp_path: Path) -> None:
    model = random_bert()
    root = tmp_path / "old"
    save_bert(model, root / "0_Transformer")
    (root / "0_Transformer" / "modules.json").unlink()
    (root / "0_Transformer" / "1_Pooling").rename(root / "1_Pooling")
    kinds = [("Transformer", "0_Transformer"), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for kind, path in kinds]
    (root / "modules.json").write_text(json.dumps(modules))
    assert load_bert(root).digest == model.digest


def test_plain_folder_pools_by_mean_and_does_not_normalize(folder: Path) -> None:
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    loaded = load_bert(folder)
    assert (loaded.pooling, loaded.normalize, loaded.max_tokens) == ("mean", False, 64)


def test_max_tokens(folder: Path) -> None:
    edit_json(folder / "sentence_bert_config.json", lambda c: c.update(max_seq_length=20))
    assert load_bert(folder).max_tokens == 20
    edit_json(folder / "sentence_bert_config.json", lambda c: c.update(max_seq_length=1000))
    assert load_bert(folder).max_tokens == 64
    (folder / "sentence_bert_config.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 30}')
    assert load_bert(folder).max_tokens == 30


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True, "word_embedding_dimension": 32, "include_prompt": True}, "mean"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ({"pooling_mode_lasttoken": True}, "lasttoken"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode": ["weightedmean"]}, "weightedmean"),
    ],
)
def test_pooling_forms(folder: Path, config: dict[str, Any], pooling: str) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert load_bert(folder).pooling == pooling


# -- what is refused ---------------------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "sentence-transformers" / "all-MiniLM-L6-v2", "no model folder", "not downloaded")


def test_a_file_is_no_folder(folder: Path) -> None:
    refused(folder / "config.json", "no model folder")


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "no config.json", str(folder))


@pytest.mark.parametrize("name", ["config.json", "modules.json", "1_Pooling/config.json"])
@pytest.mark.parametrize("text", ['{"hidden_size": ', "7", "\udcff"])
def test_malformed_json(folder: Path, name: str, text: str) -> None:
    (folder / name).write_bytes(text.encode(errors="surrogateescape"))
    refused(folder, name)


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": ["DistilBertModel"], "model_type": "distilbert"},
        {"architectures": ["MPNetModel"], "model_type": "mpnet"},
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
        {"architectures": ["BertGenerationEncoder"], "model_type": "bert-generation"},
        {"architectures": ["BertNovelModel"]},
    ],
)
def test_unknown_architecture(folder: Path, change: dict[str, Any]) -> None:
    edit_json(folder / "config.json", lambda c: c.update(change))
    refused(folder, change["architectures"][0], "not implemented")


def test_no_architecture_at_all(folder: Path) -> None:
    edit_json(folder / "config.json", lambda c: (c.pop("architectures"), c.pop("model_type")))
    refused(folder, "architecture")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "mish"}, ["mish"]),
        ({"hidden_act": None}, ["activation"]),
        ({"position_embedding_type": "relative_key"}, ["relative_key"]),
        ({"is_decoder": True}, ["decoder"]),
        ({"num_attention_heads": 5}, ["5 heads", "32"]),
        ({"num_attention_heads": 0}, ["num_attention_heads"]),
        ({"hidden_size": "32"}, ["hidden_size"]),
        ({"num_hidden_layers": True}, ["num_hidden_layers"]),
        ({"layer_norm_eps": 0}, ["layer_norm_eps"]),
        ({"pad_token_id": 999}, ["pad_token_id"]),
    ],
)
def test_bad_config_values(folder: Path, change: dict[str, Any], words: list[str]) -> None:
    edit_json(folder / "config.json", lambda c: c.update(change))
    refused(folder, *words)


def test_config_lacks_a_size(folder: Path) -> None:
    edit_json(folder / "config.json", lambda c: c.pop("intermediate_size"))
    refused(folder, "intermediate_size")


def test_missing_tensor(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.pop(Q0))
    refused(folder, Q0, "missing")


def test_missing_word_table(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.pop("embeddings.word_embeddings.weight"))
    refused(folder, "embeddings.word_embeddings.weight", "missing")


def test_wrong_shape(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({Q0: torch.zeros(32, 31)}))
    refused(folder, Q0, "(32, 31)", "(32, 32)")


def test_wrong_vocabulary(folder: Path) -> None:
    edit_json(folder / "config.json", lambda c: c.update(vocab_size=100))
    refused(folder, "word_embeddings", "(128, 32)", "(100, 32)")


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float8_e4m3fn])
def test_wrong_dtype(folder: Path, dtype: torch.dtype) -> None:
    edit_tensors(folder, lambda t: t.update({Q0: torch.zeros(32, 32).to(dtype)}))
    refused(folder, Q0, "type", "F32")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(folder: Path, value: float) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[Q0][3, 5] = value
        tensors[Q0][4, 0] = value

    edit_tensors(folder, spoil)
    refused(folder, Q0, "(3, 5)")


def test_more_layers_than_the_config_says(folder: Path) -> None:
    edit_json(folder / "config.json", lambda c: c.update(num_hidden_layers=1))
    refused(folder, "encoder.layer.1.")


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, "no model.safetensors")


def test_pickled_weights_are_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    refused(folder, ".bin", "safetensors.torch.save_file")


def test_damaged_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(folder, "no readable safetensors")


def test_missing_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "model-00002-of-00002.safetensors", "missing")


def test_index_that_points_outside(folder: Path) -> None:
    shard(folder)
    edit_json(
        folder / "model.safetensors.index.json", lambda c: c["weight_map"].update({Q0: "../x.safetensors"})
    )
    refused(folder, "weight_map")


@pytest.mark.parametrize("kind", ["Dense", "WeightedLayerPooling"])
def test_unknown_module(folder: Path, kind: str) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules.append({"path": f"3_{kind}", "type": f"sentence_transformers.models.{kind}"})
    (folder / "modules.json").write_text(json.dumps(modules))
    refused(folder, kind)


def test_module_outside_the_folder(folder: Path) -> None:
    (folder / "modules.json").write_text('[{"type": "a.Transformer", "path": "../other"}]')
    refused(folder, "outside")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pooling_mode_max_tokens": True}, ["max_tokens"]),
        ({"pooling_mode": "max"}, ["max"]),
        (
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            ["concatenation", "cls", "mean"],
        ),
        ({"pooling_mode_mean_tokens": False}, ["none"]),
    ],
)
def test_pooling_refused(folder: Path, config: dict[str, Any], words: list[str]) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    refused(folder, "pooling", *words)


def test_default_prompt_refused(folder: Path) -> None:
    path = folder / "config_sentence_transformers.json"
    path.write_text('{"prompts": {"query": "query: "}, "default_prompt_name": "query"}')
    refused(folder, "query")
    path.write_text('{"prompts": {"query": "query: "}, "default_prompt_name": null}')
    load_bert(folder)


# -- random weights of the peer's script ---------------------------------------------------------------------


def test_peer_weights_follow_the_script() -> None:
    layers, h, f, n = 2, 16, 24, 5
    encoder, x = peer_weights(layers, h, 4, f, n)
    rng = np.random.default_rng(0)

    def dense(rows: int, columns: int) -> Any:
        return (rng.standard_normal((rows, columns)) * rows**-0.5).astype(np.float32)

    assert np.array_equal(x, rng.standard_normal((n, h)).astype(np.float32))
    for layer in encoder.layers:
        assert isinstance(layer, Layer)
        qkv = dense(h, 3 * h)
        assert np.array_equal(np.hstack([layer.q_weight, layer.k_weight, layer.v_weight]), qkv)
        assert np.array_equal(layer.o_weight, dense(h, h))
        assert np.array_equal(layer.ffn1_weight, dense(h, f))
        assert np.array_equal(layer.ffn2_weight, dense(f, h))
        assert not layer.q_bias.any()
        assert np.all(layer.ffn_norm_gain == 1)
    assert encoder.config.eps == 1e-5
