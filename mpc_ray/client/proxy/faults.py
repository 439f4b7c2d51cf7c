"""Errors in the forms that clients parse: OpenAI's ``{"error": {…}}`` and TEI's ``{"error", "error_type"}``.

An error's own text goes through: errors of mpc-ray name a text by its index and never quote it. Anything else is told
by its class name alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.responses import JSONResponse, Response

from mpc_ray import errors
from mpc_ray.client.proxy.embedder import TooLong
from mpc_ray.errors import MpcError

log = logging.getLogger("mpc_ray.proxy")

Form = Literal["openai", "tei"]
INVALID = "invalid_request_error"


class Fault(Exception):
    """An answer that is an error. ``kind`` is OpenAI's ``type``; ``tei`` TEI's status and ``error_type``."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = INVALID,
        tei: tuple[int, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind
        self.tei = tei or (status, "Validation")
        self.headers = dict(headers or {})

    def response(self, form: Form) -> Response:
        """The answer in one of the two forms."""
        content: dict[str, Any]
        if form == "openai":
            inner = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
            return JSONResponse({"error": inner}, self.status, self.headers)
        status, kind = self.tei
        content = {"error": self.message, "error_type": kind}
        return JSONResponse(content, status, self.headers)


@dataclass(frozen=True)
class _Row:
    """How one class of error is told: OpenAI's status, type and code; TEI's status and type; worth another try?"""

    status: int
    kind: str
    code: str | None
    tei: tuple[int, str]
    again: bool = False
    param: str | None = field(default=None)


_INPUT = _Row(400, INVALID, "invalid_input", (422, "Tokenizer"), param="input")
# The first class that fits counts, so subclasses come before their base.
_TABLE: tuple[tuple[type[MpcError], _Row], ...] = (
    (errors.RangeExceeded, _Row(422, INVALID, "out_of_range", (424, "Backend"), param="input")),
    (errors.InputError, _INPUT),
    (
        errors.Overloaded,
        _Row(429, "rate_limit_error", "rate_limit_exceeded", (429, "Overloaded"), again=True),
    ),
    (errors.Unavailable, _Row(503, "server_error", "unavailable", (503, "Unhealthy"), again=True)),
    (errors.DeadlineExceeded, _Row(504, "server_error", "timeout", (424, "Backend"), again=True)),
    # The proxy's own key or authorisation: 401 would make a caller look for the fault in its own key.
    (errors.AuthorisationError, _Row(403, "permission_error", "not_authorised", (424, "Backend"))),
    (errors.ChannelError, _Row(502, "server_error", "connection_failed", (424, "Backend"), again=True)),
)
_OTHER = _Row(500, "server_error", "internal_error", (424, "Backend"))


def fault_of(error: BaseException) -> Fault:
    """Any exception as a Fault. Errors that are not ours are logged by class and place, never by their text."""
    if isinstance(error, Fault):
        return error
    if isinstance(error, TooLong):
        return Fault(
            400,
            f"This model's maximum context length is {error.most} tokens, however you requested {error.tokens} tokens "
            f"({error.cause}). Please reduce your input, or set auto_truncate in the proxy's settings.",
            code="context_length_exceeded",
            param="input",
            tei=(413, "Validation"),
        )
    if not isinstance(error, MpcError):
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = (
            f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}" if place is not None else "unknown place"
        )
        log.error("%s at %s", type(error).__name__, where)
        return Fault(
            500,
            f"{type(error).__name__} inside the proxy: see its log",
            kind="server_error",
            code="internal_error",
            tei=(424, "Backend"),
            headers={"x-should-retry": "false"},
        )
    row = next((row for kind, row in _TABLE if isinstance(error, kind)), _OTHER)
    headers = {"x-should-retry": "true" if row.again else "false"}
    if isinstance(error, errors.Unavailable):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    code = getattr(error, "code", None) if isinstance(error, errors.AuthorisationError) else None
    return Fault(
        row.status,
        str(error),
        code=code or row.code,
        param=row.param,
        kind=row.kind,
        tei=row.tei,
        headers=headers,
    )
