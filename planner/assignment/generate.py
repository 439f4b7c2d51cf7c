"""Random problems of the types that the literature measures on: a, b, c, d and e.

    type  need of job j with agent i        cost                         capacity of agent i
    a     5..25                             10..50                       9 n/m + 0.4 R
    b     as a                              as a                         0.7 of a's
    c     as a                              as a                         0.8 sum_j need_ij / m
    d     1..100                            111 - need + (-10..10)       as c
    e     1 - 10 ln U                       1000 / need - 10 U           as c

R is the largest load when every job goes to its cheapest agent; U is uniform on (0, 1]. In d and e what is cheap is
long, so they are hard. a to d: Chu and Beasley, "A genetic algorithm for the generalised assignment problem",
Computers and Operations Research 24 (1997). e: Laguna et al., "Tabu search for the multilevel generalized
assignment problem", EJOR 82 (1995). All numbers are whole.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mpc_ray.planner.assignment.problem import Assignment, Floats
from mpc_ray.planner.problem import ProblemError

KINDS = ("a", "b", "c", "d", "e")


def generate(kind: str, agents: int, jobs: int, seed: int) -> Assignment:
    """The problem of that type, size and seed: the same at every call.

    Raises:
        ProblemError: there is no such type, or no agent or job.
    """
    if kind not in KINDS:
        raise ProblemError(f"there is no type {kind}: types are {', '.join(KINDS)}")
    if min(agents, jobs) < 1:
        raise ProblemError("a problem needs at least one agent and one job")
    draw = np.random.default_rng([KINDS.index(kind), agents, jobs, seed])
    costs, needs = _CELLS.get(kind, _plain)(draw, (agents, jobs))
    if kind in "ab":
        cheapest = costs.argmin(0)
        largest = np.bincount(cheapest, needs[cheapest, np.arange(jobs)], agents).max()
        room = np.full(agents, 9 * jobs / agents + 0.4 * largest)
        room *= 0.7 if kind == "b" else 1.0
    else:
        room = 0.8 * needs.sum(1) / agents
    return Assignment(costs, needs, np.floor(room))


def _plain(draw: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    return draw.integers(10, 51, shape).astype(float), draw.integers(5, 26, shape).astype(float)


def _correlated(draw: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    needs = draw.integers(1, 101, shape).astype(float)
    return 111 - needs + draw.integers(-10, 11, shape), needs


def _reciprocal(draw: np.random.Generator, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    needs = np.ceil(1 - 10 * np.log(1 - draw.random(shape)))
    # Beyond a need of 100, once in 20,000 numbers, the formula can fall below nothing.
    return np.maximum(1.0, np.round(1000 / needs - 10 * draw.random(shape))), needs


_CELLS: dict[str, Callable[[np.random.Generator, tuple[int, int]], tuple[Floats, Floats]]] = {
    "d": _correlated,
    "e": _reciprocal,
}
