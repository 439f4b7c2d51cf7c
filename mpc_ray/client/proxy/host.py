"""Serving the proxy: uvicorn on one address, and an end that lets requests under way finish."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mpc_ray.channel.descriptors import allow
from mpc_ray.client.http import AsyncClient
from mpc_ray.client.proxy.app import make_app
from mpc_ray.client.proxy.client import ClientEmbedder
from mpc_ray.client.proxy.settings import ProxySettings
from mpc_ray.client.settings import ClientSettings, read_key
from mpc_ray.errors import ConfigError, cannot_listen
from mpc_ray.in_thread import in_thread
from mpc_ray.listening.door import HANDSHAKES, Door, listening
from mpc_ray.listening.http import BoundedProtocol, Bounds

BOUNDS = Bounds(header_s=10.0, connections=1024)
LINGER_S = 2.0  # an answer like "too large" is to be read by a caller that still sends, then it is cut


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
                http=BoundedProtocol,
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
        host, wanted = self._settings.host, self._settings.port
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise ConfigError("the proxy did not start", remedy="see its log")
        state = self.lifespan.state

        def protocol() -> asyncio.Protocol:
            return BoundedProtocol(self.config, self.server_state, state, BOUNDS)

        allow(BOUNDS.connections + HANDSHAKES, "the proxy")
        try:
            listens = listening(host, wanted, self.config.backlog)
        except OSError as error:
            await self.lifespan.shutdown()
            raise cannot_listen(
                f"the proxy cannot listen on {host}:{wanted}: {error.strerror}",
                error,
                remedy="choose another host or port, or stop the program that has it",
            ) from None
        door = Door(listens, protocol, self.config.ssl, handshake_s=BOUNDS.header_s, linger_s=LINGER_S)
        self.servers = [door]  # type: ignore[list-item]  # it is what uvicorn uses of a server
        self.started = True
        port = listens[0].getsockname()[1]
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
