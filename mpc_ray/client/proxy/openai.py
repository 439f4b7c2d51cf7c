"""OpenAI's protocol: ``POST /v1/embeddings``, ``GET /v1/models``, as the `openai` package and its kin use it.

Vectors are float32, as numbers or (what the package asks for unless told otherwise) base64 of little-endian bytes.
``dimensions`` cuts vectors of a normalised model and makes them unit length again; other models refuse it. Parameters
that are not known are refused, as OpenAI does, since one that is ignored is one that somebody relies on.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from mpc_ray.client.proxy.embedder import Embedder, ModelFacts, Row, fitted, own_ids
from mpc_ray.client.proxy.faults import Fault
from mpc_ray.client.proxy.work import in_thread, json_body, while_connected
from mpc_ray.errors import ConfigError

MOST_INPUTS = 2048
_KNOWN = ("input", "model", "encoding_format", "dimensions", "user")
_REFERENCE = "Please check the API reference: https://platform.openai.com/docs/api-reference."


@dataclass(frozen=True)
class Asked:
    """One request, checked. ``rows``: token arrays of the caller; else ``texts``."""

    model: str
    texts: list[str]
    rows: list[Row] | None
    encoding: Literal["float", "base64"]
    dimensions: int | None


def router(embedder: Embedder, aliases: Mapping[str, str], *, auto_truncate: bool, most: int) -> APIRouter:
    """The routes. ``aliases``: other names a caller may use, each for the model's own. ``most`` inputs a request."""
    if wrong := [name for name, target in aliases.items() if target != embedder.facts.name]:
        raise ConfigError(
            f"aliases: {wrong[0]} stands for another model than {embedder.facts.name}, the one of this proxy's bundle",
            remedy="correct it; one proxy serves one model",
        )
    routes = APIRouter()
    names = [embedder.facts.name, *(name for name in aliases if name != embedder.facts.name)]
    models = [
        {"id": name, "object": "model", "created": int(time.time()), "owned_by": "mpc-ray"} for name in names
    ]

    @routes.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        asked = parse(await json_body(request), embedder.facts, names, most)
        return await while_connected(request, _answer(embedder, asked, auto_truncate))

    @routes.get("/v1/models")
    async def listed() -> Response:
        return JSONResponse({"object": "list", "data": models})

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        return JSONResponse(models[names.index(_known(name, names))])

    return routes


async def _answer(embedder: Embedder, asked: Asked, truncate: bool) -> Response:
    rows = asked.rows if asked.rows is not None else await in_thread(embedder.encode, asked.texts)
    vectors = await embedder.embed(fitted(embedder.facts, rows, truncate))
    tokens = sum(map(len, rows))
    body = await in_thread(
        _render, shortened(vectors, asked.dimensions), asked.encoding, embedder.facts.name, tokens
    )
    return Response(body, media_type="application/json")


def parse(body: Any, facts: ModelFacts, names: list[str], most: int = MOST_INPUTS) -> Asked:
    """What a body asks for. Raises Fault as OpenAI would answer."""
    if not isinstance(body, dict):
        raise Fault(400, "The body must be a JSON object.")
    if unknown := next((key for key in body if key not in _KNOWN), None):
        raise Fault(
            400, f"Unknown parameter: '{unknown[:40]}'.", param=unknown[:40], code="unknown_parameter"
        )
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise Fault(400, "you must provide a model parameter")
    model = _known(body["model"], names)
    encoding: Any = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise Fault(
            400,
            "Invalid value for 'encoding_format'. Supported values are: 'float' and 'base64'.",
            param="encoding_format",
            code="invalid_value",
        )
    if not isinstance(body.get("user"), str | None):
        raise Fault(400, "Invalid type for 'user': expected a string.", param="user", code="invalid_type")
    if body.get("input") is None:
        raise Fault(
            400, "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
        )
    texts, rows = _input(body["input"], most)
    if rows is not None:
        own_ids(facts, rows)
    return Asked(model, texts, rows, encoding, _dimensions(body.get("dimensions"), facts))


def _known(name: str, names: list[str]) -> str:
    if name not in names:
        raise Fault(
            404,
            f"The model `{name[:80]}` does not exist or you do not have access to it. This proxy serves "
            f"{', '.join(names)}; `aliases` in its settings adds names.",
            code="model_not_found",
            param="model",
        )
    return name


def _input(value: Any, most: int) -> tuple[list[str], list[Row] | None]:
    """(texts, None) or ([], token arrays)."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list):
        raise _invalid(
            "It must be a string, an array of strings, an array of tokens or an array of token arrays"
        )
    if not value:
        raise _invalid("It is an empty array")
    if all(type(i) is int for i in value):
        return [], [value]
    if len(value) > most:
        raise _invalid(f"It has {len(value)} entries; array length must be {most} or less")
    if all(isinstance(text, str) for text in value):
        if empty := [i for i, text in enumerate(value) if not text]:
            raise _invalid(f"Entry {empty[0]} is an empty string")
        return value, None
    if all(isinstance(row, list) and all(type(i) is int for i in row) for row in value):
        if empty := [i for i, row in enumerate(value) if not row]:
            raise _invalid(f"Entry {empty[0]} is an empty token array")
        return [], value
    raise _invalid("Its entries must be all strings, all tokens or all token arrays")


def _invalid(reason: str) -> Fault:
    return Fault(400, f"'$.input' is invalid. {reason}. {_REFERENCE}")


def _dimensions(value: Any, facts: ModelFacts) -> int | None:
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise Fault(
            400,
            "Invalid value for 'dimensions': expected a whole number from 1.",
            param="dimensions",
            code="invalid_value",
        )
    if value > facts.hidden:
        raise Fault(
            400,
            f"Invalid value for 'dimensions' = {value}. Must be less than or equal to {facts.hidden}.",
            param="dimensions",
            code="invalid_value",
        )
    if value < facts.hidden and not facts.normalize:
        raise Fault(400, "This model does not support specifying dimensions.", param="dimensions")
    return value


def shortened(vectors: npt.NDArray[np.float64], dimensions: int | None) -> npt.NDArray[np.float32]:
    """The first ``dimensions`` numbers of each unit vector, unit length again; all of them as they are for None."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors.astype(np.float32)
    cut = vectors[:, :dimensions]
    return (cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _render(vectors: npt.NDArray[np.float32], encoding: str, name: str, tokens: int) -> bytes:
    """The answer's body; seconds for thousands of vectors as numbers, so never on the event loop."""
    told: list[Any]
    if encoding == "base64":
        told = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors]
    else:
        told = vectors.tolist()
    data = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(told)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json.dumps({"object": "list", "data": data, "model": name, "usage": usage}).encode()
