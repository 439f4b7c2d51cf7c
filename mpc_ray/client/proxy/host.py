"""Serving the proxy: uvicorn on one address, and an end that lets requests under way finish."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mpc_ray.client.http import AsyncClient
from mpc_ray.client.proxy.app import make_app
from mpc_ray.client.proxy.client import ClientEmbedder
from mpc_ray.client.proxy.settings import ProxySettings
from mpc_ray.client.settings import ClientSettings, read_key
from mpc_ray.errors import ConfigError
from mpc_ray.in_thread import in_thread


class Server(uvicorn.Server):
    """uvicorn that ends without an error on SIGTERM or Ctrl-C: it listens no more, finishes what is under way for
    ``drain_s``, and drops the rest. A second signal drops it at once. ``started_at(url)`` is called once it listens.
    """

    def __init__(
        self, app: FastAPI, settings: ProxySettings, started_at: Callable[[str], object] = lambda url: None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                ssl_certfile=settings.certificate,
                ssl_keyfile=settings.certificate_key,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, round(settings.drain_s)),
            )
        )
        self.url = ""
        self._settings = settings
        self._started_at = started_at

    async def startup(self, sockets: object = None) -> None:
        host = self._settings.host
        try:
            await super().startup()
        except SystemExit:  # how uvicorn takes an address in use, after a line in the log
            raise ConfigError(
                f"the proxy cannot listen on {host}:{self._settings.port}",
                remedy="choose another host or port",
            ) from None
        if self.should_exit or not self.servers:
            raise ConfigError("the proxy did not start", remedy="see its log")
        port = self.servers[0].sockets[0].getsockname()[1]
        scheme = "http" if self._settings.certificate is None else "https"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        self._started_at(self.url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Without uvicorn's way of raising the signal again at the end: having been told to stop is no failure."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def application(settings: ClientSettings) -> FastAPI:
    """The proxy's application, asking the gateway that ``settings`` name."""
    key = settings.proxy.key_file
    client = AsyncClient(settings.gateway, **settings.arguments())
    return make_app(ClientEmbedder(client), settings.proxy, None if key is None else read_key(key).reveal())


def serve(settings: ClientSettings, started_at: Callable[[str], object]) -> None:
    """Serve until a signal ends it. Raises ConfigError, ModelError."""
    Server(application(settings), settings.proxy, started_at).run()


@contextlib.contextmanager
def hosted(app: FastAPI, settings: ProxySettings) -> Iterator[Server]:
    """A proxy in a thread of this process, for the time of the block. ``.url`` is where."""
    server = Server(app, settings)

    def stop() -> None:
        server.should_exit = True

    with in_thread("proxy", server.run, lambda: bool(server.url), stop, settings.drain_s + 10):
        yield server
