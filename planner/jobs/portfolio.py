"""Which solver gets how much of the time, by size; and all solvers by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mpc_ray.planner.jobs.clock import Lane
from mpc_ray.planner.jobs.exact import exact
from mpc_ray.planner.jobs.native import annealing, control, descent, greedy, tempering
from mpc_ray.planner.jobs.potts import bifurcation
from mpc_ray.planner.jobs.search import Search
from mpc_ray.planner.jobs.settings import JobSettings

Solver = Callable[[Search, Lane, JobSettings], None]

SHORT_S = 0.03  # below that one solver gets all: two threads cost more than they bring
GREEDY_S = 150e-6  # a job that a lane must have for a greedy plan first: half of it at most is spent on that

SOLVERS: dict[str, Solver] = {
    "greedy": greedy,
    "descent": descent,
    "annealing": annealing,
    "tempering": tempering,
    "bifurcation": bifurcation,
    "random": control,
    "exact": exact,
}


def portfolio(
    search: Search, seed: int, until: float, moves: int | None, threads: int, settings: JobSettings
) -> None:
    """Run the solvers for this size side by side until the clock, or the moves, are used up."""
    seconds = until - search.clock.passed()
    pairs = lanes(search.n, seconds, settings, warm=search.warm)
    if threads == 1 or (os.cpu_count() or 1) == 1:
        pairs = pairs[:1]
    shares = [None if moves is None else moves // len(pairs)] * len(pairs)
    work = [
        (name, Lane(search.clock, seed * 7919 + number, until=until, moves=share, strict=strict))
        for number, ((name, strict), share) in enumerate(zip(pairs, shares, strict=True))
    ]

    # The last lane is greedy first. A previous plan is not given up for one that is made anew.
    greedily = work[-1] if not search.warm and seconds > GREEDY_S * search.n else None

    def run(one: tuple[str, Lane]) -> None:
        if one is greedily:
            greedy(search, one[1], settings)
        SOLVERS[one[0]](search, one[1], settings)

    if (
        moves is not None
    ):  # one after the other: what a lane starts from must not depend on how fast another is
        for one in work:
            run(one)
        return
    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(run, one) for one in work]:
            done.result()


def lanes(n: int, seconds: float, s: JobSettings, *, warm: bool = False) -> list[tuple[str, bool]]:
    """Solvers to run side by side, the more important first, and whether each has the strict limits.

    Where the best start is known (`warm`) a cool walk mends it; from nothing, descent is as good as annealing on some
    workloads and better or worse by 3 % on others, so that both run.
    """
    if n <= s.small and seconds >= SHORT_S:
        return [("annealing", True), ("bifurcation", False)]
    first = "annealing" if n < s.large and (warm or n <= s.small) else "descent"
    return [(first, True)] if seconds < SHORT_S else [(first, True), ("annealing", False)]
