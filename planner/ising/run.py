"""One solver's run on one graph: its random numbers, its budget, and the best that it found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc_ray.planner.ising.loops.layout import LANES, TABLE
from mpc_ray.planner.ising.problem import Array, Graph
from mpc_ray.planner.problem import ProblemError

NARROW = 1 << 13  # fields up to this are kept in 16 bits: products of field and spin, doubled, fit too
WIDEST = 1 << 30  # energies are kept in 32 bits


@dataclass(frozen=True)
class Point:
    """After `seconds` of this run the best cut was `cut`."""

    seconds: float
    solver: str
    cut: int


@dataclass
class Run:
    """What a solver gets. It asks `more()` before each piece of work and says `spent(...)` after it.

    With `moves` the budget is that many proposals of single spins and no clock is read, so that the same seed gives the
    same answer; else it ends at `until` (`time.perf_counter`).
    """

    graph: Graph
    name: str
    seed: int
    until: float = float("inf")
    moves: int | None = None
    began: float = field(default_factory=time.perf_counter)
    progress: Callable[[Point], None] | None = None
    best: Array = field(init=False)
    energy: int = field(init=False)
    used: int = 0
    points: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        first, others, couplings = self.graph.rows
        if int(np.abs(couplings.astype(np.int64)).sum()) // 2 >= WIDEST:
            raise ProblemError(
                "the weights of all edges add up to 2^30 or more: divide them by a common factor"
            )
        self.whole = np.int16 if self.graph.largest_field <= NARROW else np.int32
        self.rows = (first, others, couplings.astype(self.whole))
        self.rng = np.random.default_rng(self.seed)
        self.best = np.ones(self.graph.vertices, np.int8)
        self.energy = self.energy_of(self.best)

    def energy_of(self, spins: Array) -> int:
        """E of spins, exactly."""
        return self.graph.total - 2 * self.graph.cut(spins)

    def more(self, share: float = 1.0) -> bool:
        """Whether the budget, or this share of it, is not used up."""
        if self.moves is not None:
            return self.used < share * self.moves
        return time.perf_counter() < self.began + share * (self.until - self.began)

    def share(self) -> float:
        """How much of the budget is used up, from 0 to 1."""
        if self.moves is not None:
            return min(1.0, self.used / max(1, self.moves))
        return min(1.0, (time.perf_counter() - self.began) / max(1e-9, self.until - self.began))

    def spent(self, sweeps: int, vertices: int | None = None) -> None:
        """Say what was done: sweeps of all copies."""
        self.used += sweeps * LANES * (self.graph.vertices if vertices is None else vertices)

    def found(self, spins: Array, energy: int) -> None:
        """A solution: kept if it is the best."""
        if energy < self.energy:
            self.best, self.energy = spins.astype(np.int8, copy=True), int(energy)
            point = Point(time.perf_counter() - self.began, self.name, (self.graph.total - self.energy) // 2)
            self.points.append(point)
            if self.progress is not None:
                self.progress(point)


@dataclass
class Lanes:
    """32 copies of a problem, and the generator that moves them. `rows` as in `Graph.rows`, of one type of number."""

    rows: tuple[Array, Array, Array]
    s: Array
    h: Array
    energy: Array
    state: Array
    table: Array

    @classmethod
    def scattered(cls, rows: tuple[Array, Array, Array], rng: np.random.Generator) -> Lanes:
        """Random spins."""
        from mpc_ray.planner.ising.loops.lanes import scatter

        made = cls._empty(rows, rng)
        scatter(made.s, made.state)
        return made._ready()

    @classmethod
    def holding(cls, rows: tuple[Array, Array, Array], spins: Array, rng: np.random.Generator) -> Lanes:
        """Given spins, [solutions, vertices], in turn."""
        made = cls._empty(rows, rng)
        made.s[:] = spins[np.arange(LANES) % len(spins)].T
        return made._ready()

    @classmethod
    def _empty(cls, rows: tuple[Array, Array, Array], rng: np.random.Generator) -> Lanes:
        shape, kind = (len(rows[0]) - 1, LANES), rows[2].dtype
        state = rng.integers(1, 1 << 63, 1).astype(np.uint64)
        table = np.empty(TABLE + LANES, np.float32)
        return cls(
            rows, np.zeros(shape, kind), np.zeros(shape, kind), np.zeros(LANES, np.int32), state, table
        )

    def _ready(self) -> Lanes:
        from mpc_ray.planner.ising.loops.lanes import fields, fill

        fill(self.table, self.state)
        fields(*self.rows, self.s, self.h, self.energy)
        return self

    @property
    def vertices(self) -> int:
        """Of the problem."""
        return len(self.rows[0]) - 1


def descended(rows: tuple[Array, Array, Array], spins: Array) -> Array:
    """Spins after the descent by single flips."""
    from mpc_ray.planner.ising.loops.lanes import descend

    one = spins.astype(np.int8, copy=True)
    descend(*rows, one, np.empty(len(one), np.int64))
    return one


Solver = Callable[[Run, Any], None]
