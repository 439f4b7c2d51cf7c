"""What the default solver does beside annealing: bounds, optimality, infeasibility. In slices, one between two runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mpc_ray.planner.assignment import exact
from mpc_ray.planner.assignment.knapsacks import Rewards, climb, knapsacks, rises, start
from mpc_ray.planner.assignment.prices import Prices
from mpc_ray.planner.assignment.problem import SLACK, Floats
from mpc_ray.planner.assignment.search import Search
from mpc_ray.planner.problem import ProblemError

_FRUITLESS = 6  # runs without any assignment, after which CP-SAT is asked
_PATIENCE = 0.2  # of the time, the same
_STEPS = 300  # of the climb of the knapsack bound, at most
_SLICE = 10  # steps between looks at the clock
_CELLS = 1e10  # table cells of the climb, where moves are counted and not time
_SHARE = 0.15  # of the time for that climb
_CORE = 2.2  # pairs for each job up to which CP-SAT is tried on the core
_CORE_PAIRS = 3000  # and in all
_WORK = 2e-6  # CP-SAT's deterministic seconds for each move of the budget, where moves are counted


def proofs(search: Search, priced: Prices, runs: Callable[[], int], moves: int | None) -> Iterator[None]:
    """Yields where the next run may go ahead; ends when nothing is left to be proved.

    `runs()`: how many there were. `moves`: the budget where moves are counted, so that the same seed does the same.
    """
    problem = search.problem
    while search.agents is None:
        late = search.seconds is not None and search.passed() > _PATIENCE * search.seconds
        if runs() >= _FRUITLESS or late:
            _any(search, moves)
            break
        yield
    while search.agents is None:
        yield
    sacks = knapsacks(problem)
    if sacks is None:
        return
    rewards = start(problem, priced.unit)
    began, steps = search.passed(), _STEPS
    if search.seconds is None:
        steps = int(min(steps, max(_SLICE, _CELLS / max(sacks.cells, 1))))
    for _ in range(0, steps, _SLICE):
        target = (
            max(search.cost, rewards.bound + 1e-4 * abs(rewards.bound))
            if np.isfinite(rewards.bound)
            else search.cost
        )
        climb(sacks, rewards, _SLICE, target, search.halt)
        search.raise_bound(rewards.bound)
        late = search.seconds is not None and search.passed() - began > _SHARE * search.seconds
        if late or search.over():
            break
    yield
    tried = np.inf
    while not search.over():
        cost = search.cost
        size = _core(search, rewards, rises(sacks, rewards), tried, moves)
        tried = min(tried, size)
        while search.cost >= cost:
            yield


def _any(search: Search, moves: int | None) -> None:
    """Let CP-SAT find any assignment, or prove that there is none; without OR-Tools nothing is claimed."""
    if not exact.installed():
        return
    seconds, work = _limits(search, moves, 0.8)
    try:
        found = exact.cp_sat(
            search.problem, seconds=seconds, work=work, cheapest=False, on_start=search.on_stop
        )
    except ProblemError:  # digits beyond whole numbers
        return
    if found.agents is not None:
        search.offer(search.problem.cost_of(found.agents), found.agents)
    elif found.status == "infeasible":
        search.settle("infeasible", "CP-SAT searched all assignments: none keeps every capacity")


def _core(search: Search, rewards: Rewards, rise: Floats, tried: float, moves: int | None) -> float:
    """Prove that nothing better is left, or look for it, where few pairs may be in it; how many those are."""
    problem, cost = search.problem, search.cost
    unit = problem.cost_unit or 0.0
    pairs = rewards.bound + rise <= cost - unit + SLACK * max(1.0, cost)
    size = int(pairs.sum())
    if not pairs.any(axis=0).all():
        search.settle("optimal")
        return size
    if size > 0.9 * tried or size > min(_CORE * problem.jobs + 20, _CORE_PAIRS) or not exact.installed():
        return size
    seconds, work = _limits(search, moves, 0.5)
    try:
        found = exact.cp_sat(
            problem,
            seconds=seconds,
            work=work,
            pairs=pairs,
            below=cost,
            on_start=search.on_stop,
            on_better=search.offer,
        )
    except ProblemError:  # digits beyond whole numbers
        return size
    if found.agents is not None:
        search.offer(problem.cost_of(found.agents), found.agents)
    if found.status in ("optimal", "infeasible") and (found.agents is not None or search.cost <= cost):
        search.settle("optimal")
    return size


def _limits(search: Search, moves: int | None, share: float) -> tuple[float | None, float | None]:
    """Seconds, or deterministic work, that CP-SAT may take."""
    if search.seconds is not None:
        return max(share * search.left(), 0.01), None
    return None, max(0.1, _WORK * (moves or 0))
