"""A search under way: the plans it is held against, the best plan so far, the clock and what has been seen.

The guard. A plan is better than another first if it is in none of makespan, mean latency, p95 and late jobs worse than
batch-aware earliest completion in order of arrival; then by F, raised by the shares by which it is worse than the best
that earliest completion reaches in each measure over three orders (arrival, due date, longest first). So no search ever
returns a plan that loses to the yardstick: the yardstick's own plan is the first candidate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpc_ray.planner.jobs.arrays import Compiled
from mpc_ray.planner.jobs.clock import Clock
from mpc_ray.planner.jobs.earliest import by_arrival, by_length, earliest_completion
from mpc_ray.planner.jobs.loops.finish import in_full, settle
from mpc_ray.planner.jobs.loops.layout import SHARES, Timetable
from mpc_ray.planner.jobs.loops.queues import STATS, Goal, State
from mpc_ray.planner.jobs.loops.walk import fill
from mpc_ray.planner.jobs.schedule import Point
from mpc_ray.planner.jobs.timetable import Measures, best_of, measures, tail_of

Array = np.ndarray[Any, np.dtype[Any]]

ALL_ORDERS = (
    30e-6  # seconds a job that must be left for more than one yardstick; four times that for a repair
)
FREE = 1e300  # a limit that nothing passes
NO_TAIL = 1e9  # a latency that no job has; far larger and what is added to it would be lost in rounding
BY_ARRIVAL = 2 * len(SHARES)  # the mode in which full batches run by arrival


@dataclass(frozen=True)
class Candidate:
    """A plan. `mode` is None where the order is a yardstick's own."""

    place: Array
    mode: Array | None
    table: Timetable
    measures: Measures
    solver: str
    moved: int
    rank: tuple[float, ...]  # smaller is better


@dataclass(frozen=True)
class Bar:
    """A plan's measures as limits for a walk."""

    measures: Measures
    limits: Array  # as in Goal


