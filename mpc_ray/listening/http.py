"""HTTP/1.1 by uvicorn with bounds that uvicorn lacks: on the time for headers, on connections, on slow readers.

uvicorn's own time-out is for idle connections only: a client that sends a byte a second before, between or behind
its requests would keep a connection for ever, and so would one that never reads its answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from mpc_ray.channel.fair import oldest_of_most

UNREAD_S = 30.0  # how long an answer may wait for its reader


@dataclass(frozen=True)
class Bounds:
    """``header_s``: headers must be there within so many seconds; ``connections``: open at once.

    For one connection more an idle one is closed.
    """

    header_s: float
    connections: int


class BoundedProtocol(H11Protocol):
    """One connection. h11 parses: it is strict, and bounds the size of headers."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], bounds: Bounds
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._bounds = bounds
        self._heard = self.loop.time()
        self._headers_due: asyncio.TimerHandle | None = None
        self._read_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._bounds.connections and self._leaves():
            return
        self._await_headers()

    def _leaves(self) -> bool:
        """Hang up on one that has no request under way, so that connections alone keep nobody out; is it this one?

        It is that of the address with most of them that was silent for longest.
        """
        others = [one for one in self.connections if isinstance(one, BoundedProtocol) and one.idle]
        idle = sorted(others, key=lambda one: one._heard)
        leaver = oldest_of_most({one: one.client[0] if one.client else "" for one in idle})
        leaver.transport.abort()
        return leaver is self

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        self._heard = self.loop.time()
        super().data_received(data)
        # Bytes came, and no request is being answered: they are part of headers, or of a body that nobody reads.
        if self.idle:
            self._await_headers()
        else:
            self._cancel_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_headers()
        self._cancel_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_due = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._cancel_read()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.loop.call_later(UNREAD_S, self.transport.abort)  # closing waits for what is still to be written

    def _await_headers(self) -> None:
        if self._headers_due is None:
            self._headers_due = self.loop.call_later(self._bounds.header_s, self.transport.abort)

    def _cancel_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None

    def _cancel_read(self) -> None:
        if self._read_due is not None:
            self._read_due.cancel()
            self._read_due = None
