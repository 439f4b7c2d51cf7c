"""The proxy's application: OpenAI's and TEI's routes behind a host check, an optional local key and a body limit.

It listens on the caller's own machine. A page in the caller's browser could reach it there too: so names other than
the expected ones in ``Host`` are refused (DNS rebinding), and so is what a browser sends from another origin.
"""

from __future__ import annotations

import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from mpc_ray.client.proxy import openai, tei
from mpc_ray.client.proxy.embedder import Embedder
from mpc_ray.client.proxy.faults import Fault, Form, fault_of
from mpc_ray.client.proxy.settings import ProxySettings
from mpc_ray.telemetry import metrics, traces

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS = ("/health", "/ping", "/metrics")  # asked by monitors, and they tell nothing of anybody


def make_app(embedder: Embedder, settings: ProxySettings, key: bytes | None = None) -> FastAPI:
    """The application over ``embedder``, which it closes at its end. ``key``: what callers must send as Bearer."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        yield
        await embedder.aclose()

    app = FastAPI(title="mpc-ray proxy", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(
        openai.router(
            embedder, settings.aliases, auto_truncate=settings.auto_truncate, most=settings.max_inputs
        )
    )
    app.include_router(
        tei.router(
            embedder,
            auto_truncate=settings.auto_truncate,
            most=settings.max_inputs,
            concurrent=settings.max_requests,
        )
    )

    @app.get("/metrics")
    async def exposition() -> Response:
        body, media_type = metrics.exposition()
        return Response(body, media_type=media_type)

    async def told(request: Request, error: Exception) -> Response:
        return fault_of(_of_http(request, error)).response(form_of(request.url.path))

    app.add_exception_handler(HTTPException, told)
    app.add_exception_handler(Fault, told)
    app.add_middleware(_Gate, settings=settings, key=key)
    return app


def form_of(path: str) -> Form:
    """Whose error form callers of a path parse."""
    return "openai" if path.startswith("/v1") else "tei"


def _of_http(request: Request, error: Exception) -> Exception:
    """Routing errors in OpenAI's words."""
    if not isinstance(error, HTTPException):
        return error
    if error.status_code == 405:
        text = f"Not allowed to {request.method} on {request.url.path[:80]}."
    else:
        text = f"Invalid URL ({request.method} {request.url.path[:80]})"
    return Fault(error.status_code, text, tei=(error.status_code, "Validation"))


class _Gate:
    """Before and around all routes: who may come in, how much, and errors as answers. Plain ASGI, so that a caller
    that leaves is seen by the routes."""

    def __init__(self, app: Handler, *, settings: ProxySettings, key: bytes | None) -> None:
        self._app = app
        self._key = key
        self._max_bytes = settings.max_body_bytes
        self._max_requests = settings.max_requests
        self._hosts = {*LOOPBACK, settings.host, *settings.allowed_hosts}
        self._running = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), [0]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
            await send(message)

        path = scope["path"]
        self._running += 1
        try:
            headers = {name.decode("latin-1").lower(): value for name, value in scope["headers"]}
            parent = headers.get("traceparent", b"").decode("latin-1")
            with traces.span("proxy request", parent=parent or None):
                self._check(path, headers)
                await self._app(scope, self._bounded(receive, headers), counted)
        except Exception as error:  # whatever fails becomes an answer
            if status[0]:  # the answer had begun: only ending the connection tells that it is not whole
                raise
            await fault_of(error).response(form_of(path))(scope, receive, counted)
        finally:
            self._running -= 1
            route = getattr(scope.get("route"), "path", "other")
            metrics.http(route, status[0], time.perf_counter() - began)

    def _check(self, path: str, headers: Mapping[str, bytes]) -> None:
        host = headers.get("host", b"").decode("latin-1").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        if name not in self._hosts:
            raise Fault(
                403, "this host name is not this proxy's: add it to allowed_hosts in the proxy's settings"
            )
        origin = headers.get("origin", b"").decode("latin-1").lower()
        if origin and origin.partition("://")[2] != host:
            raise Fault(403, "requests from web pages of other origins are refused")
        if path in OPEN_PATHS:
            return
        if self._key is not None:
            scheme, _, given = headers.get("authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key):
                raise Fault(
                    401,
                    "Incorrect API key provided: it is not this proxy's local key.",
                    code="invalid_api_key",
                    tei=(401, "Unauthorized"),
                )
        if self._running > self._max_requests:
            raise Fault(
                429,
                f"more than {self._max_requests} requests at once",
                kind="rate_limit_error",
                code="rate_limit_exceeded",
                tei=(429, "Overloaded"),
                headers={"Retry-After": "1"},
            )

    def _bounded(self, receive: Receive, headers: Mapping[str, bytes]) -> Receive:
        """``receive`` that ends in a Fault above the limit, whatever length the headers announce."""
        announced = headers.get("content-length", b"0")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise self._too_large()
        total = 0

        async def bounded() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self._max_bytes:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> Fault:
        text = f"The body has more than {self._max_bytes} bytes: send fewer texts at once."
        return Fault(413, text, code="request_too_large", tei=(413, "Validation"))
