"""The solvers by name, and the one function that runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from mpc_ray.planner.assignment import exact
from mpc_ray.planner.assignment.annealing import Annealing
from mpc_ray.planner.assignment.descent import descend, overload_price
from mpc_ray.planner.assignment.knapsacks import climb, knapsacks, rises, start
from mpc_ray.planner.assignment.potts import STEPS, bifurcate
from mpc_ray.planner.assignment.prices import Prices, misfit, prices
from mpc_ray.planner.assignment.problem import Agents, Answer, Assignment
from mpc_ray.planner.assignment.search import Progress, Search, merged, run
from mpc_ray.planner.assignment.settings import GapSettings
from mpc_ray.planner.assignment.state import Table, seeds, state, table
from mpc_ray.planner.draws import below
from mpc_ray.planner.problem import ProblemError

DEFAULT = "annealing"
THREADS = 2


def solve(
    problem: Assignment,
    *,
    seconds: float = 10.0,
    moves: int | None = None,
    seed: int = 0,
    solver: str = DEFAULT,
    threads: int = THREADS,
    settings: GapSettings | None = None,
    progress: Progress | None = None,
) -> Answer:
    """Assign every job within `seconds`, or with a budget of `moves` instead of a clock.

    Loops are compiled before the clock starts. With `moves` the same problem, seed and number of threads give the
    same assignment; `SOLVERS` says what a move of each solver is. A solver stops early once it has proved that
    nothing better exists.

    Args:
        progress: called with seconds, best cost and bound (None where there is none yet) as they change, in any thread.

    Raises:
        ProblemError: no such solver, a budget or seed that makes no sense, OR-Tools missing for cp-sat.
    """
    if solver not in SOLVERS:
        raise ProblemError(f"there is no solver {solver!r}: solvers are {', '.join(SOLVERS)}")
    if moves is None and not (np.isfinite(seconds) and seconds > 0):
        raise ProblemError(f"seconds are {seconds:g}, must be above 0")
    if (moves is not None and moves < 1) or threads < 1 or seed < 0:
        raise ProblemError(
            f"moves ({moves}) and threads ({threads}) must be at least 1, and the seed ({seed}) not below 0"
        )
    warm()
    search = Search(problem, None if moves is not None else seconds, progress)
    reason = misfit(problem)
    if reason:
        search.settle("infeasible", reason)
        return search.answer(solver)
    return SOLVERS[solver](search, moves, seed, threads, settings or GapSettings()).answer(solver)


def _priced(search: Search) -> Prices:
    found = prices(search.problem)
    search.raise_bound(found.bound)
    return found


def _searches(search: Search, moves: int | None, threads: int) -> list[Search]:
    """One search for all threads; where moves are counted one each, so that no thread depends on another's haste."""
    if moves is None:
        return [search] * threads
    others = [Search(search.problem, None) for _ in range(threads - 1)]
    for other in others:
        other.raise_bound(search.bound)
    return [search, *others]


