"""text-embeddings-inference's protocol at the proxy, request by request."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from direct import LONG, TEXTS, Direct, call, openai  # type: ignore[import-not-found]

from mpc_ray.models.bert_float import embed


def test_embed_is_teis(direct: Direct) -> None:
    for path in ("/embed", "/"):
        answer = call(direct, "POST", path, {"inputs": TEXTS, "truncate": False, "normalize": True})
        found = np.array(answer.json())
        assert answer.status_code == 200 and np.abs(found - embed(direct.owned.bert, TEXTS)).max() < 1e-6
        assert answer.headers["x-compute-tokens"] == str(sum(map(len, direct.encode(TEXTS))))
    assert np.array(call(direct, "POST", "/embed", {"inputs": "a"}).json()).shape == (1, 32)
    cut = np.array(call(direct, "POST", "/embed", {"inputs": "a", "dimensions": 8}).json())
    assert cut.shape == (1, 8) and abs(np.linalg.norm(cut) - 1) < 1e-6


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"inputs": LONG}, 413, "Validation"),
        ({"inputs": ""}, 400, "Empty"),
        ({"inputs": []}, 400, "Empty"),
        ({"inputs": ["a", ""]}, 400, "Empty"),
        ({"inputs": "  "}, 422, "Tokenizer"),
        ({"inputs": 7}, 422, "Tokenizer"),
        ({"inputs": [[1, 2]]}, 422, "Tokenizer"),
        ({}, 422, "Tokenizer"),
        ([], 422, "Tokenizer"),
        ({"inputs": "a", "truncate": "yes"}, 422, "Tokenizer"),
        ({"inputs": "a", "normalize": False}, 422, "Tokenizer"),
        ({"inputs": "a", "prompt_name": "query"}, 422, "Tokenizer"),
        ({"inputs": "a", "truncation_direction": "left"}, 422, "Tokenizer"),
        ({"inputs": "a", "dimensions": 33}, 413, "Validation"),
        ({"inputs": "a", "unknown": 1}, 422, "Tokenizer"),
        ({"inputs": ["a"] * 2049}, 413, "Validation"),
    ],
)
def test_teis_errors(direct: Direct, body: Any, status: int, kind: str) -> None:
    answer = call(direct, "POST", "/embed", body)
    assert answer.status_code == status and answer.json()["error_type"] == kind
    assert set(answer.json()) == {"error", "error_type"}


def test_tei_truncates_when_asked(direct: Direct) -> None:
    body = {"inputs": ["a", LONG], "truncate": True, "truncation_direction": "Right"}
    assert call(direct, "POST", "/embed", body).status_code == 200
    assert [len(row) for row in direct.seen[-1]] == [3, 32]


def test_a_model_that_does_not_normalise_is_normalised_as_tei_does(tmp_path: Any) -> None:
    from owned import make

    direct = Direct(make(tmp_path, normalize=False))
    plain = np.array(call(direct, "POST", "/embed", {"inputs": "a", "normalize": False}).json())
    unit = np.array(call(direct, "POST", "/embed", {"inputs": "a"}).json())
    assert abs(np.linalg.norm(plain) - 1) > 0.1 and abs(np.linalg.norm(unit) - 1) < 1e-6
    assert np.abs(plain / np.linalg.norm(plain) - unit).max() < 1e-6


@pytest.mark.parametrize("path", ["/embed_all", "/embed_sparse", "/rerank", "/predict", "/similarity"])
def test_what_shares_cannot_give_is_refused(direct: Direct, path: str) -> None:
    answer = call(direct, "POST", path, {"inputs": "a"})
    assert answer.status_code == 424 and f"{path} is not offered" in answer.json()["error"]


def test_tokenize(direct: Direct) -> None:
    (found,) = call(direct, "POST", "/tokenize", {"inputs": "Hi you"}).json()
    assert [token["id"] for token in found] == direct.encode(["Hi you"])[0]
    assert [token["special"] for token in found] == [True, *[False] * (len(found) - 2), True]
    assert found[1]["start"] == 0 and found[-2]["stop"] == 6
    (bare,) = call(direct, "POST", "/tokenize", {"inputs": ["Hi you"], "add_special_tokens": False}).json()
    assert bare == found[1:-1]
    assert call(direct, "POST", "/tokenize", {"inputs": "a", "x": 1}).status_code == 422


def test_info_health_and_metrics(direct: Direct) -> None:
    said = call(direct, "GET", "/info").json()
    assert (said["model_id"], said["model_type"]) == ("tiny", {"embedding": {"pooling": "mean"}})
    assert (said["max_input_length"], said["max_client_batch_size"], said["auto_truncate"]) == (
        32,
        2048,
        False,
    )
    assert call(direct, "GET", "/health").status_code == 200
    direct.is_ready = False
    down = call(direct, "GET", "/health")
    assert down.status_code == 503 and down.json()["error_type"] == "Unhealthy"
    openai(direct, "a")
    text = call(direct, "GET", "/metrics").text
    assert 'route="/v1/embeddings",status="200"' in text
    assert 'route="/health",status="503"' in text
