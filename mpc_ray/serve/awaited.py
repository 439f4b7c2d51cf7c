"""A set that the directory does not let anybody use now: its leader is made once a newer directory does.

One operator who forgot to renew its certificate must not end the service of the others, so such a set is "not ready"
like one whose parties are down, and says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mpc_ray.errors import CertificateError, MpcError
from mpc_ray.serve.interface import Answers, Job, Triples
from mpc_ray.serve.queued import unavailable

log = logging.getLogger("mpc_ray.serve")

LOOK_S = 2.0  # how often the directory's file is looked at
SEE_LOG = "this gateway cannot lead it now; its log says why"  # an error that may name a file of this machine


def led(set_name: str, folder: Path, make: Callable[[], Triples]) -> Triples:
    """What ``make`` makes; where it raises CertificateError, an ``Awaited`` that calls it again whenever the directory
    in ``folder`` has changed. Raises every other error of ``make``.
    """
    stamp = _stamp(folder)
    try:
        return make()
    except CertificateError as error:
        log.warning("set %s is not led until the directory changes: %s", set_name, error)
        return Awaited(set_name, folder, make, stamp, error.cause)


class Awaited:
    """A ``Triples`` that is not ready before its leader could be made, and is that leader from then on.

    ``stamp``: of the directory that ``make`` failed with, ``why`` in words. For one event loop.
    """

    def __init__(
        self, set_name: str, folder: Path, make: Callable[[], Triples], stamp: tuple[int, ...], why: str
    ) -> None:
        self.set = set_name
        self._folder = folder
        self._make = make
        self._stamp = stamp
        self._why = why
        self._leader: Triples | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look at the directory. Returns at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._wait(), name=f"set {self.set}")

    async def stop(self) -> None:
        """Look no more, and stop the leader where there is one by now."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await call(self._leader, "stop")

    async def infer(self, job: Job) -> Answers:
        """The leader's. Raises Unavailable before there is one."""
        if self._leader is None:
            raise unavailable(self._why)
        return await self._leader.infer(job)

    async def status(self) -> Mapping[str, Any]:
        """The leader's; not ready before there is one."""
        if self._leader is None:
            return {"set": self.set, "ready": False, "why": self._why, "queue": 0, "triples": 0}
        return await self._leader.status()

    def measured(self) -> Mapping[str, Any]:
        """The leader's, for the plan (``dispatch.seen``); nothing where it measures nothing."""
        found = getattr(self._leader, "measured", None)
        told: Mapping[str, Any] = found() if found is not None else {}
        return told

    async def _wait(self) -> None:
        while self._leader is None:
            await asyncio.sleep(LOOK_S)
            stamp = _stamp(self._folder)
            if stamp == self._stamp:
                continue
            self._stamp = stamp
            try:
                leader = await asyncio.to_thread(self._make)
                self._leader = leader
                await call(leader, "start")
            except MpcError as error:
                self._leader = None
                self._why = error.cause if isinstance(error, CertificateError) else SEE_LOG
                log.warning("set %s is not led until the directory changes again: %s", self.set, error)
            else:
                log.info("set %s is led from now on", self.set)


def _stamp(folder: Path) -> tuple[int, ...]:
    try:
        found = (folder / "directory.json").stat()
    except OSError:  # being replaced just now
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


async def call(leader: Triples | None, method: str) -> None:
    """``start`` or ``stop``, where there is a leader that has it."""
    if (found := getattr(leader, method, None)) is not None:
        await found()
