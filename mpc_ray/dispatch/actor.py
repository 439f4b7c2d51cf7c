"""The plan in one named Ray actor, so that all routers of a deployment go by the same one.

Only names, kinds and sizes of jobs are told to it: no text, no share, no key. It is not detached: it ends with whoever
made it, and the next router that needs it makes it anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mpc_ray.dispatch.dispatcher import Dispatcher
from mpc_ray.dispatch.kinds import group_of
from mpc_ray.dispatch.seen import runs_of
from mpc_ray.errors import MpcError
from mpc_ray.planner.jobs import Group, Job, Link, Triple, warm

EVERY_S = 0.25
CALLS = 1000
# Jobs of routers that died, or whose callers left before they were routed, are forgotten after so long.
ASKED_S = 30.0
PINNED_S = 600.0
KEPT = 4096  # names of jobs that are over

log = logging.getLogger("mpc_ray.dispatch")


class PlanActor:
    """Holds one ``Dispatcher``. Failures are answers: Ray would keep an exception's text in task events."""

    def __init__(self, links: Sequence[Link], batch: int) -> None:
        warm()  # seconds, once a machine: never inside a deadline
        self._dispatcher = Dispatcher((), links=links, batch=batch)
        self._lock = threading.Lock()  # of what follows: Ray calls from many threads
        self._until: dict[str, float] = {}
        self._over: OrderedDict[str, None] = OrderedDict()
        self._told: dict[str, int] = {}  # number of the last run that each triple told of
        threading.Thread(target=self._tick, name="plan", daemon=True).start()

    def arrive(self, group: Group, job: Job) -> dict[str, Any]:
        """``{"triple": name}`` for a job that has come, or where it waits; ``{"error": …}`` where it fits nowhere.

        Its ``arrival_s`` is now, on this actor's clock: those of other machines differ.
        """
        with self._lock:
            if (
                job.name in self._over
            ):  # the router did not wait for this answer, and calls overtake each other
                return {"error": f"job {job.name} is over", "remedy": ""}
            self._until[job.name] = time.monotonic() + ASKED_S
        self._dispatcher.know(group)
        place = self._dispatcher.where(job.name)
        if place is not None:
            return {"triple": place}
        try:
            place = self._dispatcher.arrive(replace(job, arrival_s=time.monotonic()))
        except MpcError as error:
            with self._lock:
                self._until.pop(job.name, None)
            return {"error": error.cause, "remedy": error.remedy}
        with self._lock:
            over = job.name in self._over  # while it was placed
        if over:
            self._dispatcher.withdraw(job.name)
        return {"triple": place}

    def triples(self, triples: Sequence[Triple]) -> None:
        """These are there now, and no others."""
        there = {triple.name: triple for triple in triples}
        known = set(self._dispatcher.status()["triples"])
        for name in known - there.keys():
            self._dispatcher.leave(name)
            with self._lock:
                self._told.pop(name, None)
        for name in there.keys() - known:
            self._dispatcher.join(there[name])

    def measured(self, triple: str, told: Mapping[str, Any]) -> list[tuple[float, float]]:
        """What a leader tells (``seen.Seen.told``); several routers pass it on, and each run counts once.

        (predicted, measured) seconds of the runs that were new.
        """
        with self._lock:
            runs = runs_of(told, self._told.get(triple, 0))
            if runs:
                self._told[triple] = runs[-1].number
        self._dispatcher.computes(triple, told.get("running", ()), float(told.get("for_s", 0.0)))
        found = []
        for run in runs:
            group = group_of(run.model, run.tokens // max(1, run.jobs)).name
            predicted = self._dispatcher.ran(
                triple, group, run.jobs, rounds=run.rounds, nbytes=run.nbytes, took_s=run.seconds
            )
            if predicted is not None:
                found.append((predicted, run.seconds))
        return found

    def pinned(self, job: str, triple: str) -> None:
        """A job was handed to a triple."""
        with self._lock:
            if job in self._over:
                return
            self._until[job] = time.monotonic() + PINNED_S
        self._dispatcher.pin(job, triple)

    def over(self, job: str) -> None:
        """A job was answered, or is not wanted any more."""
        with self._lock:
            self._until.pop(job, None)
            self._over[job] = None
            if len(self._over) > KEPT:
                self._over.popitem(last=False)
        self._dispatcher.withdraw(job)

    def status(self) -> dict[str, Any]:
        """The dispatcher's."""
        return self._dispatcher.status()

    def _tick(self) -> None:
        while True:
            time.sleep(EVERY_S)
            try:
                self._once()
            except MpcError as error:
                log.error("%s", error)
            except Exception:
                log.exception("the plan could not be made anew; the one that stands is kept")

    def _once(self) -> None:
        now = time.monotonic()
        with self._lock:
            gone = [job for job, until in self._until.items() if until < now]
        for job in gone:
            self.over(job)
        self._dispatcher.tick()


def plan_actor(name: str, links: Sequence[Link], *, batch: int) -> Any:
    """The actor called ``name`` in this namespace; made, with these links, if it is not there. Returns at once."""
    import ray

    make: Any = ray.remote(PlanActor)
    options = {
        "name": name,
        "get_if_exists": True,
        "num_cpus": 0,
        "max_concurrency": CALLS,
        "max_restarts": -1,
    }
    return make.options(**options).remote(list(links), batch)
