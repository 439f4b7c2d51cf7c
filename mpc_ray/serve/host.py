"""The gateway's application under uvicorn: its own TLS, deadlines for slow clients, and a drain before it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mpc_ray.channel.descriptors import allow
from mpc_ray.errors import ConfigError, cannot_listen
from mpc_ray.in_thread import in_thread
from mpc_ray.listening.door import HANDSHAKES, Door, listening
from mpc_ray.listening.http import Bounds
from mpc_ray.serve.app import Gateway, create_app
from mpc_ray.serve.config import GatewayConfig
from mpc_ray.serve.http import GatewayProtocol
from mpc_ray.serve.interface import Triples
from mpc_ray.serve.leaders import leaders
from mpc_ray.serve.state import LocalState
from mpc_ray.trust.dates import check_dates

log = logging.getLogger("mpc_ray.serve")

LINGER_S = 2.0  # an answer like "too large" is to be read by a caller that still sends, then it is cut
RELOAD_TICKS = 600  # of 0.1 s: how often the certificate's files are looked at


class Server(uvicorn.Server):
    """uvicorn that drains: on the first signal it says "not ready" and still serves for ``limits.drain_s``, then it
    listens no more and finishes what is under way. A second signal ends the wait, a third drops the requests.

    ``started_at(url)`` is called once it listens. ``ConfigError`` where it cannot.
    """

    def __init__(
        self, config: GatewayConfig, app: FastAPI, started_at: Callable[[str], object] = lambda url: None
    ) -> None:
        limits = config.limits
        super().__init__(
            uvicorn.Config(
                app,
                http=GatewayProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=max(1, round(limits.keep_alive_s)),
                timeout_graceful_shutdown=round(limits.max_timeout_s) + 5,
                h11_max_incomplete_event_size=limits.header_bytes,
                backlog=min(limits.connections, 2048),
            )
        )
        self.url = ""
        self._settings = config
        self._gateway: Gateway = app.state.gateway
        self._started_at = started_at
        self._tls = tls_context(*config.certificate)
        self._stamp = _stamp(config.certificate)
        self._drain_end = float("inf")

    async def startup(self, sockets: object = None) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise self._gateway.failed or ConfigError("the gateway did not start", remedy="see its log")
        limits = self._settings.limits
        state, bounds = self.lifespan.state, Bounds(limits.header_s, limits.connections)

        def protocol() -> asyncio.Protocol:
            return GatewayProtocol(self.config, self.server_state, state, bounds)

        host, port = self._settings.host, self._settings.port
        allow(limits.connections + HANDSHAKES, "limits.connections")
        try:
            sockets = listening(host, port, self.config.backlog)
        except OSError as error:
            await self.lifespan.shutdown()
            raise cannot_listen(
                f"the gateway cannot listen on {host}:{port}: {error.strerror}",
                error,
                remedy="choose another host or port, or stop the program that has it",
            ) from None
        door = Door(sockets, protocol, self._tls, handshake_s=limits.header_s, linger_s=LINGER_S)
        self.servers = [door]  # type: ignore[list-item]  # it is what uvicorn uses of a server
        self.url = f"https://{f'[{host}]' if ':' in host else host}:{sockets[0].getsockname()[1]}"
        self.started = True
        self._started_at(self.url)

    async def on_tick(self, counter: int) -> bool:
        if time.monotonic() >= self._drain_end:
            self.should_exit = True
        if counter % RELOAD_TICKS == 0:
            self._renew()
        return await super().on_tick(counter)

    def drain(self) -> None:
        """Begin to end: as the first signal does. Any thread may call it."""
        self._gateway.draining = True
        self._drain_end = min(self._drain_end, time.monotonic() + self._settings.limits.drain_s)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        elif self._gateway.draining:
            self.should_exit = True
        else:
            self.drain()

    def _renew(self) -> None:
        """Take up a renewed certificate: new connections see it, old ones go on."""
        files = self._settings.certificate
        with contextlib.suppress(OSError, ssl.SSLError):  # being replaced just now: look again later
            stamp = _stamp(files)
            if stamp != self._stamp:
                self._tls.load_cert_chain(*files)
                self._stamp = stamp
                log.info("took up a renewed certificate")


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and 1.3 with the certificate that clients see. ConfigError where it cannot be used, CertificateError
    where it has expired.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(
            f"the certificate {certificate} or its key cannot be used: {reason}",
            remedy="check `https`, or the gateway's folder: mpc-ray certs show",
        ) from None
    check_dates(certificate, f"the certificate that clients see, {certificate},", "renew it, and start again")
    return context


def application(config: GatewayConfig, triples: Mapping[str, Triples] | None = None) -> FastAPI:
    """The application with its state in this process. Without ``triples`` it leads them itself."""
    return create_app(config, leaders(config) if triples is None else triples, LocalState.of(config))


def serve(
    config: GatewayConfig, triples: Mapping[str, Triples] | None, started_at: Callable[[str], object]
) -> None:
    """Serve until a signal ends it. Raises ConfigError, CertificateError."""
    Server(config, application(config, triples), started_at).run()


@contextlib.contextmanager
def hosted(config: GatewayConfig, triples: Mapping[str, Triples] | None = None) -> Iterator[Server]:
    """A gateway in a thread of this process, for the time of the block. ``.url`` is where."""
    server = Server(config, application(config, triples))

    def stop() -> None:
        server.drain()
        server.should_exit = True

    with in_thread("gateway", server.run, lambda: server.started, stop, config.limits.max_timeout_s + 10):
        yield server


def _stamp(files: tuple[Path, Path]) -> tuple[int, ...]:
    return tuple(file.stat().st_mtime_ns for file in files)
