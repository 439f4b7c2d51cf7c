"""Pooling vectors against the definitions of sentence-transformers, on random hidden states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.errors import InputError
from mpc_ray.models.bert_float import embed, forward
from mpc_ray.models.load import load_bert
from mpc_ray.models.pooling import normalized, pooling_vector
from mpc_ray.models.synthetic import random_bert, save_bert
from mpc_ray.models.tokenize import Tokenizer

DEFINITIONS: dict[str, Any] = {
    "cls": lambda h: h[0],
    "lasttoken": lambda h: h[-1],
    "mean": lambda h: h.mean(0),
    "mean_sqrt_len": lambda h: h.sum(0) / np.sqrt(len(h)),
    "weightedmean": lambda h: sum((i + 1) * row for i, row in enumerate(h)) / sum(range(1, len(h) + 1)),
}


@pytest.mark.parametrize("pooling", DEFINITIONS)
@given(length=st.integers(1, 40), extra=st.integers(0, 10))
def test_definition(pooling: Any, length: int, extra: int) -> None:
    hidden = np.random.default_rng(length).standard_normal((length + extra, 3))
    p = pooling_vector(pooling, length, length + extra)
    assert p.shape == (length + extra,)
    assert not p[length:].any()
    assert np.allclose(p @ hidden, DEFINITIONS[pooling](hidden[:length]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("length", "padded"), [(0, None), (0, 4), (5, 4), (-1, 3)])
def test_bad_lengths(length: int, padded: int | None) -> None:
    with pytest.raises(InputError, match="cannot pool"):
        pooling_vector("mean", length, padded)


def test_normalized() -> None:
    rows = normalized(np.array([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0]]))
    assert np.array_equal(rows, [[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize("pooling", DEFINITIONS)
@pytest.mark.parametrize("normalize", [True, False])
def test_embed(tmp_path: Path, pooling: Any, normalize: bool) -> None:
    model = load_bert(save_bert(random_bert(pooling=pooling, normalize=normalize), tmp_path))
    texts = ["hello", "a b c d", "world", "x"]
    out = embed(model, texts)
    for text, row in zip(texts, out, strict=True):
        ids = Tokenizer(tmp_path).encode([text])
        expected = DEFINITIONS[pooling](forward(model, ids)[-1][0])
        if normalize:
            expected = expected / np.linalg.norm(expected)
        assert np.allclose(row, expected, rtol=0, atol=1e-12)
