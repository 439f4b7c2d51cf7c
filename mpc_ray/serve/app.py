"""The gateway's HTTP application: one object, hosted by uvicorn (``serve.host``) or by Ray Serve.

It forwards sealed envelopes and sealed answers, and never holds a key that opens them.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

import mpc_ray
from mpc_ray.errors import MpcError
from mpc_ray.serve import openapi
from mpc_ray.serve.check import Checks
from mpc_ray.serve.config import GatewayConfig
from mpc_ray.serve.guard import Guard
from mpc_ray.serve.infer import Inference
from mpc_ray.serve.interface import Triples
from mpc_ray.serve.leaders import arranged
from mpc_ray.serve.problems import invalid, of_http, problem_of
from mpc_ray.serve.published import Published
from mpc_ray.serve.routes import add_routes
from mpc_ray.serve.state import State
from mpc_ray.serve.views import Views

log = logging.getLogger("mpc_ray.serve")

DESCRIPTION = """\
Private inference by three parties that do not trust each other. A client seals one envelope to each of the three
operators; this gateway forwards them and returns three sealed answers, and can open none of them.
Use `mpc_ray.client`, or the sidecar `mpc-ray proxy`, rather than these routes by hand.
"""
PUBLISHED_AGAIN_S = 30.0  # how often the directory's file is looked at


class Gateway:
    """What the routes share: the state of one application. ``draining``: it will end, ask another."""

    def __init__(
        self,
        config: GatewayConfig,
        triples: Mapping[str, Triples],
        state: State,
        published: Published,
    ) -> None:
        self.config = config
        self.state = state
        self.published = published
        self.policy, self.triples = arranged(config, published, triples)
        self.views = Views(self.triples)
        self.draining = False
        self.failed: MpcError | None = None  # why it did not start
        checks = Checks(config, lambda: self.published, self.views, self.policy)
        self.inference = Inference(self.triples, state, checks, config.limits)

    async def start(self) -> None:
        """Start leading (where a leader wants to be started) and look how all sets are."""
        await self._each("start")
        await self.views.start()

    async def stop(self) -> None:
        """Finish what is under way, then stop leading."""
        self.draining = True
        await self.inference.drained()
        await self.views.stop()
        await self._each("stop")

    async def _each(self, what: str) -> None:
        """Call ``start`` or ``stop`` of every set that has it, at once."""
        calls = [getattr(one, what, None) for one in self.triples.values()]
        made = [call() for call in calls if callable(call)]
        await asyncio.gather(*(one for one in made if inspect.isawaitable(one)))


def create_app(
    config: GatewayConfig,
    triples: Mapping[str, Triples],
    state: State,
    published: Published | None = None,
) -> FastAPI:
    """The application. ``triples``: by set; ``regions`` of the settings may change their order. ``published``: read
    from the folder if not given.

    Its lifespan starts and stops the leaders among ``triples``. ``app.state.gateway`` is its ``Gateway``.
    """
    gateway = Gateway(config, triples, state, published or Published.load(config.folder))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            await gateway.start()
        except MpcError as error:
            gateway.failed = error
            raise
        again = None if published else asyncio.create_task(_publish_again(gateway))
        try:
            yield
        finally:
            if again is not None:
                again.cancel()
            await gateway.stop()

    app = FastAPI(
        title="mpc-ray gateway",
        version=mpc_ray.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        separate_input_output_schemas=False,
    )
    app.state.gateway = gateway
    app.add_middleware(Guard)
    app.add_exception_handler(MpcError, _mpc_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    add_routes(app, gateway)
    openapi.complete(app, config)
    return app


async def _publish_again(gateway: Gateway) -> None:
    """Follow the directory's file: operators come and go, and certificates are renewed."""
    path = gateway.config.folder / "directory.json"
    seen, told = 0, ""
    while True:
        try:
            now = path.stat().st_mtime_ns
            if now != seen:
                gateway.published = await asyncio.to_thread(Published.load, gateway.config.folder)
                seen, told = now, ""
        except Exception as error:  # noqa: BLE001 - a file that is being replaced, or a fault: look again later
            why = str(error) if isinstance(error, MpcError) else type(error).__name__
            if why != told:
                log.warning("the directory is not published anew: %s", why)
            told = why
        await asyncio.sleep(PUBLISHED_AGAIN_S)


async def _mpc_error(request: Request, error: Exception) -> Response:
    return problem_of(error).response(request.headers.get("accept-language", ""))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = of_http(error.status_code, error.headers)
    return problem.response(request.headers.get("accept-language", ""))


async def _validation_error(request: Request, error: Exception) -> Response:
    found: list[Any] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    return problem_of(invalid(found)).response(request.headers.get("accept-language", ""))
