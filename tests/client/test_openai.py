"""OpenAI's protocol at the proxy, request by request."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from direct import LONG, TEXTS, Direct, call, fault, openai  # type: ignore[import-not-found]
from owned import Owned

from mpc_ray import errors
from mpc_ray.client.proxy.app import make_app
from mpc_ray.client.proxy.settings import ProxySettings
from mpc_ray.errors import ConfigError, MpcError
from mpc_ray.models.bert_float import embed


def test_an_embedding_answer_has_openais_form(direct: Direct) -> None:
    answer = openai(direct, TEXTS, user="somebody", encoding_format="float")
    assert answer.status_code == 200
    said = answer.json()
    assert set(said) == {"object", "data", "model", "usage"} and said["object"] == "list"
    assert [set(one) for one in said["data"]] == [{"object", "index", "embedding"}] * 3
    assert [one["index"] for one in said["data"]] == [0, 1, 2]
    found = np.array([one["embedding"] for one in said["data"]])
    assert np.abs(found - embed(direct.owned.bert, TEXTS)).max() < 1e-6
    tokens = sum(map(len, direct.encode(TEXTS)))
    assert said["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens} and said["model"] == "tiny"


def test_base64_is_little_endian_float32_of_the_same_numbers(direct: Direct) -> None:
    floats = openai(direct, "a b", encoding_format="float").json()["data"][0]["embedding"]
    coded = openai(direct, "a b", encoding_format="base64").json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(coded), "<f4").tolist() == floats
    assert openai(direct, "a b").json()["data"][0]["embedding"] == floats, "numbers are the default"
    assert openai(direct, "a b", encoding_format=None, dimensions=None, user=None).status_code == 200


def test_one_text_and_a_list_of_one_are_the_same(direct: Direct) -> None:
    assert openai(direct, "a b").json() == openai(direct, ["a b"]).json()


def test_dimensions_cut_and_normalise_again(direct: Direct) -> None:
    whole = np.array(openai(direct, "a b").json()["data"][0]["embedding"])
    for size in (1, 8, 32):
        cut = np.array(openai(direct, "a b", dimensions=size).json()["data"][0]["embedding"])
        assert cut.shape == (size,) and abs(np.linalg.norm(cut) - 1) < 1e-6
        assert np.abs(cut - whole[:size] / np.linalg.norm(whole[:size])).max() < 1e-6
    for size in (0, -1, 33, 1.5, "8", True):
        answer = openai(direct, "a b", dimensions=size)
        assert answer.status_code == 400 and fault(answer)["param"] == "dimensions", size


def test_a_model_that_does_not_normalise_refuses_dimensions(made: Owned) -> None:
    answer = openai(Direct(made, normalize=False), "a", dimensions=8)
    assert answer.status_code == 400
    assert fault(answer)["message"] == "This model does not support specifying dimensions."
    assert openai(Direct(made, normalize=False), "a", dimensions=32).status_code == 200


def test_token_arrays_of_the_models_own_tokenizer(direct: Direct) -> None:
    rows = direct.encode(TEXTS)
    texts = [one["embedding"] for one in openai(direct, TEXTS).json()["data"]]
    assert [one["embedding"] for one in openai(direct, rows).json()["data"]] == texts
    assert openai(direct, rows[0]).json()["data"][0]["embedding"] == texts[0], "one flat token array"


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([[9906, 1917]], "does not hold ids of this model's own tokenizer"),  # cl100k_base: "Hello world"
        ([[9, 8, 7]], r"those begin with \[2\] and end with \[3\]"),
        ([2, 9, 8], "check_embedding_ctx_length=False"),
        ([[2, 3]], "token array 0"),
        ([[2, 5, 3], [2, 128, 3]], r"token array 1 has an id outside 0\.\.127"),
        ([[2, -1, 3]], "outside"),
    ],
)
def test_token_arrays_of_another_tokenizer_are_told_apart(direct: Direct, rows: Any, word: str) -> None:
    answer = openai(direct, rows)
    assert answer.status_code == 400
    with pytest.raises(AssertionError, match=word):
        raise AssertionError(fault(answer)["message"])
    assert direct.seen == []


@pytest.mark.parametrize(
    "given",
    ["", [], [""], ["a", ""], [[]], [[2, 5, 3], []], {"a": 1}, 7, True, [7.5], ["a", 7], ["a", [7]], [True]],
)
def test_an_input_that_is_none_is_openais_error(direct: Direct, given: Any) -> None:
    answer = openai(direct, given)
    error = fault(answer)
    assert answer.status_code == 400 and error["message"].startswith("'$.input' is invalid. ")
    assert error["type"] == "invalid_request_error" and error["param"] is None and error["code"] is None


def test_batches_go_up_to_2048(direct: Direct) -> None:
    assert len(openai(direct, ["a"] * 2048).json()["data"]) == 2048
    answer = openai(direct, ["a"] * 2049)
    assert answer.status_code == 400 and "array length must be 2048 or less" in fault(answer)["message"]


@pytest.mark.parametrize(
    ("body", "status", "message", "code", "param"),
    [
        (
            {"model": "tiny"},
            400,
            "Missing required parameter: 'input'.",
            "missing_required_parameter",
            "input",
        ),
        ({"input": "a"}, 400, "you must provide a model parameter", None, None),
        ({"input": "a", "model": 7}, 400, "you must provide a model parameter", None, None),
        ({"input": "a", "model": "gpt"}, 404, "The model `gpt` does not exist", "model_not_found", "model"),
        ({"input": "a", "model": "tiny", "x": 1}, 400, "Unknown parameter: 'x'.", "unknown_parameter", "x"),
        (
            {"input": "a", "model": "tiny", "encoding_format": "int8"},
            400,
            "Invalid value for 'encoding_format'.",
            "invalid_value",
            "encoding_format",
        ),
        ({"input": "a", "model": "tiny", "user": 7}, 400, "Invalid type for 'user'", "invalid_type", "user"),
        ([], 400, "The body must be a JSON object.", None, None),
    ],
)
def test_a_body_that_is_wrong_is_openais_error(
    direct: Direct, body: Any, status: int, message: str, code: str | None, param: str | None
) -> None:
    answer = call(direct, "POST", "/v1/embeddings", body)
    error = fault(answer)
    assert answer.status_code == status and error["message"].startswith(message)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"input": NaN, "model": "tiny"}', b"[" * 100_000])
def test_a_body_that_is_no_json(direct: Direct, content: bytes) -> None:
    answer = call(direct, "POST", "/v1/embeddings", content=content)
    assert answer.status_code == 400
    assert fault(answer)["message"] == "We could not parse the JSON body of your request."
    assert call(direct, "POST", "/embed", content=content).status_code == 422


def test_a_text_that_is_too_long_is_said_as_openai_says_it(direct: Direct) -> None:
    answer = openai(direct, ["a", LONG])
    error = fault(answer)
    assert answer.status_code == 400 and error["code"] == "context_length_exceeded"
    assert error["message"].startswith(
        "This model's maximum context length is 32 tokens, however you requested 42 tokens (text 1 has"
    )
    body = {"input": ["a", LONG], "model": "tiny"}
    cut = call(direct, "POST", "/v1/embeddings", body, settings={"auto_truncate": True})
    assert cut.status_code == 200 and len(direct.seen[-1][1]) == 32 and direct.seen[-1][1][-1] == 3


def test_a_text_without_content_names_its_place_only(direct: Direct) -> None:
    answer = openai(direct, ["a", "  \n "])
    assert answer.status_code == 400 and "text 1 is empty" in fault(answer)["message"]
    assert fault(answer)["code"] == "invalid_input"


def test_models_and_aliases(direct: Direct) -> None:
    listed = call(direct, "GET", "/v1/models").json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["tiny", "text-embedding-3-small"]
    assert all(set(one) == {"id", "object", "created", "owned_by"} for one in listed["data"])
    assert call(direct, "GET", "/v1/models/text-embedding-3-small").json()["object"] == "model"
    missing = call(direct, "GET", "/v1/models/org/other")
    assert missing.status_code == 404 and fault(missing)["code"] == "model_not_found"
    assert openai(direct, "a", model="text-embedding-3-small").json()["model"] == "tiny"
    with pytest.raises(ConfigError, match="stands for another model than tiny"):
        make_app(direct, ProxySettings(aliases={"x": "other"}))


def test_what_is_not_there(direct: Direct) -> None:
    answer = call(direct, "POST", "/v1/chat/completions", {})
    assert answer.status_code == 404
    assert fault(answer)["message"] == "Invalid URL (POST /v1/chat/completions)"
    answer = call(direct, "GET", "/v1/embeddings")
    assert answer.status_code == 405 and fault(answer)["message"] == "Not allowed to GET on /v1/embeddings."
    assert set(call(direct, "GET", "/nothing").json()) == {"error", "error_type"}


@pytest.mark.parametrize(
    ("error", "status", "kind", "code", "tei"),
    [
        (errors.InputError("x"), 400, "invalid_request_error", "invalid_input", (422, "Tokenizer")),
        (errors.RangeExceeded("x"), 422, "invalid_request_error", "out_of_range", (424, "Backend")),
        (
            errors.Overloaded("x", retry_after_s=2.5),
            429,
            "rate_limit_error",
            "rate_limit_exceeded",
            (429, "Overloaded"),
        ),
        (errors.Unavailable("x", retry_after_s=2.5), 503, "server_error", "unavailable", (503, "Unhealthy")),
        (errors.DeadlineExceeded("x"), 504, "server_error", "timeout", (424, "Backend")),
        (errors.Refused("x", code="purpose"), 403, "permission_error", "purpose", (424, "Backend")),
        (
            errors.AuthorisationError("x", code="bad_key"),
            403,
            "permission_error",
            "bad_key",
            (424, "Backend"),
        ),
        (errors.ChannelError("x"), 502, "server_error", "connection_failed", (424, "Backend")),
        (errors.SealError("x"), 500, "server_error", "internal_error", (424, "Backend")),
        (MpcError("x"), 500, "server_error", "internal_error", (424, "Backend")),
        (ValueError("secret text"), 500, "server_error", "internal_error", (424, "Backend")),
    ],
)
def test_every_error_has_a_form_in_both_protocols(
    direct: Direct,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    status: int,
    kind: str,
    code: str,
    tei: tuple[int, str],
) -> None:
    direct.error = error
    answer = openai(direct, "a")
    said = fault(answer)
    assert (answer.status_code, said["type"], said["code"]) == (status, kind, code)
    other = call(direct, "POST", "/embed", {"inputs": "a"})
    assert (other.status_code, other.json()["error_type"]) == tei
    if isinstance(error, errors.Unavailable):
        assert answer.headers["retry-after"] == other.headers["retry-after"] == "3"
    assert (answer.headers["x-should-retry"] == "true") == (status in (429, 502, 503, 504))
    assert "secret text" not in answer.text + other.text + caplog.text
    if isinstance(error, ValueError):
        assert "ValueError at" in caplog.text
