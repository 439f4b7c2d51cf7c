"""Plan a workload: the one entry, with a deadline or a number of moves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mpc_ray.planner.jobs.arrays import Compiled, compile_workload
from mpc_ray.planner.jobs.clock import Clock, Lane
from mpc_ray.planner.jobs.earliest import by_arrival, earliest_completion
from mpc_ray.planner.jobs.loops.layout import Timetable
from mpc_ray.planner.jobs.schedule import Point, Schedule
from mpc_ray.planner.jobs.settings import JobSettings
from mpc_ray.planner.jobs.timetable import measures
from mpc_ray.planner.jobs.warm import ready, warm
from mpc_ray.planner.jobs.workload import Workload
from mpc_ray.planner.problem import ProblemError
from mpc_ray.planner.settings import section

Array = np.ndarray[Any, np.dtype[Any]]

DEADLINE_S = 0.2
LOADING_S = 0.5  # a deadline from which on the loops are loaded inside it, where they are not yet
CLOSING_S, CLOSING_JOB_S = 0.001, 2e-6  # what is kept of a deadline for ending walks and the answer
NOT_LOADED = (
    "the compiled loops were not loaded, so this is batch-aware earliest completion alone: "
    "call mpc_ray.planner.jobs.warm() once, before the first deadline"
)


def plan_jobs(
    workload: Workload,
    *,
    deadline_s: float | None = None,
    moves: int | None = None,
    seed: int = 0,
    solver: str = "portfolio",
    settings: JobSettings | None = None,
    previous: Mapping[str, str] | None = None,
    move_price: float = 0.3,
    most_moves: int | None = None,
    threads: int = 2,
    progress: Callable[[Point], None] | None = None,
) -> Schedule:
    """Choose a triple, a batch and a turn for each job.

    With `deadline_s` (0.2 where nothing is said) the best plan found by then; the clock runs from the call. With
    `moves` instead that many proposals, and the same seed gives the same plan. `solver` is `portfolio`, `earliest`,
    or a name of `portfolio.SOLVERS`; `settings` are those of the section `jobs` of the file that
    MPC_PLANNER_SETTINGS names, the defaults where there is none.

    `previous` (job → triple) starts from an earlier plan: each job that leaves its triple costs `move_price`·F/n, and
    at most `most_moves` do; jobs whose triple is gone, or that are new, go where they fit best.

    `progress` is called, from the solvers' threads, with each solver's improvements. What it raises ends the run.

    A job that can run nowhere is in `refused` with the reason, and the others are planned. Raises ProblemError where
    nothing can be (no triples, names given twice, numbers out of range). Where the compiled loops are not loaded and
    the deadline is short, the answer is batch-aware earliest completion, and a note in it says so.
    """
    clock = Clock(None)
    if moves is not None and deadline_s is not None:
        raise ProblemError("a plan has a deadline or a number of moves, not both")
    if moves is None:
        clock.seconds = DEADLINE_S if deadline_s is None else deadline_s
        if not clock.seconds > 0:
            raise ProblemError(f"deadline_s is {clock.seconds}, must be above 0")
    elif moves < 0:
        raise ProblemError(f"moves is {moves}, must not be below 0")
    compiled = compile_workload(workload)
    if solver == "earliest" or not compiled.job:
        return _earliest(compiled, clock, ())
    if not _loaded(clock):
        return _earliest(compiled, clock, (NOT_LOADED,))
    return _search(
        compiled, clock, moves, seed, solver, settings, previous, move_price, most_moves, threads, progress
    )


def _loaded(clock: Clock) -> bool:
    """Whether the loops can be used: they are there, or there is time enough to load them."""
    if ready():
        return True
    if clock.seconds is None:
        warm()
        return True
    if clock.seconds < LOADING_S:
        return False
    loading = threading.Thread(target=warm, daemon=True)
    loading.start()
    loading.join(0.8 * clock.left())
    return ready()


def _earliest(compiled: Compiled, clock: Clock, notes: tuple[str, ...]) -> Schedule:
    d = compiled.data
    if len(d.group):
        _, table = earliest_completion(d, by_arrival(d, compiled.asked), compiled.batch)
    else:
        whole, parts = np.zeros(0, np.int64), np.zeros(0)
        table = Timetable(whole, whole, whole, whole, whole, parts, parts)
    value = measures(d, table)
    seconds = clock.passed()
    history = (Point(seconds, "earliest", value.energy, True),)
    return Schedule(value, value, "earliest", seconds, 0, compiled.refused, notes, history, compiled, table)


def _search(
    compiled: Compiled,
    clock: Clock,
    moves: int | None,
    seed: int,
    solver: str,
    settings: JobSettings | None,
    previous: Mapping[str, str] | None,
    move_price: float,
    most_moves: int | None,
    threads: int,
    progress: Callable[[Point], None] | None,
) -> Schedule:
    # Here, not at the top: these load numba, which is not for a process that has not asked for it.
    from mpc_ray.planner.jobs.portfolio import SOLVERS, portfolio
    from mpc_ray.planner.jobs.search import Search

    chosen = section("jobs") if settings is None else settings
    if solver != "portfolio" and solver not in SOLVERS:
        raise ProblemError(
            f"there is no solver {solver}; there are portfolio, earliest, {', '.join(SOLVERS)}"
        )
    old = None if previous is None else _old(compiled, previous)
    search = Search(compiled, clock, progress, old, move_price, most_moves)
    until = clock.passed() + clock.left() - (CLOSING_S + CLOSING_JOB_S * search.n)
    if solver == "portfolio":
        portfolio(search, seed, until, moves, threads, chosen)
    else:
        SOLVERS[solver](search, Lane(clock, seed, until=until, moves=moves), chosen)
    best = search.best
    history = tuple(sorted(search.points, key=lambda point: point.seconds))
    return Schedule(
        best.measures,
        search.guard.measures,
        best.solver,
        clock.passed(),
        best.moved,
        compiled.refused,
        (),
        history,
        compiled,
        best.table,
    )


def _old(compiled: Compiled, previous: Mapping[str, str]) -> Array:
    """The triple of each job in the previous plan; -1 where it had none, or may no longer run there."""
    number = {name: t for t, name in enumerate(compiled.triple)}
    old = np.array([number.get(previous.get(name, ""), -1) for name in compiled.job], np.int64)
    allowed = compiled.data.allowed[compiled.data.klass, old]
    old[(old >= 0) & ~allowed] = -1
    return old
