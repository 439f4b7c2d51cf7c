"""The plan of jobs that come one by one: placed on arrival, planned anew while they wait.

A job that arrives goes at once where F grows least. Then, and whenever a triple falls idle, all that waits is planned
anew from the plan that stands, with a price on each job that changes its triple, in a fixed number of moves. What runs
is not touched. A triple takes the first batch of its queue.

What the future brings nobody knows, and a plan that is better now may be worse in the end. So a second run goes along,
of the same jobs under batch-aware earliest completion by the same model, and tells what that policy would have reached
by now: makespan, mean latency, late jobs and p95 of all jobs so far, done or to be done. They are the limits of every
walk: passing one has a price.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from mpc_ray.planner.jobs.emulate import DONE, RUNS, WAITS, Change, Emulation, World
from mpc_ray.planner.jobs.loops.finish import in_full, settle
from mpc_ray.planner.jobs.loops.layout import Array, Data
from mpc_ray.planner.jobs.loops.queues import STATS, Goal, State, batches, scratch
from mpc_ray.planner.jobs.loops.walk import fill, walk
from mpc_ray.planner.jobs.policies import Earliest
from mpc_ray.planner.jobs.search import BY_ARRIVAL, FREE, NO_TAIL
from mpc_ray.planner.jobs.settings import JobSettings
from mpc_ray.planner.jobs.timetable import ROUNDING

QUANTILE = 0.95


@dataclass(frozen=True)
class Living:
    """`moves` of a plan; no plan sooner than `tick_s` after the last unless something arrived or died; `price` in F/n
    of a job that changes its triple, `guard` of passing a limit, in shares of F; `below`: how far under the longest
    queue m stands; `shadow`: whether the second run goes along."""

    moves: int = 3000
    tick_s: float = 0.05
    price: float = 0.05
    guard: float = 3.0
    below: float = 0.05
    shadow: bool = True


class Live:
    """A policy for `emulate`; `changes` are the deaths of its shadow, which learns of each when it happens."""

    def __init__(
        self,
        world: World,
        changes: tuple[Change, ...] = (),
        seed: int = 0,
        how: Living | None = None,
        settings: JobSettings | None = None,
    ) -> None:
        self.world, self.d = world, world.data
        self.how, self.settings = how or Living(), settings or JobSettings()
        n, T = len(self.d.group), len(self.d.free)
        self.place = np.full(n, -1, np.int64)
        self.mode = np.full(T, BY_ARRIVAL, np.int64)
        self.moved = self.plans = 0
        self._random = np.random.default_rng(seed)
        self._last = -inf
        deaths = tuple(c for c in changes if c.factor in (1.0, inf))
        self._shadow = Emulation(world.compiled, deaths, Earliest)
        self._sites()

    def _sites(self) -> None:
        """Candidate lists of the triples that are alive."""
        d = self.d
        alive = d.allowed & self.world.alive
        self._choices = alive.sum(axis=1)
        self._choice = np.zeros_like(d.choice)
        for c in range(len(alive)):
            there = d.choice[c, : d.choices[c]]
            there = there[alive[c, there]]
            self._choice[c, : len(there)] = there
        self._allowed = alive

    def arrive(self, now: float, jobs: list[int]) -> None:
        self.place[jobs] = -1
        self._plan(now)

    def changed(self, now: float, triple: int) -> None:
        self._sites()
        self.place[self.place == triple] = -1
        self._plan(now)

    def take(self, now: float, triple: int) -> list[int]:
        jobs = self._first(triple)
        if now >= self._last + self.how.tick_s:
            self._plan(now)
            jobs = self._first(triple)
        self.place[jobs] = -1
        return jobs

    def _first(self, triple: int) -> list[int]:
        """The first batch of a triple's queue."""
        waiting = np.flatnonzero((self.world.state == WAITS) & (self.place == triple))
        if not len(waiting):
            return []
        s = scratch(len(waiting), self.d.fixed.shape[1])
        batches(self.d, triple, self.mode[triple], waiting, len(waiting), s)
        found: list[int] = waiting[s.batch[: len(waiting)] == s.order[0]].tolist()
        return found

    def _plan(self, now: float) -> None:
        self._last = now
        jobs = np.flatnonzero((self.world.state == WAITS) & (self._choices[self.d.klass] > 0))
        n = len(jobs)
        if not n:
            return
        self.plans += 1
        d = self._snapshot(now, jobs)
        old = self.place[jobs]
        place = old.copy()
        lost = np.flatnonzero(place < 0)
        if len(lost):
            state = self._state(d, place)
            none = Goal(0.0, NO_TAIL, np.full(5, FREE), np.zeros(4), old, 0.0, n)
            fill(d, state, none, lost, len(d.free))
            place = state.place
        end = self._ends(d, place)
        unit = float(d.weights[0] * end.max() + d.weights[1] * (end - d.arrived).mean())
        goal = self._goal(now, d, jobs, end, old, unit)
        settle(d, place, goal, self.mode)
        if n > 1:
            place = self._walked(d, place, goal, lost, min(self.how.moves, 60 * n))
        self.moved += int(((old >= 0) & (place != old)).sum())
        self.place[jobs] = place

    def _walked(self, d: Data, place: Array, goal: Goal, lost: Array, moves: int) -> Array:
        s = self.settings
        mates = np.argsort(d.group, kind="stable")
        first = np.concatenate([[0], np.cumsum(np.bincount(d.group, minlength=d.fixed.shape[1]))])
        best, mode = np.empty_like(place), np.empty_like(self.mode)
        shares = np.array([s.swaps, s.groups, s.recuts, s.mates])
        state = self._state(d, place)
        walk(d, state, goal, mates, first, s.near, lost, moves, 0.0, 0.0, shares, best, mode, np.zeros(2))
        self.mode = mode
        return best

    def _snapshot(self, now: float, jobs: Array) -> Data:
        """What waits, on a clock that starts now."""
        d = self.d
        return d._replace(
            group=d.group[jobs],
            klass=d.klass[jobs],
            arrived=d.arrived[jobs] - now,
            due=d.due[jobs] - now,
            free=self.world.free(now) - now,
            allowed=self._allowed,
            choice=self._choice,
            choices=self._choices,
        )

    def _state(self, d: Data, place: Array) -> State:
        T = len(d.free)
        seed = self._random.integers(1, 2**62)
        return State(
            place.copy(),
            self.mode.copy(),
            np.zeros(T, np.int64),
            np.zeros((T, len(d.group)), np.int64),
            np.zeros((T, STATS)),
            np.array([seed], np.uint64),
        )

    def _ends(self, d: Data, place: Array) -> Array:
        """When each job that waits is done by the plan."""
        ints, times = np.empty((5, len(place)), np.int64), np.empty((2, len(place)))
        in_full(d, place, self.mode, ints[0], ints[1], ints[2], ints[3], ints[4], times[0], times[1])
        found: Array = times[1][ints[0]]
        return found

    def _goal(self, now: float, d: Data, jobs: Array, end: Array, old: Array, unit: float) -> Goal:
        """Limits from the shadow, less what those jobs have used up that are done or run."""
        how, world, n = self.how, self.world, len(end)
        price = how.price * unit / n
        fixed = (world.state == DONE) | (world.state == RUNS)
        done = np.where(world.state == DONE, world.done_s, inf)
        for t, running in world.running.items():
            done[running] = max(now, float(world.expected[t]))
        latency = done[fixed] - self.d.arrived[fixed]
        z = float(np.quantile(np.concatenate([latency, end - d.arrived]), QUANTILE))
        m = float(end.max()) * (1 - how.below)
        free = Goal(m, z, np.full(5, FREE), np.zeros(4), old, price, n)
        if not how.shadow:
            return free
        self._shadow.advance(now)
        theirs = self._shadow_ends(now)
        known = np.isfinite(theirs)
        if not known[jobs].all():  # of two deaths at one instant it knows before we do
            return free
        their_latency = np.sort(theirs[known] - self.d.arrived[known])
        count = len(their_latency)
        at = int(QUANTILE * (count - 1))
        p95 = float(their_latency[at]) + ROUNDING
        limits = np.array(
            [
                float(theirs[known].max()) - now + ROUNDING,
                (float(their_latency.sum()) - float(latency.sum())) / n + ROUNDING,
                self._late(theirs, known) - self._late(done, fixed),
                p95,
                count - 1 - at - int((latency > p95).sum()),
            ],
            np.float64,
        )
        g = how.guard * unit
        longest, mean = max(1e-9, float(end.max())), max(1e-9, float((end - d.arrived).mean()))
        prices = np.array([g / longest, g / mean, g / n, g / n])
        return Goal(m, z, limits, prices, old, price, n)

    def _late(self, end: Array, which: Array) -> int:
        return int((end[which] > self.d.due[which] + ROUNDING).sum())

    def _shadow_ends(self, now: float) -> Array:
        """When each job that has come is, or would be, done under earliest completion; inf for those to come."""
        world, policy = self._shadow.world, self._shadow.policy
        assert isinstance(policy, Earliest)
        found = np.where(world.state == DONE, world.done_s, inf)
        for t, running in world.running.items():
            found[running] = max(now, float(world.expected[t]))
        free = world.free(now)
        for t, queue in enumerate(policy.queue):
            end = float(free[t])
            for jobs in queue:
                end += world.duration(int(world.data.group[jobs[0]]), t, len(jobs))[0]
                found[jobs] = end
        return found
