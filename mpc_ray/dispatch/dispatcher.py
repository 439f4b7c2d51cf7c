"""The plan, kept up to date: jobs are placed when they come, and those that wait are planned anew.

A job is placed at once where it fits best, and moves nobody. Every tick the jobs that still wait are planned anew from
the plan that stands, with a price on each move; what runs is never touched. When a triple is lost or slows down its
jobs go elsewhere with at most a few others. A job that fits nowhere is refused with the reason, at once.

The planner has a deadline. What it has not reached by then is batch-aware earliest completion, which is said in
``status()["fallbacks"]``, and in the log once in a while: never in silence.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from mpc_ray.dispatch.measured import Measured, Probe
from mpc_ray.errors import ConfigError, InputError, PlacementError
from mpc_ray.planner import ProblemError, Schedule, Workload, plan_jobs
from mpc_ray.planner.jobs import Group, Job, Link, Measurement, Triple, Weights, predicted_s

log = logging.getLogger("mpc_ray.dispatch")

ARRIVAL_S = 0.01
TICK_S = 0.05
REPAIR_S = 0.02
REPAIR_MOVES = 5  # jobs besides the orphans
SAID_S = 60.0
TRIPLE = "mpc-ray/triple"  # the label that a triple's workers carry here, and a pinned job asks for
SLOWER = 1.5  # a batch this many times slower than predicted makes the plan look again


@dataclass(frozen=True)
class Running:
    """A batch that a triple computes, and when it began and is thought to end (the dispatcher's clock)."""

    group: str
    jobs: tuple[str, ...]
    began_s: float
    ends_s: float


class Dispatcher:
    """Jobs over triples, online. Any thread may call any method; none waits longer than its planning deadline.

    ``groups`` are the kinds of jobs there are; ``batch`` the most jobs that a triple takes at once; ``distinct_trust``
    as in ``planner.jobs.Workload``. ``clock`` gives seconds; jobs' ``due_s`` are on it.
    """

    def __init__(
        self,
        groups: Iterable[Group],
        *,
        links: Iterable[Link] = (),
        weights: Weights | None = None,
        batch: int = 8,
        distinct_trust: bool = True,
        clock: Callable[[], float] = time.monotonic,
        planner: Callable[..., Schedule] = plan_jobs,
    ) -> None:
        self._groups = {group.name: group for group in groups}
        self._links = tuple(links)
        self._weights = weights or Weights()
        self._batch, self._distinct_trust = batch, distinct_trust
        self._clock, self._planner = clock, planner
        self._triples: dict[str, Triple] = {}
        self._waiting: dict[str, Job] = {}
        self._placement: dict[str, str] = {}
        self._running: dict[str, Running] = {}
        self._measured = Measured()
        self._lock = threading.RLock()
        self._counts = {"placed": 0, "moved": 0, "refused": 0, "plans": 0, "fallbacks": 0}
        self._refused: dict[str, str] = {}
        self._said = -SAID_S
        self.version = 0

    # -- triples ---

    def join(self, triple: Triple) -> None:
        """A triple is there, or is there again. What waits may use it from the next tick on."""
        workers = [replace(w, labels={**w.labels, TRIPLE: triple.name}) for w in triple.workers]
        with self._lock:
            self._triples[triple.name] = replace(triple, workers=(workers[0], workers[1], workers[2]))
            self.version += 1

    def know(self, group: Group) -> None:
        """A kind of jobs that may come from now on."""
        with self._lock:
            self._groups.setdefault(group.name, group)

    def leave(self, name: str) -> dict[str, str]:
        """A triple has gone. Its waiting jobs go elsewhere; which jobs moved, and where to.

        A batch that ran on it is over: whoever waits for it asks again (``arrive``). Jobs that now fit nowhere have no
        place until a triple joins.
        """
        with self._lock:
            if self._triples.pop(name, None) is None:
                return {}
            self._running.pop(name, None)
            self._measured.forget(name)
            for job, pinned in list(self._waiting.items()):
                if pinned.labels.get(TRIPLE) == name:
                    self.withdraw(job)
            try:
                return self._plan_anew(REPAIR_S, most_moves=REPAIR_MOVES)
            except PlacementError as error:
                log.error("%s; %d jobs wait", error, len(self._waiting))
                return {}

    def probed(self, triple: str, probe: Probe) -> None:
        """Round trip and bandwidth between a triple's workers, measured now."""
        with self._lock:
            self._measured.probed(triple, probe)

    # -- jobs ---

    def arrive(self, job: Job) -> str:
        """The triple for a job that has come; others stay where they are.

        Raises PlacementError: it fits no triple, and why of each; ConfigError: its group is none of ``groups``;
        InputError: it waits or runs already, or is a nonsense job.
        """
        with self._lock:
            if job.group not in self._groups:
                raise ConfigError(
                    f"job {job.name} is of group {job.group}, which nobody told the dispatcher of",
                    remedy=f"known are {', '.join(sorted(self._groups)) or 'none'}",
                )
            if job.name in self._waiting or any(job.name in run.jobs for run in self._running.values()):
                raise InputError(f"job {job.name} is here already", remedy="give each job a name of its own")
            self._waiting[job.name] = job
            try:
                self._plan_anew(ARRIVAL_S, most_moves=0)
            except PlacementError:
                self._waiting.pop(job.name, None)
                raise
            place = self._placement.get(job.name)
            if place is None:
                raise PlacementError(
                    f"job {job.name} fits no triple: {self._why(job)}",
                    remedy="change what it asks for, or add one",
                )
            self._counts["placed"] += 1
            return place

    def where(self, job: str) -> str | None:
        """The triple on which a job waits or runs; None once it is over, or where it fits none any more."""
        with self._lock:
            for triple, run in self._running.items():
                if job in run.jobs:
                    return triple
            return self._placement.get(job)

    def begin(self, triple: str, jobs: Iterable[str]) -> None:
        """A triple has begun with a batch: its jobs wait no more. InputError if one of them did not wait."""
        names = tuple(jobs)
        with self._lock:
            if missing := [name for name in names if name not in self._waiting]:
                raise InputError(f"job {missing[0]} does not wait", remedy="let it arrive first")
            group = self._groups[self._waiting[names[0]].group]
            now = self._clock()
            predicted = (
                self._predicted(self._triples[triple], group, len(names)) if triple in self._triples else 0.0
            )
            self._running[triple] = Running(group.name, names, now, now + predicted)
            for name in names:
                self._waiting.pop(name)
                self._placement.pop(name, None)

    def end(self, triple: str, *, done: bool = True) -> None:
        """A triple has ended its batch. ``done`` False: it failed, and how long it took says nothing."""
        with self._lock:
            run = self._running.pop(triple, None)
            there = self._triples.get(triple)
            if run is None or there is None or not done:
                return
            took = self._clock() - run.began_s
            if took > 0:
                parts = self._parts(there, self._groups[run.group], len(run.jobs))
                self._measured.ran(Measurement(*parts, took))

    def pin(self, job: str, triple: str) -> None:
        """A job has been handed to a triple, which has a queue of its own: it stays there until it is withdrawn."""
        with self._lock:
            waits = self._waiting.get(job)
            if waits is not None and triple in self._triples:
                self._waiting[job] = replace(waits, labels={**waits.labels, TRIPLE: triple})
                self._placement[job] = triple

    def withdraw(self, job: str) -> None:
        """A job is not wanted any more. Nothing happens to one that runs."""
        with self._lock:
            self._waiting.pop(job, None)
            self._placement.pop(job, None)

    def tick(self, *, deadline_s: float = TICK_S) -> dict[str, str]:
        """Plan what waits anew; which jobs moved, and where to. To be called every second or so, and after ``join``."""
        with self._lock:
            return self._plan_anew(deadline_s, most_moves=None) if self._waiting and self._triples else {}

    def late(self) -> list[str]:
        """Triples whose batch runs much longer than predicted: their workers slowed down, or are gone."""
        with self._lock:
            now = self._clock()
            return [
                name
                for name, run in self._running.items()
                if now - run.began_s > SLOWER * max(0.1, run.ends_s - run.began_s)
            ]

    def status(self) -> dict[str, Any]:
        """Counts, what waits and runs, and how far predictions were off, as plain data."""
        with self._lock:
            return {
                "version": self.version,
                "triples": sorted(self._triples),
                "waiting": len(self._waiting),
                "running": {name: list(run.jobs) for name, run in sorted(self._running.items())},
                "prediction_error": self._measured.error,
                **self._counts,
            }

    def plan(self) -> tuple[int, dict[str, str]]:
        """(version, triple of each waiting job): what a router may keep for a moment."""
        with self._lock:
            return self.version, dict(self._placement)

    # -- inside the lock ---

    def _plan_anew(self, deadline_s: float, most_moves: int | None) -> dict[str, str]:
        """Plan all that waits, from the plan that stands. Jobs that fit nowhere leave the plan."""
        if not self._waiting:
            return {}
        if not self._triples:
            self._placement.clear()
            raise PlacementError("there is no triple", remedy="see whether the parties are up")
        before = self._placement
        try:
            schedule = self._planner(
                self._workload(), deadline_s=deadline_s, previous=before, most_moves=most_moves, threads=1
            )
        except ProblemError as error:
            raise PlacementError(str(error), remedy="correct the job or the cluster's description") from None
        self._counts["plans"] += 1
        self._say(schedule)
        after = dict(schedule.placement)
        moved = {name: place for name, place in after.items() if before.get(name, place) != place}
        self._counts["moved"] += len(moved)
        self._refused = dict(schedule.refused)
        if after != before:
            self.version += 1
        self._placement = after
        return moved

    def _workload(self) -> Workload:
        now = self._clock()
        triples = []
        for name, triple in self._triples.items():
            run = self._running.get(name)
            free = now if run is None else max(now, run.ends_s)
            if run is not None and now > run.ends_s:  # late: as much again, so that others go elsewhere
                free = now + (now - run.ends_s)
            triples.append(replace(self._measured.applied(triple), free_at_s=free))
        return Workload(
            jobs=tuple(self._waiting.values()),
            triples=tuple(triples),
            links=self._links,
            groups=tuple(self._groups.values()),
            weights=self._weights,
            batch=self._batch,
            now_s=now,
            distinct_trust=self._distinct_trust,
            calibration=self._measured.calibration,
        )

    def _say(self, schedule: Schedule) -> None:
        if not schedule.notes:
            return
        self._counts["fallbacks"] += 1
        now = time.monotonic()
        if now - self._said >= SAID_S:
            self._said = now
            log.warning("planned by batch-aware earliest completion: %s", "; ".join(schedule.notes))

    def _why(self, job: Job) -> str:
        self._counts["refused"] += 1
        self._waiting.pop(job.name, None)
        return self._refused.get(job.name, "the planner gave no reason")

    def _parts(self, triple: Triple, group: Group, n: int) -> tuple[float, float, float]:
        """What a batch's time is made of, before calibration: rounds, work, bytes (s)."""
        rtt, rate, bandwidth = self._pace(triple)
        variant = min(group.variants, key=lambda v: v.rounds * rtt + n * v.nbytes / bandwidth)
        return variant.rounds * rtt, n * group.work_s / rate, n * variant.nbytes / bandwidth

    def _predicted(self, triple: Triple, group: Group, n: int) -> float:
        rtt, rate, bandwidth = self._pace(triple)
        return min(
            predicted_s(group, v, n, rtt_s=rtt, rate=rate, bandwidth=bandwidth, c=self._measured.calibration)
            for v in group.variants
        )

    def _pace(self, triple: Triple) -> tuple[float, float, float]:
        """(round trip, slowest rate, slowest bandwidth) of a triple: as measured, else by its links."""
        measured = self._measured.applied(triple)
        regions = [worker.region for worker in triple.workers]
        between = {frozenset((regions[i], regions[j])) for i, j in ((0, 1), (0, 2), (1, 2))}
        links = [link for link in self._links if frozenset(link.between) in between]
        rtt = (
            measured.rtt_s
            if measured.rtt_s is not None
            else max((link.rtt_s for link in links), default=1e-4)
        )
        bandwidth = (
            measured.bandwidth
            if measured.bandwidth is not None
            else min((link.bandwidth for link in links), default=1e9)
        )
        return rtt, min(worker.rate for worker in triple.workers), bandwidth
