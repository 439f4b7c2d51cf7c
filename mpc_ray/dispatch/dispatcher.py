"""The plan, kept up to date: jobs are placed when they come, and those that wait are planned anew.

A job is placed at once where it fits best, and moves nobody. Every tick the jobs that still wait are planned anew from
the plan that stands, with a price on each move; what runs is never touched. When a triple is lost or slows down its
jobs go elsewhere with at most a few others. A job that fits nowhere is refused with the reason, at once.

The planner has a deadline. What it has not reached by then is batch-aware earliest completion, which is said in
``status()["fallbacks"]``, and in the log once in a while: never in silence.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from mpc_ray.dispatch.measured import Measured, Probe
from mpc_ray.errors import ConfigError, InputError, PlacementError
from mpc_ray.planner import ProblemError, Schedule, Workload, plan_jobs
from mpc_ray.planner.jobs import Group, Job, Link, Measurement, Triple, Variant, Weights

log = logging.getLogger("mpc_ray.dispatch")

ARRIVAL_S = 0.01
TICK_S = 0.05
REPAIR_S = 0.02
REPAIR_MOVES = 5  # jobs besides the orphans
SAID_S = 60.0
MEASURED = "as measured"  # the variant of a group whose runs were counted
TRIPLE = "mpc-ray/triple"  # the label that a triple's workers carry here, and a pinned job asks for
SLOWER = 1.5  # a batch that takes this many times what was predicted is late
KINDS = 256  # groups that are remembered, besides those of jobs that are here
NEWEST = 0.3  # weight of a run's rounds and bytes against all before it


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
        self._given = frozenset(self._groups)
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

    # -- triples ---

    def join(self, triple: Triple) -> None:
        """A triple is there, or is there again. What waits may use it from the next tick on."""
        workers = [replace(w, labels={**w.labels, TRIPLE: triple.name}) for w in triple.workers]
        with self._lock:
            self._triples[triple.name] = replace(triple, workers=(workers[0], workers[1], workers[2]))

    def know(self, group: Group) -> None:
        """A kind of jobs that may come from now on. Clients choose names of kinds, so those that no job here is of are
        forgotten when there are more than ``KINDS`` of them, the oldest first."""
        with self._lock:
            known = self._groups.pop(group.name, group)
            self._groups[group.name] = known  # the newest, so that its job finds it
            if len(self._groups) > KINDS + len(self._given):
                used = self._given | self._used() | {group.name}
                for name in [name for name in self._groups if name not in used][: -KINDS // 2]:
                    del self._groups[name]

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
            there = self._triples.get(triple)
            predicted = (
                0.0 if there is None else self._measured.predicted(there, self._links, group, len(names))
            )
            self._running[triple] = Running(group.name, names, now, now + predicted)
            for name in names:
                self._waiting.pop(name)
                self._placement.pop(name, None)

    def computes(self, triple: str, jobs: Iterable[str], for_s: float) -> None:
        """A triple with a queue of its own says what it computes, and since when: ``begin`` and ``end`` in one, for
        jobs that the plan knows. How long runs took is told to ``ran``."""
        with self._lock:
            if triple not in self._triples:
                return
            run = self._running.get(triple)
            names = [name for name in jobs if name in self._waiting]
            if run is not None and not set(jobs) & set(run.jobs):
                self.end(triple, done=False)
                run = None
            if run is not None or not names:
                return
            self.begin(triple, [n for n in names if self._waiting[n].group == self._waiting[names[0]].group])
            begun = self._running[triple]
            self._running[triple] = replace(
                begun, began_s=begun.began_s - for_s, ends_s=max(self._clock(), begun.ends_s - for_s)
            )

    def ran(
        self, triple: str, group: str, jobs: int, *, rounds: float, nbytes: float, took_s: float
    ) -> float | None:
        """A batch of ``jobs`` ran elsewhere than under ``begin`` and ``end``, and this is what was counted of it:
        rounds, bytes of the party that sent most, seconds. The group costs that from now on.

        Returns the seconds that the plan predicted; None where it does not know triple or group. InputError for
        nonsense."""
        for value, what in ((jobs, "jobs"), (took_s, "seconds")):
            if not math.isfinite(value) or value <= 0:
                raise InputError(f"a batch of {value} {what} was measured", remedy="measure again")
        with self._lock:
            there, known = self._triples.get(triple), self._groups.get(group)
            if there is None or known is None:
                return None
            predicted = self._measured.predicted(there, self._links, known, jobs)
            first = known.variants[0]
            share = NEWEST if first.name == MEASURED else 1.0
            counted = Variant(
                MEASURED,
                first.rounds + share * (rounds - first.rounds),
                first.nbytes + share * (nbytes / jobs - first.nbytes),
            )
            known = self._groups[group] = replace(known, variants=(counted,))
            self._measured.ran(Measurement(*self._measured.parts(there, self._links, known, jobs), took_s))
            return predicted

    def end(self, triple: str, *, done: bool = True) -> None:
        """A triple has ended its batch. ``done`` False: it failed, and how long it took says nothing."""
        with self._lock:
            run = self._running.pop(triple, None)
            there = self._triples.get(triple)
            if run is None or there is None or not done:
                return
            took = self._clock() - run.began_s
            if took > 0:
                parts = self._measured.parts(there, self._links, self._groups[run.group], len(run.jobs))
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
                "triples": sorted(self._triples),
                "kinds": sorted(self._groups),
                "waiting": len(self._waiting),
                "running": {name: list(run.jobs) for name, run in sorted(self._running.items())},
                "late": self.late(),
                "prediction_error": self._measured.error,
                **self._counts,
            }

    # -- inside the lock ---

    def _used(self) -> frozenset[str]:
        """Groups of the jobs that are here."""
        return frozenset(job.group for job in self._waiting.values()) | {
            run.group for run in self._running.values()
        }

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
        wanted = {job.group for job in self._waiting.values()}
        return Workload(
            jobs=tuple(self._waiting.values()),
            triples=tuple(triples),
            links=self._links,
            groups=tuple(group for name, group in self._groups.items() if name in wanted),
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
