"""Accepting TLS connections so that those which never finish their handshake cannot keep others out.

A server of asyncio's own counts nothing before TLS: strangers who connect and are silent would each hold a descriptor
for the whole time-out. Here at most so many handshakes are under way; when one more comes, the oldest of the address
that has most of them is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Sequence

from mpc_ray.channel.fair import oldest_of_most

log = logging.getLogger("mpc_ray.listening")

HANDSHAKES = 128  # under way at once: milliseconds each, where the other end answers
PAUSE_S = 0.1  # after the system refused a connection, for want of descriptors or memory


class Door:
    """Accepts on ``sockets`` and gives each connection a ``protocol()`` once TLS is there (at once without ``tls``).

    For one event loop.

    ``handshake_s`` bounds a handshake, ``linger_s`` the end of a connection. What uvicorn asks of its servers:
    ``sockets``, ``close`` and ``wait_closed``.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        protocol: Callable[[], asyncio.Protocol],
        tls: ssl.SSLContext | None,
        *,
        handshake_s: float,
        linger_s: float,
        most: int = HANDSHAKES,
    ) -> None:
        self.sockets = tuple(sockets)
        self._protocol, self._tls = protocol, tls
        self._handshake_s, self._linger_s, self._most = handshake_s, linger_s, most
        # Unfinished handshakes and their addresses, the oldest first.
        self._waiting: dict[socket.socket, str] = {}
        self._greeting: set[asyncio.Task[None]] = set()
        self._accepting = [asyncio.create_task(self._accept(one), name="accept") for one in self.sockets]

    @property
    def waiting(self) -> int:
        """Handshakes under way."""
        return len(self._waiting)

    def close(self) -> None:
        """Listen no more. Handshakes under way may finish."""
        for task in self._accepting:
            task.cancel()
        for one in self.sockets:
            one.close()

    async def wait_closed(self) -> None:
        """Until nothing is accepted any more."""
        await asyncio.gather(*self._accepting, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop, told = asyncio.get_running_loop(), ""
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except OSError as error:
                why = error.strerror or type(error).__name__
                if why != told:
                    log.warning("a connection could not be accepted: %s", why)
                told = why
                self._drop()
                await asyncio.sleep(PAUSE_S)
                continue
            told = ""
            while len(self._waiting) >= self._most:
                self._drop()
            self._waiting[sock] = str(address[0])
            task = asyncio.create_task(self._greet(sock), name="handshake")
            self._greeting.add(task)
            task.add_done_callback(self._greeting.discard)
            await asyncio.sleep(0)  # a flood must not keep the loop from everything else

    async def _greet(self, sock: socket.socket) -> None:
        """TLS with one caller, where there is any; then its connection is the protocol's."""
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        try:
            if self._tls is None:
                await loop.connect_accepted_socket(self._protocol, sock)
            else:
                await loop.connect_accepted_socket(
                    self._protocol,
                    sock,
                    ssl=self._tls,
                    ssl_handshake_timeout=self._handshake_s,
                    ssl_shutdown_timeout=self._linger_s,
                )
        except OSError:  # no TLS, too slow, or gone: a stranger's business
            sock.close()
        except Exception as error:  # noqa: BLE001 - one connection's fault is not the next one's
            log.error("%s in a handshake", type(error).__name__)
            sock.close()
        finally:
            self._waiting.pop(sock, None)

    def _drop(self) -> None:
        """Hang up on the oldest unfinished handshake of the address that has most of them, if there is any."""
        if not self._waiting:
            return
        oldest = oldest_of_most(self._waiting)
        del self._waiting[oldest]
        with contextlib.suppress(OSError):  # it has just gone by itself
            oldest.shutdown(socket.SHUT_RDWR)


def listening(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Sockets that listen on every address of ``host``. OSError where one cannot be had."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = dict.fromkeys((family, place[:2]) for family, _, _, _, place in found)
    with contextlib.ExitStack() as undo:
        sockets = []
        for family, place in places:
            sock = socket.create_server((str(place[0]), int(place[1])), family=family, backlog=backlog)
            undo.callback(sock.close)
            sock.setblocking(False)
            sockets.append(sock)
        undo.pop_all()
    return sockets
