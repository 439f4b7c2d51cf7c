"""The outermost layer of the application: whatever happens inside, the caller gets a problem and the log no data."""

from __future__ import annotations

import logging
import time
import traceback

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mpc_ray.serve.problems import Problem, problem_of
from mpc_ray.telemetry import metrics

log = logging.getLogger("mpc_ray.serve")

_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000"),
)


class Guard:
    """ASGI middleware: catches what nobody expected, measures, adds security headers.

    An unexpected exception is an incident: the log has its class and where it was raised, under the id that the
    answer names; its text, which might quote a request, is never read.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *_SECURITY]}
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except ClientDisconnect:
            status = status or 499
        except Exception as error:  # noqa: BLE001 - this is where errors end
            problem = incident(error)
            if status == 0:
                await problem.response(_accept_language(scope))(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            metrics.http(route, status, time.perf_counter() - begun)


def incident(error: BaseException) -> Problem:
    """Log an unexpected error without its text; what to answer."""
    problem = problem_of(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    log.error("incident %s: %s at %s", problem.incident, type(error).__name__, where)
    return problem


def _accept_language(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"accept-language":
            return str(value.decode("latin-1"))
    return ""
