"""The OpenAPI document: bodies that are read by hand, every error that a route can answer, who needs a key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from mpc_ray.serve.config import GatewayConfig
from mpc_ray.serve.problems import MEDIA_TYPE
from mpc_ray.serve.schema import AuthorisationBody, InferAnswer, InferBody, ProblemBody

_ERRORS: Mapping[int, str] = {
    401: "No API key, or none that is valid",
    403: "The key, the signature or a policy does not allow it",
    404: "No such address, set or model",
    408: "The body came too slowly",
    409: "The job was sent before, or the Idempotency-Key is in use for another body",
    413: "Larger than the limit, chunked or not",
    415: "Not JSON",
    422: "Malformed, or out of bounds",
    429: "Too many requests or tokens, or everything is busy",
    500: "An error of ours; the log speaks of it under `instance`",
    502: "A party failed with this job",
    503: "Not available now",
    504: "The deadline has passed",
}
_RETRY = {
    "Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "seconds", "required": True}
}
_BEARER: list[dict[str, list[str]]] = [{"bearer": []}]


def _errors(*codes: int) -> dict[int | str, dict[str, Any]]:
    ref = {"$ref": "#/components/schemas/ProblemBody"}
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        responses[code] = {"description": _ERRORS[code], "content": {MEDIA_TYPE: {"schema": ref}}}
        if code in {429, 503}:
            responses[code]["headers"] = _RETRY
    return responses


def _header(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": dict(schema),
    }


_LANGUAGE = _header("Accept-Language", "language of an error's title", {"type": "string", "maxLength": 1000})
PLAIN: dict[str, Any] = {"responses": _errors(500)}
READY: dict[str, Any] = {"responses": _errors(404, 422, 500, 503)}
KEYED: dict[str, Any] = {
    "responses": _errors(401, 404, 422, 500, 503),
    "openapi_extra": {"security": _BEARER},
}
PARTIES: dict[str, Any] = {
    "responses": {
        200: {
            "description": "The directory, signed by the federation's authority",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        304: {"description": "Still the one of If-None-Match"},
        **_errors(404, 422, 500),
    }
}
METRICS: dict[str, Any] = {
    "responses": {
        200: {
            "description": "Prometheus' text format",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **_errors(404, 500),
    }
}
INFER: dict[str, Any] = {
    "responses": {
        200: {"description": "Three sealed answers", "headers": {
            "Idempotency-Replayed": {"schema": {"const": "true"}, "description": "present on a stored answer"}
        }},
        **_errors(401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504),
    },
    "openapi_extra": {
        "security": _BEARER,
        "parameters": [
            _header(
                "Idempotency-Key",
                "a request with the same key and body is computed once, and answered again from memory",
                {"type": "string", "pattern": "^[!-~]{1,128}$"},
            ),
            _header("traceparent", "W3C trace context", {"type": "string", "maxLength": 256}),
            _LANGUAGE,
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferBody"}}},
        },
    },
}  # fmt: skip

EXAMPLE: Mapping[str, Any] = {
    "authorisation": {
        "job": "9f86d081884c7d659a2feaa0c55ad015",
        "federation": "example",
        "set": "eu",
        "client": "a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "model": "all-MiniLM-L6-v2",
        "model_digest": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
        "protocol": "semi_honest_3pc",
        "batch": 1,
        "length": 32,
        "output": "embedding",
        "range_check": True,
        "purpose": "search",
        "jurisdictions": ["DE", "FR", "IE"],
        "retention": "job",
        "issued_ms": 1_900_000_000_000,
        "expires_ms": 1_900_000_060_000,
        "inputs": [f"{digit}" * 64 for digit in (1, 2, 3)],
    },
    "signature": "A" * 86 + "==",
    "envelopes": ["ZW52ZWxvcGUgMA==", "ZW52ZWxvcGUgMQ==", "ZW52ZWxvcGUgMg=="],
}


def complete(app: FastAPI, config: GatewayConfig) -> None:
    """Make the document once; ``app.openapi()`` and ``app.state.openapi_json`` are it from now on."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        openapi_version="3.1.0",
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    for model in (AuthorisationBody, InferBody, InferAnswer, ProblemBody):
        made = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(made.pop("$defs", {}))
        schemas[model.__name__] = made
    document["components"]["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "mpck_<id>_<secret>"}
    }
    infer = document["paths"]["/v1/private/infer"]["post"]
    most = int(config.limits.max_timeout_s * 1000)
    infer["parameters"].append(
        _header(
            "X-Request-Timeout-Ms",
            "after so long the job is given up and answered 504",
            {"type": "integer", "minimum": 1, "maximum": most},
        )
    )
    body = infer["requestBody"]["content"]["application/json"]
    body["examples"] = {"one text": {"value": EXAMPLE}}
    envelopes = schemas["InferBody"]["properties"]["envelopes"]["items"]
    envelopes["maxLength"] = config.limits.body_bytes // 3
    schemas["AuthorisationBody"]["properties"]["batch"]["maximum"] = config.limits.batch
    app.state.openapi_json = json.dumps(document, separators=(",", ":")).encode()
    app.openapi = lambda: document  # type: ignore[method-assign]
