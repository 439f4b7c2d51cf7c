"""Discrete events: the same jobs, triples, links and failures under one policy after another.

Jobs arrive when the trace says. A triple runs one batch at a time; what it runs next is the policy's to say whenever it
is idle. A batch takes the seconds of the cost model as long as every link it uses can carry what all running batches
want of it; where a link is short, all its batches slow down alike (fluid sharing). When a worker dies its triples are
gone: their running batch is lost and its jobs wait again, like those in the queue. A slow worker stretches its triples'
batches by its factor; no policy is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

import numpy as np

from mpc_ray.planner.jobs.arrays import Compiled
from mpc_ray.planner.jobs.loops.layout import Array, Data
from mpc_ray.planner.jobs.timetable import ROUNDING, tail_of

WAITS, RUNS, DONE, FUTURE, LOST = range(5)


@dataclass(frozen=True)
class Change:
    """At `at_s` a triple dies (`factor` inf), slows down by `factor`, or is itself again (1.0)."""

    at_s: float
    triple: int
    factor: float


@dataclass(frozen=True)
class Ran:
    """A batch that a triple ran, or lost (`done` False)."""

    triple: int
    group: int
    jobs: tuple[int, ...]
    start_s: float
    end_s: float
    done: bool


class Policy(Protocol):
    """What decides. Times are the trace's; job and triple numbers are those of `Compiled`."""

    def arrive(self, now: float, jobs: list[int]) -> None:
        """Jobs have come, or have lost their triple and wait again."""
        ...

    def changed(self, now: float, triple: int) -> None:
        """A triple died or is back (`World.alive`); the jobs that it lost arrive next."""
        ...

    def take(self, now: float, triple: int) -> list[int]:
        """What an idle triple runs next: jobs of one group, at most a batch; none to stay idle."""
        ...


@dataclass
class World:
    """What a policy may look at."""

    compiled: Compiled
    data: Data  # arrived and due are on the trace's clock here
    alive: Array  # [T] bool
    state: Array  # [n] WAITS, RUNS, DONE, FUTURE or LOST
    began: Array  # [T] of the running batch
    expected: Array  # [T] when it should end by the model, -inf where none runs
    done_s: Array  # [n], inf until a job is done
    running: dict[int, list[int]] = field(default_factory=dict)

    def free(self, now: float) -> Array:
        """When each triple should be free, not before now; of one that is late, as much later again as it is late."""
        late = np.maximum(0.0, now - self.expected)
        found: Array = np.where(np.isfinite(self.expected), np.maximum(self.expected, now) + late, now)
        return found

    def duration(self, group: int, triple: int, count: int) -> tuple[float, int]:
        """Seconds of a batch, and the variant that is fastest."""
        times = self.data.fixed[:, group, triple] + count * self.data.item[:, group, triple]
        variant = int(times.argmin())
        return float(times[variant]), variant


@dataclass(frozen=True)
class Outcome:
    """One policy's run: what it reached, in seconds, jobs and dollars. `stranded` jobs had no triple left to run on."""

    makespan_s: float
    mean_s: float
    p95_s: float
    tail_s: float
    tardiness_s: float
    late: int
    dollars: float
    done: int
    stranded: tuple[int, ...]
    ran: tuple[Ran, ...]


def emulate(compiled: Compiled, changes: tuple[Change, ...], policy: Callable[[World], Policy]) -> Outcome:
    """Run the trace to its end under one policy. The same input gives the same outcome if the policy's does."""
    run = Emulation(compiled, changes, policy)
    run.advance(inf)
    return run.outcome()


