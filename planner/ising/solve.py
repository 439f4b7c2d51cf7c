"""Cut a graph: the one entry, with a clock or a number of moves, one solver or the portfolio."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import numpy as np

from mpc_ray.planner.ising.annealing import annealing, merging
from mpc_ray.planner.ising.bifurcation import ballistic, discrete, generalised
from mpc_ray.planner.ising.control import descent
from mpc_ray.planner.ising.problem import Array, Graph, from_edges
from mpc_ray.planner.ising.quantum import quantum_annealing
from mpc_ray.planner.ising.run import Point, Run, Solver
from mpc_ray.planner.ising.settings import MaxcutSettings
from mpc_ray.planner.ising.tempering import tempering
from mpc_ray.planner.problem import ProblemError

SOLVERS: dict[str, Solver] = {
    "tempering": tempering,
    "annealing": annealing,
    "merging": merging,
    "ballistic": ballistic,
    "discrete": discrete,
    "generalised": generalised,
    "quantum-annealing": quantum_annealing,
    "descent": descent,
}
PORTFOLIO = "portfolio"


@dataclass(frozen=True)
class Cut:
    """An answer: spins ±1 by vertex, the weight of the edges between the halves, who found it, and the way there."""

    cut: int
    spins: Array
    solver: str
    seconds: float
    history: tuple[Point, ...]


def maxcut(
    graph: Graph,
    *,
    seconds: float | None = None,
    moves: int | None = None,
    seed: int = 0,
    solver: str = PORTFOLIO,
    threads: int = 2,
    settings: MaxcutSettings | None = None,
    progress: Callable[[Point], None] | None = None,
) -> Cut:
    """The best cut found in `seconds` (10 where nothing is said), or with `moves` proposals of single spins.

    With `moves` the same seed gives the same cut. The loops are loaded, and if need be compiled, before the clock
    starts. `progress` is called from the solvers' threads with each improvement; what it raises ends the run.

    Raises ProblemError: no such solver, a budget that is none, weights that add up to 2^30.
    """
    if moves is not None and seconds is not None:
        raise ProblemError("a cut has a number of seconds or of moves, not both")
    if moves is not None and moves < 1:
        raise ProblemError(f"moves is {moves}, must be at least 1")
    allowed = 10.0 if seconds is None else seconds
    if moves is None and not (isfinite(allowed) and allowed > 0):
        raise ProblemError(f"seconds is {allowed}, must be a number above 0")
    if solver != PORTFOLIO and solver not in SOLVERS:
        raise ProblemError(f"there is no solver {solver}; there are {PORTFOLIO}, {', '.join(SOLVERS)}")
    chosen = MaxcutSettings() if settings is None else settings
    names = lanes(graph.vertices, threads, chosen) if solver == PORTFOLIO else [solver] * max(1, threads)
    seeds = np.random.SeedSequence(seed).generate_state(len(names), np.uint64).tolist()
    warm()
    began = time.perf_counter()
    until = float("inf") if moves is not None else began + allowed
    each = None if moves is None else -(-moves // len(names))
    runs = [
        Run(graph, name, int(number), until, each, began, progress)
        for name, number in zip(names, seeds, strict=True)
    ]
    _side_by_side(runs, chosen)
    best = min(runs, key=lambda run: run.energy)
    points = sorted((point for run in runs for point in run.points), key=lambda point: point.seconds)
    return Cut(graph.cut(best.best), best.best, best.name, time.perf_counter() - began, tuple(points))


def lanes(vertices: int, threads: int, settings: MaxcutSettings) -> list[str]:
    """What the portfolio runs: on small problems one thread tempers, and every other anneals and merges."""
    wanted = max(1, threads)
    return ["tempering" if k == 0 and vertices <= settings.small else "merging" for k in range(wanted)]


def _side_by_side(runs: list[Run], settings: MaxcutSettings) -> None:
    """One thread for each run. The first error of any is raised, after all have ended."""
    failed: list[BaseException] = []

    def body(run: Run) -> None:
        try:
            SOLVERS[run.name](run, settings)
        except BaseException as error:  # noqa: BLE001 - raised anew in the caller's thread
            failed.append(error)

    others = [threading.Thread(target=body, args=(run,), daemon=True) for run in runs[1:]]
    for thread in others:
        thread.start()
    body(runs[0])
    for thread in others:
        thread.join()
    if failed:
        raise failed[0]


_warm = threading.Lock()
_warmed = False


def warm() -> None:
    """Load, or compile, every loop for both widths of numbers: a second once a process, a minute once a machine."""
    global _warmed  # noqa: PLW0603 - once a process
    with _warm:
        if _warmed:
            return
        ring = np.arange(6)
        for weight in (1, 1 << 13):
            graph = from_edges(6, ring, (ring + 1) % 6, np.full(6, weight))
            small = MaxcutSettings(sweeps=100, merged=2, rounds=20)
            for name, solve in SOLVERS.items():
                solve(Run(graph, name, 0, moves=200_000), small)
        _warmed = True
