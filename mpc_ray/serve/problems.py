"""Problem details (RFC 9457): every error of the gateway as one JSON object in the caller's language.

    {"type": "urn:mpc-ray:problem:CODE", "title", "status", "detail", "code", "cause", "remedy", "instance"}

``title`` is in the caller's language, ``code`` is for machines, ``cause`` and ``remedy`` are those of the MpcError
(``detail`` is the cause again, for clients that know only the standard). ``instance`` is the id under which our log
speaks of it. Nothing that the caller sent is ever repeated.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from starlette.responses import Response

from mpc_ray import errors
from mpc_ray.errors import AuthorisationError, MpcError, Unavailable
from mpc_ray.serve.idempotency import Conflict
from mpc_ray.serve.messages import language_of, title

MEDIA_TYPE = "application/problem+json"
MAX_ERRORS = 20

# Where an error's class says all: status and code. The first match counts.
_BY_CLASS: tuple[tuple[type[MpcError], int, str], ...] = (
    (Conflict, 409, "idempotency_conflict"),
    (errors.Overloaded, 429, "overloaded"),
    (errors.Unavailable, 503, "unavailable"),
    (errors.DeadlineExceeded, 504, "deadline"),
    (errors.SealError, 422, "bad_envelope"),
    (errors.ChannelError, 503, "unavailable"),
    (errors.DeviceError, 503, "unavailable"),
    (errors.PlacementError, 503, "unavailable"),
    (errors.ModelError, 404, "unknown_model"),
    (errors.InputError, 422, "invalid"),
    (errors.RangeExceeded, 422, "range"),
    (errors.AuthorisationError, 403, "forbidden"),
    (errors.CheatingDetected, 500, "cheating"),  # not 502, which clients and proxies repeat
    (MpcError, 502, "party_failed"),
)
# Codes of AuthorisationError that are not about permission.
_BY_CODE: Mapping[str, int] = {
    "replayed": 409,
    "malformed": 422,
    "lifetime": 422,
    "inputs": 422,
    "wrong_shape": 422,
    "wrong_set": 422,
    "unknown_model": 404,
    "unknown_job": 503,  # a party restarted between submit and run: a new authorisation will do
}
_LATER: Mapping[str, str] = {"Retry-After": "30"}
# Which title a status has where its code has none.
_TITLES: Mapping[int, str] = {
    400: "invalid", 401: "bad_key", 403: "forbidden", 404: "not_found", 405: "method", 408: "slow_body",
    409: "replayed", 413: "too_large", 415: "media_type", 422: "invalid", 429: "overloaded", 500: "internal",
    502: "party_failed", 503: "unavailable", 504: "deadline",
}  # fmt: skip


class ProblemError(MpcError):
    """An error that only HTTP knows. ``headers`` go into the answer, ``extra`` into the object."""

    def __init__(
        self,
        status: int,
        code: str,
        cause: str,
        *,
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(cause, remedy=remedy)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})


@dataclass(frozen=True)
class Problem:
    """What is answered, without the language."""

    status: int
    code: str
    cause: str
    remedy: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    incident: str = field(default_factory=lambda: str(uuid.uuid4()))

    def response(self, accept_language: str) -> Response:
        language = language_of(accept_language)
        body = {
            "type": f"urn:mpc-ray:problem:{self.code}",
            "title": title(self.code, _TITLES.get(self.status, "internal"), language),
            "status": self.status,
            "detail": self.cause,
            "code": self.code,
            "cause": self.cause,
            "remedy": self.remedy,
            "instance": f"urn:uuid:{self.incident}",
            **self.extra,
        }
        headers = {"Content-Language": language, "Vary": "Accept-Language", "Cache-Control": "no-store"}
        content = json.dumps(body, ensure_ascii=False).encode()
        return Response(content, self.status, {**headers, **self.headers}, MEDIA_TYPE)


def problem_of(error: BaseException) -> Problem:
    """What to answer for an error. One that is not ours is an incident: its text stays unread."""
    if isinstance(error, ProblemError):
        return Problem(error.status, error.code, error.cause, error.remedy, error.headers, error.extra)
    if not isinstance(error, MpcError):
        return Problem(
            500,
            "internal",
            "the gateway met an error that it did not expect",
            "report the instance of this answer",
        )
    if isinstance(error, errors.ConfigError):  # its cause may name a file of this machine
        return Problem(
            503,
            "unavailable",
            "the gateway is not set up rightly",
            "its operator finds more in its log",
            _LATER,
        )
    status, code = next((status, code) for kind, status, code in _BY_CLASS if isinstance(error, kind))
    own = error.code
    if own.isidentifier() and own != "unauthorised":
        code = own
        status = _BY_CODE.get(own, status) if isinstance(error, AuthorisationError) else status
    headers = dict(getattr(error, "headers", {}))
    if status in {429, 503}:
        wait = error.retry_after_s if isinstance(error, Unavailable) else 1.0
        headers["Retry-After"] = str(max(1, ceil(wait)))
    extra = dict(getattr(error, "extra", {}))
    if isinstance(error, errors.CheatingDetected):
        extra["culprits"] = list(error.culprits)
    return Problem(status, code, error.cause, error.remedy, headers, extra)


def of_http(status: int, headers: Mapping[str, str] | None = None) -> Problem:
    """What to answer for an error of the framework: no such route, no such method."""
    known = {
        404: ("not_found", "there is nothing at this address", "/openapi.json lists every route"),
        405: ("method", "this address does not take this method", "/openapi.json lists every route"),
    }
    code, cause, remedy = known.get(status, ("invalid", "the request is malformed", "see /openapi.json"))
    return Problem(status, code, cause, remedy, headers or {})


def invalid(found: Sequence[Mapping[str, Any]]) -> ProblemError:
    """What to raise for pydantic's errors: where and which kind, never what was sent there."""
    listed = []
    for one in found[:MAX_ERRORS]:
        where = [str(part) for part in one["loc"]]
        if one["type"] == "extra_forbidden":
            where[-1] = "?"  # the caller's own word
        listed.append({"at": ".".join(where), "kind": str(one["type"])})
    at = listed[0]["at"] if listed else ""
    return ProblemError(
        422,
        "invalid",
        f"the request is malformed{f' at {at}' if at else ''}",
        remedy="see /openapi.json for what each field must be",
        extra={"errors": listed},
    )
