"""Which solver gets how much of the time, by size; and all solvers by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from mpc_ray.planner.jobs.clock import Lane
from mpc_ray.planner.jobs.native import Walking, annealing, control, descent, greedy, tempering
from mpc_ray.planner.jobs.search import Search

Solver = Callable[[Search, Lane, Walking], None]

SOLVERS: dict[str, Solver] = {
    "greedy": greedy,
    "descent": descent,
    "annealing": annealing,
    "tempering": tempering,
    "random": control,
}


@dataclass(frozen=True)
class Settings:
    """What `plan tune` may set. `small` and `medium` are numbers of jobs up to which a size counts as such."""

    small: int = 50
    medium: int = 500
    walking: Walking = field(default_factory=Walking)


def portfolio(
    search: Search, seed: int, until: float, moves: int | None, threads: int, settings: Settings
) -> None:
    """Run the solvers for this size side by side until the clock, or the moves, are used up."""
    pairs = lanes(search.n, until - search.clock.passed(), settings)
    if threads == 1 or (os.cpu_count() or 1) == 1:
        pairs = pairs[:1]
    shares = [None if moves is None else moves // len(pairs)] * len(pairs)
    work = [
        (name, Lane(search.clock, seed * 7919 + number, until=until, moves=share, strict=strict))
        for number, ((name, strict), share) in enumerate(zip(pairs, shares, strict=True))
    ]

    def run(name: str, lane: Lane) -> None:
        SOLVERS[name](search, lane, settings.walking)

    if moves is not None:
        for (
            one
        ) in work:  # one after the other: what a lane starts from must not depend on how fast another is
            run(*one)
        return
    with ThreadPoolExecutor(len(work)) as pool:
        for done in [pool.submit(run, *one) for one in work]:
            done.result()


def lanes(n: int, seconds: float, settings: Settings) -> list[tuple[str, bool]]:
    """Solvers to run side by side, the more important first, and whether each has the strict limits."""
    if seconds < 0.03:
        return [("annealing" if n <= settings.small else "descent", True)]
    if n <= settings.medium:
        return [("annealing", True), ("annealing", False)]
    return [("descent", True), ("annealing", False)]
