"""text-embeddings-inference's protocol: ``/embed`` (also at ``/``), ``/info``, ``/health``, ``/tokenize``.

What the three parties cannot give is refused: vectors of every token (``/embed_all``), rerankers and classifiers,
unnormalised vectors of a normalised model, and prompts, whose text only the caller knows.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

import mpc_ray
from mpc_ray.client.proxy.embedder import Embedder, ModelFacts, fitted
from mpc_ray.client.proxy.faults import Fault
from mpc_ray.client.proxy.openai import shortened
from mpc_ray.client.proxy.work import in_thread, json_body, while_connected
from mpc_ray.models.pooling import normalized

_KNOWN = ("inputs", "truncate", "truncation_direction", "normalize", "prompt_name", "dimensions")
_REFUSED = {
    "/embed_all": "vectors of every token would show more than the embedding",
    "/embed_sparse": "the model gives dense vectors",
    "/rerank": "the model is no reranker",
    "/predict": "the model is no classifier",
    "/similarity": "compute it from the vectors of /embed",
}


@dataclass(frozen=True)
class Asked:
    """One request of ``/embed``, checked."""

    texts: list[str]
    truncate: bool
    normalize: bool
    dimensions: int | None


def router(embedder: Embedder, *, auto_truncate: bool, most: int, concurrent: int) -> APIRouter:
    """The routes. ``most`` inputs a request; ``concurrent`` is told by ``/info`` alone."""
    routes = APIRouter()

    @routes.post("/embed")
    @routes.post("/")
    async def embed(request: Request) -> Response:
        asked = parse(await json_body(request), embedder.facts, most, auto_truncate)
        return await while_connected(request, _answer(embedder, asked))

    @routes.post("/tokenize")
    async def tokenize(request: Request) -> Response:
        body = await json_body(request)
        if not isinstance(body, dict) or set(body) - {"inputs", "add_special_tokens", "prompt_name"}:
            raise Fault(422, "the body must be an object with `inputs` and, if wanted, `add_special_tokens`")
        if body.get("prompt_name") is not None:
            raise _prompt()
        texts = _texts(body.get("inputs"), most)
        special = _flag(body, "add_special_tokens", True)
        found = [
            [asdict(token) for token in await in_thread(embedder.tokens, text, special)] for text in texts
        ]
        return JSONResponse(found)

    @routes.get("/info")
    async def info() -> Response:
        return JSONResponse(_info(embedder.facts, auto_truncate, most, concurrent))

    @routes.get("/health")
    @routes.get("/ping")
    async def health() -> Response:
        if not await embedder.ready():
            raise Fault(503, "the gateway does not answer, or has no triple ready", tei=(503, "Unhealthy"))
        return Response(status_code=200)

    for path, reason in _REFUSED.items():
        routes.post(path)(_refusal(path, reason))
    return routes


def _refusal(path: str, reason: str) -> Any:
    async def refuse() -> Response:
        raise Fault(424, f"{path} is not offered: {reason}", tei=(424, "Backend"))

    return refuse


async def _answer(embedder: Embedder, asked: Asked) -> Response:
    rows = await in_thread(embedder.encode, asked.texts)
    vectors = await embedder.embed(fitted(embedder.facts, rows, asked.truncate))
    if asked.normalize and not embedder.facts.normalize:
        vectors = normalized(vectors)
    body = await in_thread(_render, shortened(vectors, asked.dimensions))
    return Response(
        body, media_type="application/json", headers={"x-compute-tokens": str(sum(map(len, rows)))}
    )


def _render(vectors: npt.NDArray[np.float32]) -> bytes:
    return json.dumps(vectors.tolist()).encode()


def parse(body: Any, facts: ModelFacts, most: int, auto_truncate: bool) -> Asked:
    """What a body of ``/embed`` asks for. Raises Fault."""
    if not isinstance(body, dict) or "inputs" not in body:
        raise Fault(422, "the body must be a JSON object with `inputs`", tei=(422, "Tokenizer"))
    if unknown := next((key for key in body if key not in _KNOWN), None):
        raise Fault(422, f"unknown field `{unknown[:40]}`", tei=(422, "Tokenizer"))
    if body.get("prompt_name") is not None:
        raise _prompt()
    if str(body.get("truncation_direction") or "right").lower() != "right":
        raise Fault(422, "`truncation_direction`: only right is offered", tei=(422, "Tokenizer"))
    normalize = _flag(body, "normalize", True)
    if facts.normalize and not normalize:
        raise Fault(
            422,
            "`normalize`: false is not offered: this model's last layer normalises, and its length is never opened",
            tei=(422, "Tokenizer"),
        )
    dimensions = body.get("dimensions")
    if dimensions is not None and (
        type(dimensions) is not int or not 1 <= dimensions <= facts.hidden or not normalize
    ):
        raise Fault(
            413, f"`dimensions` must be 1 to {facts.hidden}, of normalised vectors", tei=(413, "Validation")
        )
    truncate = _flag(body, "truncate", False) or auto_truncate
    return Asked(_texts(body["inputs"], most), truncate, normalize, dimensions)


def _texts(value: Any, most: int) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Fault(422, "`inputs` must be a string or a list of strings", tei=(422, "Tokenizer"))
    if not texts or not all(texts):
        raise Fault(400, "`inputs` cannot be empty", tei=(400, "Empty"))
    if len(texts) > most:
        raise Fault(
            413, f"batch size {len(texts)} > maximum allowed batch size {most}", tei=(413, "Validation")
        )
    return texts


def _flag(body: dict[str, Any], name: str, default: bool) -> bool:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise Fault(422, f"`{name}` must be true or false", tei=(422, "Tokenizer"))
    return value


def _prompt() -> Fault:
    return Fault(
        422,
        "`prompt_name` is not offered: put the prompt before the text",
        tei=(422, "Tokenizer"),
    )


def _info(facts: ModelFacts, auto_truncate: bool, most: int, concurrent: int) -> dict[str, Any]:
    return {
        "model_id": facts.name,
        "model_sha": facts.digest,
        "model_dtype": "int64 shares",
        "model_type": {"embedding": {"pooling": facts.pooling}},
        "max_concurrent_requests": concurrent,
        "max_input_length": facts.longest,
        "max_batch_tokens": most * facts.longest,
        "max_batch_requests": None,
        "max_client_batch_size": most,
        "auto_truncate": auto_truncate,
        "tokenization_workers": 1,
        "version": mpc_ray.__version__,
        "sha": None,
        "docker_label": None,
    }