class Search:
    """Shared by the solvers of one run, which may be in several threads.

    `old` [n] is the triple of each job in the previous plan, -1 for none. A job that leaves it costs `move_price`·F/n,
    and at most `most_moves` may. With a previous plan the guard is a price like the others: a plan that moves every
    job to be nowhere worse would be no repair.
    """

    def __init__(
        self,
        compiled: Compiled,
        clock: Clock,
        progress: Callable[[Point], None] | None = None,
        old: Array | None = None,
        move_price: float = 0.0,
        most_moves: int | None = None,
    ) -> None:
        self.compiled, self.data, self.clock = compiled, compiled.data, clock
        self.n, self.triples = len(self.data.group), len(self.data.free)
        self.warm = old is not None
        self.old = np.full(self.n, -1, np.int64) if old is None else old
        self.orphans = np.flatnonzero(self.old < 0) if self.warm else np.zeros(0, np.int64)
        self.move_price, self.most_moves = 0.0, self.n if most_moves is None else most_moves
        groups = self.data.fixed.shape[1]
        self.mates = np.argsort(self.data.group, kind="stable")
        self.first_mate = np.concatenate([[0], np.cumsum(np.bincount(self.data.group, minlength=groups))])
        self.points: list[Point] = []
        self._progress = progress
        self._lock = threading.Lock()
        self._best: Candidate | None = None
        self._reached: dict[str, tuple[float, ...]] = {}
        turns = [by_arrival(self.data, compiled.asked)]
        if clock.left() > ALL_ORDERS * self.n * (4 if self.warm else 1):
            turns += [np.arange(self.n), by_length(self.data)]
        self._yardsticks(turns)
        if self.warm:
            self._repair(move_price)

    def _yardsticks(self, turns: list[Array]) -> None:
        """Earliest completion in several orders; the first is the guard, all are candidates, as they are and settled.

        Longest first ends early and lets the short wait; its queues in a better order are a bar of their own.
        """
        d = self.data
        found = [earliest_completion(d, turn, self.compiled.batch, fast=True) for turn in turns]
        plans: list[tuple[Array, Array | None, Timetable]] = [(place, None, table) for place, table in found]
        if len(turns) > 1:
            for place, _ in found:
                better = self.settled(place)
                plans.append((place, better, self.table(place, better)))
        bars = [self._bar(table) for _, _, table in plans]
        self.guard = bars[0]
        best = best_of(*(bar.measures for bar in bars))
        self.bar = Bar(best, np.min([bar.limits for bar in bars], axis=0))
        for place, mode, table in plans:
            self._consider(place, mode, table, "earliest")

    def _repair(self, move_price: float) -> None:
        """The previous plan, with the jobs that have no place in it put where F grows least."""
        self._best = None
        self.move_price = move_price * self.guard.measures.energy / max(1, self.n)
        alone = (self.data.fixed + self.data.item).min(axis=0)
        first = self.data.choice[self.data.klass[self.orphans], 0]
        longest = np.argsort(-alone[self.data.group[self.orphans], first], kind="stable")
        for turn in (self.orphans, self.orphans[longest]):
            place = self.filled(self.old, turn, len(SHARES), self.triples)
            mode = self.settled(place)
            self._consider(place, mode, self.table(place, mode), "repair")

    def _bar(self, table: Timetable) -> Bar:
        value = measures(self.data, table)
        if self.n == 0:
            return Bar(value, np.full(5, FREE))
        latency = np.sort(table.end[table.batch] - self.data.arrived)
        at = int(0.95 * (self.n - 1))
        limits = [value.makespan_s, value.mean_s, value.late, latency[at], self.n - 1 - at]
        return Bar(value, np.array(limits, np.float64) + np.array([1e-9, 1e-9, 0.0, 1e-9, 0.0]))

    @property
    def best(self) -> Candidate:
        """The best plan so far."""
        assert self._best is not None
        return self._best

    def moved(self, place: Array) -> int:
        """Jobs that are not where the previous plan had them."""
        return int(((self.old >= 0) & (place != self.old)).sum())

    def table(self, place: Array, mode: Array) -> Timetable:
        """The timetable of a plan."""
        n = self.n
        ints, times = np.empty((5, n), np.int64), np.empty((2, n))
        batch, triple, variant, group, size = ints
        start, end = times
        count = in_full(self.data, place, mode, batch, triple, variant, group, size, start, end)
        return Timetable(
            batch, triple[:count], variant[:count], group[:count], size[:count], start[:count], end[:count]
        )

    def offer(self, place: Array, mode: Array, solver: str) -> Candidate:
        """Hold a plan against the best; copies of its arrays are kept."""
        return self._consider(place.copy(), mode.copy(), self.table(place, mode), solver)

    def _consider(self, place: Array, mode: Array | None, table: Timetable, solver: str) -> Candidate:
        value, moved = measures(self.data, table), self.moved(place)
        behind = value.behind(self.guard.measures)
        rank = (
            float(max(0, moved - self.most_moves)),
            float(behind > 0 and not self.warm),
            value.energy * (1.0 + value.behind(self.bar.measures)) + self.move_price * moved,
        )
        found = Candidate(place, mode, table, value, solver, moved, rank)
        with self._lock:
            if self._best is None or rank < self._best.rank:
                self._best = found
            if solver not in self._reached or rank < self._reached[solver]:
                self._reached[solver] = rank
                point = Point(self.clock.passed(), solver, value.energy, behind == 0)
                self.points.append(point)
                if self._progress is not None:
                    self._progress(point)
        return found

    def goal(
        self, makespan: float, z: float, below: float = 0.0, *, strict: bool = True, force: float = 1.0
    ) -> Goal:
        """What a walk minimises, m standing `below` (a share) under `makespan`.

        `strict` takes the limits of the best over all yardsticks, else of the guard; `force` scales the price of
        passing them.
        """
        bar, energy = self.bar if strict else self.guard, self.guard.measures.energy
        if self.n == 0 or energy <= 0:
            return Goal(0.0, 0.0, np.full(5, FREE), np.zeros(4), self.old, 0.0, self.n)
        m = bar.measures
        prices = [1 / max(m.makespan_s, 1e-9), 1 / max(m.mean_s, 1e-9), 2 / self.n, 2 / self.n]
        return Goal(
            makespan * (1.0 - below),
            z,
            bar.limits,
            np.array(prices) * energy * force,
            self.old,
            self.move_price,
            self.most_moves,
        )

    def free_goal(self, makespan: float) -> Goal:
        """F without tail, limits and moves, for placing jobs one by one."""
        return Goal(makespan, NO_TAIL, np.full(5, FREE), np.zeros(4), self.old, 0.0, self.n)

    def settled(self, place: Array) -> Array:
        """The best mode of each queue for F without limits."""
        mode = np.full(self.triples, BY_ARRIVAL, np.int64)
        for _ in range(2):
            table = self.table(place, mode)
            latency = table.end[table.batch] - self.data.arrived
            z = tail_of(latency)[1] if self.n else 0.0
            goal = Goal(0.0, z, np.full(5, FREE), np.zeros(4), self.old, 0.0, self.n)
            settle(self.data, place, goal, mode)
        return mode

    def state(self, place: Array, mode: Array, seed: int) -> State:
        """A plan for a walk to work on."""
        T = self.triples
        return State(
            place.copy(),
            mode.copy(),
            np.zeros(T, np.int64),
            np.zeros((T, self.n), np.int64),
            np.zeros((T, STATS)),
            np.array([seed | 1], np.uint64),
        )

    def filled(self, place: Array, turn: Array, mode: int, near: int) -> Array:
        """`place` with the jobs of `turn`, which have none (-1), put one by one where F grows least."""
        state = self.state(place, np.full(self.triples, mode, np.int64), 1)
        fill(self.data, state, self.free_goal(0.0), turn, near)
        return state.place

    def mode_of(self, plan: Candidate) -> Array:
        """The modes of a plan's queues; of a yardstick's own order the nearest that there is."""
        return plan.mode if plan.mode is not None else np.full(self.triples, BY_ARRIVAL, np.int64)
