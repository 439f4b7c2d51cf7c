"""``Client``: the asynchronous client for programs without asyncio. One code: it runs in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from mpc_ray.client.bundle import Bundle
from mpc_ray.client.http import AsyncClient, Embedded
from mpc_ray.errors import ConfigError
from mpc_ray.models.weights import Array
from mpc_ray.trust.directory import PartyRecord

T = TypeVar("T")


class Client:
    """Takes what ``AsyncClient`` takes and does what it does. Any number of threads may call it at once.

    A process that was forked from one with a Client gets connections of its own at its first call.
    """

    def __init__(self, url: str, **settings: Any) -> None:
        self._url, self._settings = url, settings
        self._lock = threading.Lock()
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._client = AsyncClient(self._url, **self._settings)
        self._settings["bundle"] = self._client.bundle  # read once
        self._loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="mpc-ray client", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bundle(self) -> Bundle:
        """The model as this client knows it."""
        return self._client.bundle

    def embed(self, texts: Sequence[str] | Sequence[Sequence[int]], *, truncate: bool = False) -> Array:
        """See ``AsyncClient.embed``."""
        return self._wait(lambda client: client.embed(texts, truncate=truncate))

    def embed_reported(
        self, texts: Sequence[str] | Sequence[Sequence[int]], *, truncate: bool = False
    ) -> Embedded:
        """See ``AsyncClient.embed_reported``."""
        return self._wait(lambda client: client.embed_reported(texts, truncate=truncate))

    def models(self) -> list[dict[str, Any]]:
        """See ``AsyncClient.models``."""
        return self._wait(lambda client: client.models())

    def sets(self) -> list[dict[str, Any]]:
        """See ``AsyncClient.sets``."""
        return self._wait(lambda client: client.sets())

    def parties(self) -> dict[str, tuple[PartyRecord, PartyRecord, PartyRecord]]:
        """See ``AsyncClient.parties``."""
        return self._wait(lambda client: client.parties())

    def ready(self) -> bool:
        """See ``AsyncClient.ready``."""
        return self._wait(lambda client: client.ready())

    def close(self) -> None:
        """Close all connections and end the thread. Calls under way end with an error."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._pid != os.getpid():  # the thread is the parent's
                return
        asyncio.run_coroutine_threadsafe(_ended(self._client), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, call: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        with self._lock:
            if self._closed:
                raise ConfigError("this client is closed", remedy="open a new one")
            if self._pid != os.getpid():
                self._begin()
            future = asyncio.run_coroutine_threadsafe(call(self._client), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C ends the work too
            raise


async def _ended(client: AsyncClient) -> None:
    """Cancel what is under way, then close."""
    own = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not own]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await client.aclose()
    await asyncio.get_running_loop().shutdown_default_executor()
