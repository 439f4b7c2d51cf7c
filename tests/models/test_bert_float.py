"""The plain reference against an independent formula, torch's own encoder layer, and known sentences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mpc_ray.errors import InputError, ModelError
from mpc_ray.models.bert_float import embed, encoder_float, encoder_states, forward
from mpc_ray.models.synthetic import peer_weights, random_bert
from mpc_ray.models.weights import Encoder


def torch_stack(encoder: Encoder, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The same encoder through nn.TransformerEncoderLayer, which is post-norm by default."""
    config = encoder.config
    for layer in encoder.layers:
        block = nn.TransformerEncoderLayer(
            config.hidden,
            config.heads,
            config.ffn,
            dropout=0.0,
            activation=config.activation,
            layer_norm_eps=config.eps,
            batch_first=True,
            dtype=torch.float64,
        ).eval()
        weights = {
            "self_attn.in_proj_weight": np.hstack([layer.q_weight, layer.k_weight, layer.v_weight]).T,
            "self_attn.in_proj_bias": np.concatenate([layer.q_bias, layer.k_bias, layer.v_bias]),
            "self_attn.out_proj.weight": layer.o_weight.T,
            "self_attn.out_proj.bias": layer.o_bias,
            "linear1.weight": layer.ffn1_weight.T,
            "linear1.bias": layer.ffn1_bias,
            "linear2.weight": layer.ffn2_weight.T,
            "linear2.bias": layer.ffn2_bias,
            "norm1.weight": layer.attention_norm_gain,
            "norm1.bias": layer.attention_norm_bias,
            "norm2.weight": layer.ffn_norm_gain,
            "norm2.bias": layer.ffn_norm_bias,
        }
        block.load_state_dict(
            {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in weights.items()}
        )
        with torch.no_grad():
            # Grad mode off would take a fused path that drops padded rows: ask for the plain one.
            x = block(x, src_key_padding_mask=None if mask is None else ~mask)
    return x


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_encoder_equals_torch(activation: Any) -> None:
    encoder = random_bert(3, 24, 3, 40, 5, activation=activation).encoder
    x = np.random.default_rng(1).standard_normal((2, 9, 24))
    expected = torch_stack(encoder, torch.from_numpy(x), None).numpy()
    assert np.allclose(encoder_float(encoder, x), expected, rtol=0, atol=1e-12)


def test_one_sequence_or_a_batch() -> None:
    encoder, x = peer_weights(2, 16, 4, 24, 7)
    alone = encoder_float(encoder, x)
    assert alone.shape == (7, 16)
    states = encoder_states(encoder, np.stack([x, x[::-1]]))
    assert len(states) == 2
    assert np.allclose(states[-1][0], alone, rtol=0, atol=1e-13)


def test_activations_differ_as_their_formulas_do() -> None:
    x = np.random.default_rng(1).standard_normal((4, 32))
    out = {
        a: encoder_float(random_bert(1, activation=a).encoder, x)
        for a in ("gelu", "gelu_tanh", "silu", "relu")
    }
    assert 0 < np.abs(out["gelu"] - out["gelu_tanh"]).max() < 5e-3
    assert np.abs(out["gelu"] - out["silu"]).max() > 1e-2


def test_single_token_by_hand() -> None:
    """With one token attention returns v, so a layer can be written out."""
    model = random_bert(1, 8, 2, 12, 3)
    layer, eps = model.layers[0], model.config.eps

    def norm(x: Any, gain: Any, bias: Any) -> Any:
        return (x - x.mean()) / math.sqrt(x.var() + eps) * gain + bias

    def gelu(x: float) -> float:
        return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))

    tables = model.embeddings
    x = norm(tables.word[9] + tables.position[0] + tables.token_type[0], tables.norm_gain, tables.norm_bias)
    states = forward(model, [[9]])
    assert np.allclose(states[0][0, 0], x, rtol=0, atol=1e-12)
    v = x @ layer.v_weight + layer.v_bias
    y = norm(x + v @ layer.o_weight + layer.o_bias, layer.attention_norm_gain, layer.attention_norm_bias)
    z = (
        np.array([gelu(t) for t in y @ layer.ffn1_weight + layer.ffn1_bias]) @ layer.ffn2_weight
        + layer.ffn2_bias
    )
    assert np.allclose(
        states[1][0, 0], norm(y + z, layer.ffn_norm_gain, layer.ffn_norm_bias), rtol=0, atol=1e-12
    )


def test_padding_changes_nothing_for_real_tokens() -> None:
    model = random_bert()
    rows = [[2, 9, 10, 11, 3], [2, 40, 3]]
    ids, mask = np.zeros((2, 8), int), np.zeros((2, 8), bool)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, True
    padded = forward(model, ids, mask)
    for i, row in enumerate(rows):
        for batch, alone in zip(padded, forward(model, [row]), strict=True):
            assert np.allclose(batch[i, : len(row)], alone[0], rtol=0, atol=1e-12)
    assert np.abs(forward(model, ids)[-1] - padded[-1]).max() > 1e-3  # the mask is used


@pytest.mark.parametrize(
    ("ids", "mask", "word"),
    [
        ([[1, 2], [3]], None, "ragged"),
        ([1, 2], None, "shape"),
        ([[0.5, 1.0]], None, "shape"),
        ([[1, 128]], None, "outside"),
        ([[-1, 1]], None, "outside"),
        ([[1] * 65], None, "65 tokens"),
        ([[1, 2]], [[True]], "mask"),
        ([[1, 2], [3, 4]], [[True, False], [False, False]], "no real token"),
    ],
)
def test_bad_ids(ids: Any, mask: Any, word: str) -> None:
    with pytest.raises(InputError, match=word):
        forward(random_bert(), ids, mask)


def test_bad_embedded_input() -> None:
    with pytest.raises(InputError, match="shape"):
        encoder_float(random_bert().encoder, np.zeros((3, 31)))


def test_embed_needs_a_tokenizer() -> None:
    with pytest.raises(ModelError, match="no tokenizer"):
        embed(random_bert(), ["a"])


def test_large_scores_do_not_overflow() -> None:
    encoder = random_bert(1).encoder
    out = encoder_float(encoder, np.random.default_rng(0).standard_normal((6, 32)) * 1e4)
    assert np.isfinite(out).all()
