"""The packages that people use, unchanged, against the proxy on a real port: numbers, forms, errors.

The proxy asks the client of ``fake_gateway``: texts are shared, sealed, opened, computed, sealed and opened as in the
real thing, and every number is compared with the float model's (tests/vectors holds it to sentence-transformers' own).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from fake_gateway import FakeGateway, says  # type: ignore[import-not-found]

from mpc_ray.client import AsyncClient
from mpc_ray.client.proxy.app import make_app
from mpc_ray.client.proxy.client import ClientEmbedder
from mpc_ray.client.proxy.host import Server, hosted
from mpc_ray.client.proxy.settings import ProxySettings
from mpc_ray.models.bert_float import embed

TEXTS = ["Hello, world!", "a", "The 7 quick foxes (and 9 dogs)", "c d e f g h i j k l m n"]
ALIAS = "text-embedding-3-small"
TOLERANCE = 1e-4


@pytest.fixture
def proxy(client: Callable[..., AsyncClient]) -> Iterator[Server]:
    settings = ProxySettings(port=0, aliases={ALIAS: "tiny"}, drain_s=1)
    with hosted(make_app(ClientEmbedder(client(retries=1)), settings), settings) as server:
        yield server


@pytest.fixture
def wanted(gateway: FakeGateway) -> np.ndarray:
    return embed(gateway.owned.bert, TEXTS)


def near(found: Any, wanted: np.ndarray) -> bool:
    given = np.array(found, dtype=np.float64)
    return given.shape == wanted.shape and bool(np.abs(given - wanted).max() < TOLERANCE)


# -- openai ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def openai_client(proxy: Server) -> Iterator[Any]:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="unused", max_retries=0) as one:
        yield one


def test_openai_as_its_users_use_it(openai_client: Any, wanted: np.ndarray, gateway: FakeGateway) -> None:
    answer = openai_client.embeddings.create(input=TEXTS, model="tiny")  # asks for base64
    assert near([one.embedding for one in answer.data], wanted)
    assert [one.index for one in answer.data] == [0, 1, 2, 3] and answer.model == "tiny"
    rows = gateway.owned.bundle.tokenizer.encode(TEXTS)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, rows))
    one = openai_client.embeddings.create(input=TEXTS[0], model=ALIAS, user="someone")
    assert near([one.data[0].embedding], wanted[:1])
    floats = openai_client.embeddings.create(input=TEXTS, model="tiny", encoding_format="float")
    assert near([one.embedding for one in floats.data], wanted)
    coded = openai_client.embeddings.create(input=TEXTS[0], model="tiny", encoding_format="base64")
    assert near([np.frombuffer(base64.b64decode(coded.data[0].embedding), "<f4")], wanted[:1])


def test_openai_dimensions_and_token_arrays(
    openai_client: Any, wanted: np.ndarray, gateway: FakeGateway
) -> None:
    cut = wanted[:, :8] / np.linalg.norm(wanted[:, :8], axis=1, keepdims=True)
    answer = openai_client.embeddings.create(input=TEXTS, model="tiny", dimensions=8)
    assert near([one.embedding for one in answer.data], cut)
    rows = gateway.owned.bundle.tokenizer.encode(TEXTS)
    answer = openai_client.embeddings.create(input=rows, model="tiny")
    assert near([one.embedding for one in answer.data], wanted)
    answer = openai_client.embeddings.create(input=rows[2], model="tiny")
    assert near([answer.data[0].embedding], wanted[2:3])


def test_openai_batches_and_models(openai_client: Any, gateway: FakeGateway) -> None:
    texts = [f"text {i}" for i in range(300)]
    answer = openai_client.embeddings.create(input=texts, model="tiny")
    assert near([one.embedding for one in answer.data], embed(gateway.owned.bert, texts))
    assert [model.id for model in openai_client.models.list()] == ["tiny", ALIAS]
    assert openai_client.models.retrieve(ALIAS).owned_by == "mpc-ray"


def test_openai_async(proxy: Server, wanted: np.ndarray) -> None:
    openai = pytest.importorskip("openai")

    async def work() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="unused") as one:
            answers = await asyncio.gather(
                *(one.embeddings.create(input=text, model="tiny") for text in TEXTS)
            )
            return [answer.data[0].embedding for answer in answers]

    assert near(asyncio.run(work()), wanted)


@pytest.mark.parametrize(
    ("settings", "kind", "code"),
    [
        ({"model": "gpt"}, "NotFoundError", "model_not_found"),
        ({"input": ""}, "BadRequestError", None),
        ({"input": []}, "BadRequestError", None),
        ({"input": ["a", ""]}, "BadRequestError", None),
        ({"input": "a " * 90}, "BadRequestError", "context_length_exceeded"),
        ({"input": [[1, 2, 3]]}, "BadRequestError", "invalid_input"),
        ({"dimensions": 99}, "BadRequestError", "invalid_value"),
        ({"extra_body": {"unheard_of": 1}}, "BadRequestError", "unknown_parameter"),
    ],
)
def test_openai_errors_of_the_caller(openai_client: Any, settings: Any, kind: str, code: str | None) -> None:
    import openai

    with pytest.raises(getattr(openai, kind)) as caught:
        openai_client.embeddings.create(**({"input": "a", "model": "tiny"} | settings))
    assert caught.value.code == code and caught.value.type == "invalid_request_error"
    assert isinstance(caught.value.body, dict) and caught.value.body["message"] in str(caught.value)


@pytest.mark.parametrize(
    ("no", "kind", "status"),
    [
        (says(429, "overloaded", {"Retry-After": "0"}), "RateLimitError", 429),
        (says(503, "draining", {"Retry-After": "0"}), "InternalServerError", 503),
        (says(504, "deadline"), "InternalServerError", 504),
        (says(403, "purpose"), "PermissionDeniedError", 403),
        (says(401, "bad_key"), "PermissionDeniedError", 403),
        (says(500, "internal"), "InternalServerError", 500),
    ],
)
def test_openai_errors_of_the_service(
    openai_client: Any, gateway: FakeGateway, no: Any, kind: str, status: int
) -> None:
    import openai

    gateway.react = [no] * 3
    with pytest.raises(getattr(openai, kind)) as caught:
        openai_client.embeddings.create(input="a", model="tiny")
    assert caught.value.status_code == status


def test_openai_tries_again_what_the_proxy_says_may_be_tried(proxy: Server, gateway: FakeGateway) -> None:
    openai = pytest.importorskip("openai")
    gateway.react = [says(503, "draining")] * 2  # the proxy's own two tries
    with openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="unused", max_retries=1) as one:
        assert len(one.embeddings.create(input="a", model="tiny").data) == 1
        assert len(gateway.posted) == 3
        gateway.posted.clear()
        gateway.react = [says(403, "purpose")] * 2
        with pytest.raises(openai.PermissionDeniedError):
            one.embeddings.create(input="a", model="tiny")
        assert len(gateway.posted) == 1


# -- others ----------------------------------------------------------------------------------------------------------


def test_huggingface_hub(proxy: Server, wanted: np.ndarray) -> None:
    hub = pytest.importorskip("huggingface_hub")
    for path in ("", "/embed"):
        one = hub.InferenceClient(f"{proxy.url}{path}", token="unused")
        found = one.feature_extraction(TEXTS, normalize=True, truncate=True)
        assert found.dtype == np.float32 and near(found, wanted)
        assert near(one.feature_extraction(TEXTS[0]), wanted[:1])
        cut = one.feature_extraction(TEXTS, dimensions=8)
        assert np.allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-5) and cut.shape == (4, 8)
        with pytest.raises(hub.errors.HfHubHTTPError) as caught:
            one.feature_extraction("a " * 90)
        assert caught.value.response.status_code == 413


def test_langchain(proxy: Server, wanted: np.ndarray) -> None:
    langchain = pytest.importorskip("langchain_openai")
    one = langchain.OpenAIEmbeddings(
        model="tiny", base_url=f"{proxy.url}/v1", api_key="unused", check_embedding_ctx_length=False
    )
    assert near(one.embed_documents(TEXTS), wanted)
    assert near([one.embed_query(TEXTS[1])], wanted[1:2])
    assert near(asyncio.run(one.aembed_documents(TEXTS)), wanted)


def test_langchain_with_openais_token_ids_is_told_what_to_set(
    proxy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its default sends ids of OpenAI's own tokenizer, whose table it fetches: here one of single bytes stands in."""
    langchain, tiktoken = pytest.importorskip("langchain_openai"), pytest.importorskip("tiktoken")
    bytes_only = tiktoken.Encoding(
        "bytes", pat_str=r".", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda name: bytes_only)
    one = langchain.OpenAIEmbeddings(
        model="tiny", base_url=f"{proxy.url}/v1", api_key="unused", max_retries=0
    )
    with pytest.raises(Exception, match="check_embedding_ctx_length=False"):
        one.embed_documents(TEXTS)