def _shares(moves: int | None, threads: int) -> list[int | None]:
    if moves is None:
        return [None] * threads
    return [(moves + k) // threads for k in range(threads)]


def _annealing(search: Search, moves: int | None, seed: int, threads: int, settings: GapSettings) -> Search:
    priced = _priced(search)
    searches = _searches(search, moves, threads)
    lanes = [
        Annealing(own, priced, settings, state_, share, proving=k == threads - 1)
        for k, (own, state_, share) in enumerate(
            zip(searches, seeds(seed, threads), _shares(moves, threads), strict=True)
        )
    ]
    run(lanes, searches)
    return merged(searches)


def _greedy(search: Search, moves: int | None, seed: int, threads: int, settings: GapSettings) -> Search:
    """Jobs by regret at the prices, each to the cheapest agent with room; then the descent. Done once."""
    del moves, seed, threads
    t = table(search.problem, _priced(search).unit, search.problem.agents)
    order = np.sort(t.extra, axis=1)
    regret = order[:, 1] if t.extra.shape[1] > 1 else np.zeros(len(order))
    left = t.room.copy()
    agents = np.empty(search.problem.jobs, np.int64)
    for j in np.argsort(-regret, kind="stable"):
        fits = t.need[j] <= left
        # Where none has room the cheapest takes it all the same, and the descent has to find a way out.
        cost = np.where(fits, t.extra[j], np.inf) if fits.any() else t.extra[j]
        agents[j] = cost.argmin()
        left[agents[j]] -= t.need[j, agents[j]]
    _descend(search, t, agents)
    return search


Start = Callable[[Table, NDArray[np.uint64], NDArray[np.int64]], Agents]


def _random_start(t: Table, seed: NDArray[np.uint64], halt: NDArray[np.int64]) -> Agents:
    """Each job with any of the agents that it fits."""
    del halt
    return np.array([_pick(np.flatnonzero(np.isfinite(row)), seed) for row in t.extra], np.int64)


def _pick(values: NDArray[np.int64], seed: NDArray[np.uint64]) -> int:
    return int(values[below(seed, len(values))])


def _potts_start(t: Table, seed: NDArray[np.uint64], halt: NDArray[np.int64]) -> Agents:
    return bifurcate(t, STEPS, seed, halt)


def _starts(
    begin: Start, search: Search, moves: int | None, seed: int, threads: int, settings: GapSettings
) -> Search:
    """Starts of one kind, each followed by the descent, to the clock or as many as there are moves."""
    priced = _priced(search)
    searches = _searches(search, moves, threads)
    t = table(search.problem, priced.unit, settings.choices)

    def lane(own: Search, draws: NDArray[np.uint64], count: int | None) -> None:
        made = 0
        while not own.over() and (count is None or made < count):
            _descend(own, t, begin(t, draws, own.halt))
            made += 1

    run(
        [
            partial(lane, own, draws, share)
            for own, draws, share in zip(searches, seeds(seed, threads), _shares(moves, threads), strict=True)
        ],
        searches,
    )
    return merged(searches)


def _descend(search: Search, t: Table, agents: Agents) -> None:
    s = state(t, agents)
    if np.isfinite(descend(t, s, overload_price(t), search.halt)) and not search.problem.violations(s.agent):
        search.offer(search.problem.cost_of(s.agent), s.agent)


def _cp_sat(search: Search, moves: int | None, seed: int, threads: int, settings: GapSettings) -> Search:
    del settings

    def lane() -> None:
        found = exact.cp_sat(
            search.problem,
            seconds=None if moves is not None else search.left(),
            work=None if moves is None else moves * 1e-3,
            seed=seed,
            workers=1 if moves is not None else threads,
            on_start=search.on_stop,
            on_better=search.offer,
        )
        if found.agents is not None:
            search.offer(search.problem.cost_of(found.agents), found.agents)
            search.raise_bound(found.bound)
        if found.status in ("optimal", "infeasible"):
            reason = "CP-SAT searched all assignments: none keeps every capacity"
            search.settle(found.status, reason if found.status == "infeasible" else "")

    run([lane], [search])
    return search


SOLVERS: Mapping[str, Callable[[Search, int | None, int, int, GapSettings], Search]] = {
    # a move: a proposal of the walk
    "annealing": _annealing,
    # one construction, whatever the budget
    "prices-greedy": _greedy,
    # the control; a move: a start with its descent
    "descent": partial(_starts, _random_start),
    # a move: a run of bifurcation with the same descent
    "potts-sb": partial(_starts, _potts_start),
    # a move: a thousandth of a second of CP-SAT's deterministic time
    "cp-sat": _cp_sat,
}


@cache
def warm() -> None:
    """Compile every loop, or load it from the cache on disk, and import OR-Tools; once a process."""
    tiny = Assignment(np.array([[1.0, 2.0], [2.0, 1.0]]), np.ones((2, 2)), np.array([1.0, 2.0]))
    misfit(tiny)
    sacks = knapsacks(tiny)
    assert sacks is not None
    rewards = start(tiny, prices(tiny).unit)
    climb(sacks, rewards, 1, 3.0, np.zeros(1, np.int64))
    rises(sacks, rewards)
    for name in ("annealing", "prices-greedy", "descent", "potts-sb"):
        search = Search(tiny, None)
        SOLVERS[name](search, 16, 0, 1, GapSettings(proposals=20))
    if exact.installed():
        exact.cp_sat(tiny, seconds=1.0)