class Emulation:
    """A run under way. `compiled` holds all jobs of the trace; a policy is told of each when it arrives."""

    def __init__(
        self, compiled: Compiled, changes: tuple[Change, ...], policy: Callable[[World], Policy]
    ) -> None:
        d = compiled.data
        n, T, L = len(d.group), len(d.free), len(d.capacity)
        d = d._replace(arrived=d.arrived + compiled.now_s, due=d.due + compiled.now_s)
        self.world = World(
            compiled,
            d,
            np.ones(T, np.bool_),
            np.full(n, FUTURE),
            np.zeros(T),
            np.full(T, -inf),
            np.full(n, inf),
        )
        self.policy = policy(self.world)
        self.now = min(0.0, float(d.arrived.min(initial=0.0)))
        self._left = np.full(T, inf)  # seconds of the running batch, at full speed
        self._demand = np.zeros((T, L))  # bytes a second of it on each link, at full speed
        self._factor = np.ones(T)
        self._coming = np.argsort(d.arrived, kind="stable")
        self._came = 0
        self._changes = tuple(sorted(changes, key=lambda change: change.at_s))
        self._changed = 0
        self._dollars = 0.0
        self._ran: list[Ran] = []

    def advance(self, until: float) -> None:
        """All that happens up to and at `until`."""
        d, n = self.world.data, len(self.world.data.group)
        while True:
            self.begin()
            speed = self.speeds()
            busy = np.isfinite(self._left)
            with np.errstate(invalid="ignore"):
                ends = np.where(busy, self.now + self._left / speed, inf)
            first = int(ends.argmin())
            ends_s = float(ends[first])
            arrives_s = float(d.arrived[self._coming[self._came]]) if self._came < n else inf
            more = self._changed < len(self._changes)
            changes_s = self._changes[self._changed].at_s if more else inf
            then = min(ends_s, arrives_s, changes_s)
            if then > until or then == inf:
                then = min(until, then)
                if then < inf:
                    self._left -= np.where(busy, speed * (then - self.now), 0.0)
                    self.now = then
                return
            self._left -= np.where(busy, speed * (then - self.now), 0.0)
            self.now = then
            if changes_s <= min(ends_s, arrives_s):
                self._change(self._changes[self._changed])
                self._changed += 1
            elif ends_s <= arrives_s:
                self._end(first, done=True)
            else:
                self._arrive()

    def speeds(self) -> Array:
        """The share of full speed at which each triple's batch runs now."""
        found: Array = _speeds(self._demand, self.world.data.capacity) / self._factor
        return found

    def due(self, now: float) -> list[Change]:
        """For whoever has a clock of its own: all arrivals and changes up to `now`; those changes."""
        d, n = self.world.data, len(self.world.data.group)
        made: list[Change] = []
        while True:
            arrives_s = float(d.arrived[self._coming[self._came]]) if self._came < n else inf
            more = self._changed < len(self._changes)
            changes_s = self._changes[self._changed].at_s if more else inf
            if min(arrives_s, changes_s) > now:
                self.now = now
                return made
            self.now = now
            if changes_s <= arrives_s:
                made.append(self._changes[self._changed])
                self._changed += 1
                self._change(made[-1])
            else:
                self._arrive()

    def to_come(self) -> bool:
        """Whether arrivals or changes lie ahead."""
        return self._came < len(self.world.data.group) or self._changed < len(self._changes)

    def end(self, now: float, t: int) -> None:
        """For whoever has a clock of its own: the batch of a triple is done."""
        self.now = now
        self._end(t, done=True)

    def begin(self) -> list[tuple[int, float]]:
        """Ask the policy for every idle triple; those that begin, and the seconds that it takes at their speed now."""
        world, d = self.world, self.world.data
        begun = []
        for t in np.flatnonzero(world.alive & ~np.isfinite(self._left)).tolist():
            jobs = self.policy.take(self.now, t)
            if not jobs:
                continue
            _check(world, t, jobs)
            group = int(d.group[jobs[0]])
            seconds, variant = world.duration(group, t, len(jobs))
            sent = len(jobs) * float(d.nbytes[variant, group])
            self._left[t] = seconds
            self._demand[t] = sent * d.pairs[t] / max(seconds, ROUNDING)
            self._dollars += sent * float(d.price[t])
            world.state[jobs] = RUNS
            world.began[t], world.expected[t] = self.now, self.now + seconds
            world.running[t] = jobs
            begun.append(t)
        speed = self.speeds() if begun else None
        return [] if speed is None else [(t, float(self._left[t] / speed[t])) for t in begun]

    def _end(self, t: int, *, done: bool) -> list[int]:
        """The running batch of a triple is over; its jobs."""
        world = self.world
        jobs = world.running.pop(t, [])
        if jobs:
            group = int(world.data.group[jobs[0]])
            self._ran.append(Ran(t, group, tuple(jobs), float(world.began[t]), self.now, done))
        world.state[jobs] = DONE if done else WAITS
        world.done_s[jobs] = self.now if done else inf
        self._left[t], self._demand[t], world.expected[t] = inf, 0.0, -inf
        return jobs

    def _change(self, change: Change) -> None:
        world, t = self.world, change.triple
        if change.factor == inf:
            if not world.alive[t]:
                return
            world.alive[t] = False
            orphans = self._end(t, done=False)
            self.policy.changed(self.now, t)
            if orphans:
                self.policy.arrive(self.now, orphans)
            return
        self._factor[t] = change.factor
        if change.factor == 1.0 and not world.alive[t]:
            world.alive[t] = True
            self.policy.changed(self.now, t)

    def _arrive(self) -> None:
        d = self.world.data
        jobs = []
        while self._came < len(d.group) and d.arrived[self._coming[self._came]] <= self.now:
            jobs.append(int(self._coming[self._came]))
            self._came += 1
        self.world.state[jobs] = WAITS
        self.policy.arrive(self.now, jobs)

    def outcome(self) -> Outcome:
        """What was reached so far."""
        d, world = self.world.data, self.world
        done = world.state == DONE
        stranded = tuple(np.flatnonzero(~done).tolist())
        if not done.any():
            return Outcome(0.0, 0.0, 0.0, 0.0, 0.0, 0, self._dollars, 0, stranded, tuple(self._ran))
        end = world.done_s[done]
        latency, tardy = end - d.arrived[done], np.maximum(end - d.due[done], 0.0)
        return Outcome(
            float(end.max()) - min(0.0, float(d.arrived.min())),
            float(latency.mean()),
            float(np.quantile(latency, 0.95)),
            tail_of(latency)[0],
            float(tardy.mean()),
            int((tardy > ROUNDING).sum()),
            self._dollars,
            int(done.sum()),
            stranded,
            tuple(self._ran),
        )


def _check(world: World, t: int, jobs: list[int]) -> None:
    """A policy that breaks a hard limit is a bug, and not one to be measured."""
    d, c = world.data, world.compiled
    if len(jobs) > c.batch or len({int(d.group[j]) for j in jobs}) > 1:
        raise AssertionError(f"triple {c.triple[t]} was given {len(jobs)} jobs that make no batch")
    for j in jobs:
        if world.state[j] != WAITS or not d.allowed[d.klass[j], t]:
            raise AssertionError(f"job {c.job[j]} does not wait, or may not run on {c.triple[t]}")


def _speeds(demand: Array, capacity: Array) -> Array:
    """The share of full speed that each triple's links leave it."""
    if not len(capacity):
        return np.ones(len(demand))
    shares = np.minimum(1.0, capacity / np.maximum(demand.sum(axis=0), 1e-12))
    found: Array = np.where(demand > 0, shares, 1.0).min(axis=1)
    return found
