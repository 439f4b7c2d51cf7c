"""A TCP relay that adds distance: what is sent to it reaches its target ``latency_s`` later, and the answer as well.

For tests, examples and benchmarks that emulate regions on one machine: an endpoint's public address is a relay's, its
own address the target. TLS passes through unseen. It listens on 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from mpc_ray.channel.interface import Address

T = TypeVar("T")

_PIECE = 1 << 16
_PIECES = 256  # on their way in one direction, so that memory stays bounded


class Relay:
    """Listens at ``address`` from construction to ``close``; a thread of its own carries everything.

    ``latency_s`` is one way and may be changed while it runs.
    """

    def __init__(self, target: Address, latency_s: float, *, port: int = 0) -> None:
        self.latency_s = latency_s
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._carry, "127.0.0.1", port))
        host, chosen = self._server.sockets[0].getsockname()[:2]
        self.address: Address = (host, chosen)

    def cut(self) -> None:
        """Drop all connections and accept none that lasts: the target is out of reach until ``mend``."""
        self._refusing = True
        self._loop.call_soon_threadsafe(self._drop)

    def mend(self) -> None:
        """The target can be reached again."""
        self._refusing = False

    def close(self) -> None:
        """Drop everything and stop listening."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _drop(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        self._drop()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        try:
            if self._refusing:
                return
            there, onward = await asyncio.open_connection(*self._target)
            writers.append(onward)
            self._open.update(writers)
            await asyncio.gather(self._pump(reader, onward), self._pump(there, writer))
        except OSError:  # one end is not there, or has gone: the other learns it by our closing
            pass
        finally:
            self._open.difference_update(writers)
            for one in writers:
                one.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, until its end was carried across."""
        way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES)
        delivering = asyncio.ensure_future(self._deliver(way, writer))
        try:
            while True:
                piece = await reader.read(_PIECE)
                await way.put((self._loop.time() + self.latency_s, piece))
                if not piece:
                    break
            await delivering
        finally:
            delivering.cancel()

    async def _deliver(self, way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, piece = await way.get()
            await asyncio.sleep(due - self._loop.time())
            if not piece:
                with contextlib.suppress(OSError):
                    writer.write_eof()
                return
            writer.write(piece)
            await writer.drain()
