"""How each set is, asked once a second, so that a request need not ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mpc_ray.errors import MpcError
from mpc_ray.serve.interface import Triples

log = logging.getLogger("mpc_ray.serve")

PERIOD_S = 1.0
PATIENCE_S = 3.0  # for one answer
MISSED = 3  # answers in a row that a set may fail to give: one that is busy may be late
START_S = 10.0
MOST_WHY = 400  # characters


@dataclass(frozen=True)
class Model:
    """``lengths`` in tokens, padded; ``hidden`` is the width."""

    name: str
    digest: str
    lengths: tuple[int, ...]
    hidden: int

    def envelope_bytes(self, batch: int, length: int) -> int:
        """More than any sealed envelope of such a job: two ring elements for each value, and what is beside them."""
        return 16 * batch * length * (self.hidden + 16) + (64 << 10)


@dataclass(frozen=True)
class SetView:
    """A set as it was a moment ago."""

    name: str
    ready: bool = False
    queue: int = 0
    triples: int = 0
    models: Mapping[str, Model] = field(default_factory=dict)
    parties: tuple[Mapping[str, Any], ...] = ()
    why: str = "not asked yet"  # it is not ready, for people
    missed: int = MISSED  # before the first answer nothing is known


class Views:
    """The latest view of each set, in order of preference."""

    def __init__(self, triples: Mapping[str, Triples]) -> None:
        self._triples = triples
        self._views = {name: SetView(name) for name in triples}
        self._task: asyncio.Task[None] | None = None

    def __iter__(self) -> Iterator[SetView]:
        return iter(self._views.values())

    def get(self, name: str) -> SetView | None:
        return self._views.get(name)

    async def start(self) -> None:
        """Ask all until each has answered, for ``START_S`` at most, and go on in the background."""
        end = asyncio.get_running_loop().time() + START_S
        await self.refresh()
        while any(view.missed for view in self) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.1)
            await self.refresh()
        self._task = asyncio.create_task(self._watch(), name="views")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self) -> None:
        """Ask all sets now, at once."""
        found = await asyncio.gather(*(self._ask(name) for name in self._triples))
        self._views = {view.name: view for view in found}

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.refresh()

    async def _ask(self, name: str) -> SetView:
        before = self._views[name]
        try:
            async with asyncio.timeout(PATIENCE_S):
                view = _view(name, await self._triples[name].status())
        except Exception as error:  # noqa: BLE001 - a set that does not answer is not ready, whatever the reason
            why = error.cause if isinstance(error, MpcError) else type(error).__name__
            missed = min(before.missed + 1, MISSED)
            if before.ready and missed == MISSED:
                log.warning("set %s does not answer: %s", name, why)
            ready = before.ready and missed < MISSED
            return replace(before, ready=ready, missed=missed, why="" if ready else f"does not answer: {why}")
        if view.ready != before.ready:
            log.info("set %s is %s", name, "ready" if view.ready else "not ready")
        # While a set recovers it may know no models: an unknown model is final to a caller, "not ready" is not.
        return view if view.models else replace(view, models=before.models)


def _view(name: str, status: Mapping[str, Any]) -> SetView:
    models = {}
    for one in status.get("models", ()):
        model = Model(
            str(one["name"]), str(one["digest"]), tuple(map(int, one["lengths"])), int(one["hidden"])
        )
        models[model.name] = model
    return SetView(
        name,
        bool(status.get("ready")),
        int(status.get("queue", 0)),
        int(status.get("triples", 0)),
        models,
        tuple(status.get("parties", ())),
        "" if status.get("ready") else str(status.get("why") or "it does not say why")[:MOST_WHY],
        missed=0,
    )