def test_llama_index(proxy: Server, wanted: np.ndarray) -> None:
    llama = pytest.importorskip("llama_index.embeddings.openai")
    for name in ({"model_name": "tiny"}, {"model": ALIAS}):
        one = llama.OpenAIEmbedding(api_base=f"{proxy.url}/v1", api_key="unused", max_retries=1, **name)
        assert near(one.get_text_embedding_batch(TEXTS), wanted)
        assert near([one.get_query_embedding(TEXTS[1])], wanted[1:2])
    cut = llama.OpenAIEmbedding(
        api_base=f"{proxy.url}/v1", api_key="unused", model_name="tiny", dimensions=8
    ).get_text_embedding(TEXTS[0])
    assert len(cut) == 8 and abs(np.linalg.norm(cut) - 1) < 1e-5


def test_a_tei_client_by_hand(proxy: Server, wanted: np.ndarray) -> None:
    with httpx.Client(base_url=proxy.url) as one:
        assert one.get("/health").status_code == 200
        assert one.get("/info").json()["model_id"] == "tiny"
        assert near(one.post("/embed", json={"inputs": TEXTS}).json(), wanted)
        assert "mpc_ray_http_seconds" in one.get("/metrics").text


# -- the process -----------------------------------------------------------------------------------------------------


def test_the_end_waits_for_requests_under_way(
    client: Callable[..., AsyncClient], gateway: FakeGateway
) -> None:
    import threading
    import time

    settings = ProxySettings(port=0, drain_s=10)

    async def slow(fake: FakeGateway, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(0.5)
        return fake.infer(request)

    gateway.react = [slow]
    answers: list[int] = []
    with hosted(make_app(ClientEmbedder(client()), settings), settings) as server:
        body = {"input": "a", "model": "tiny"}

        def call() -> None:
            answers.append(httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=20).status_code)

        thread = threading.Thread(target=call)
        thread.start()
        while not gateway.posted:
            time.sleep(0.01)
        server.handle_exit(15, None)
    thread.join(10)
    assert answers == [200] and gateway.closed
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health")
