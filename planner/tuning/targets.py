"""The kinds of problem that can be tuned: how one is made from its family, size and seed, and what a run is worth.

    target   family                                    size                 what is minimised
    gap      a to e                                    agents x jobs        cost
    jobs     mixed or cross, then :groups              triples x jobs       F of the plan
    maxcut   random, planar, torus; then -signed       vertices             edges less the cut, and 1

All runs use one thread, so that one core is one trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from mpc_ray.planner.problem import ProblemError
from mpc_ray.planner.settings import made, section_class

_FAILED = 1.0  # log of how much dearer than the bound a run counts that found nothing


class Spec(Protocol):
    """What names a problem (`sweep.ProblemSpec`)."""

    @property
    def family(self) -> str: ...
    @property
    def size(self) -> str: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class Kind:
    """A kind of problem: check family and size, make a problem, run it (problem, settings, seconds, moves, seed)."""

    check: Callable[[str, str], None]
    make: Callable[[str, str, int], Any]
    run: Callable[[Any, Any, float | None, int | None, int], float]


def log_value(
    target: str, spec: Spec, settings: Mapping[str, Any], seed: int, seconds: float | None, moves: int | None
) -> float:
    """The natural logarithm of what a run reaches: of two settings, the lower is the better one."""
    chosen = made(section_class(target), settings)
    return TARGETS[target].run(
        problem(target, spec.family, spec.size, spec.seed), chosen, seconds, moves, seed
    )


@lru_cache(maxsize=64)
def problem(target: str, family: str, size: str, seed: int) -> Any:
    """The problem that these name; kept, since trials see the same ones."""
    return TARGETS[target].make(family, size, seed)


def _sides(size: str, what: str) -> tuple[int, int]:
    first, _, second = size.partition("x")
    if not (first.isdigit() and second.isdigit() and int(first) and int(second)):
        raise ProblemError(f"size is {size!r}, must be {what}, such as 20x200")
    return int(first), int(second)


def _check_gap(family: str, size: str) -> None:
    from mpc_ray.planner.assignment import KINDS

    _sides(size, "agents x jobs")
    if family not in KINDS:
        raise ProblemError(f"family is {family!r}, must be one of {', '.join(KINDS)}")


def _make_gap(family: str, size: str, seed: int) -> Any:
    from mpc_ray.planner.assignment import generate

    return generate(family, *_sides(size, "agents x jobs"), seed)


def _run_gap(gap: Any, settings: Any, seconds: float | None, moves: int | None, seed: int) -> float:
    from mpc_ray.planner.assignment import solve

    answer = solve(gap, seconds=seconds or 1.0, moves=moves, seed=seed, threads=1, settings=settings)
    if answer.cost is None:
        return math.log(max(answer.bound or 1.0, 1.0)) + _FAILED
    return math.log(max(answer.cost, 1e-12))


def _recipe(family: str, size: str, seed: int) -> Any:
    from mpc_ray.planner.jobs.generate import Recipe

    name, _, groups = family.partition(":")
    triples, jobs = _sides(size, "triples x jobs")
    if groups and not groups.isdigit():
        raise ProblemError(f"family is {family!r}, must be such as mixed:12, with a number of groups")
    recipe = Recipe(jobs=jobs, triples=triples, seed=seed, family=name, groups=int(groups or 30))
    recipe.check()
    return recipe


def _check_jobs(family: str, size: str) -> None:
    _recipe(family, size, 0)


def _make_jobs(family: str, size: str, seed: int) -> Any:
    from mpc_ray.planner.jobs.generate import generate

    return generate(_recipe(family, size, seed))


def _run_jobs(workload: Any, settings: Any, seconds: float | None, moves: int | None, seed: int) -> float:
    from mpc_ray.planner.jobs.solve import plan_jobs
    from mpc_ray.planner.jobs.warm import warm

    warm()
    plan = plan_jobs(workload, deadline_s=seconds, moves=moves, seed=seed, threads=1, settings=settings)
    return math.log(max(plan.measures.energy, 1e-12))


def _check_maxcut(family: str, size: str) -> None:
    if family.removesuffix("-signed") not in ("random", "planar", "torus"):
        raise ProblemError(
            f"family is {family!r}, must be random, planar or torus, or one of them and -signed"
        )
    if not (size.isdigit() and int(size) >= 16):
        raise ProblemError(f"size is {size!r}, must be a number of vertices from 16")


def _make_maxcut(family: str, size: str, seed: int) -> Any:
    from mpc_ray.planner.ising.generate import planar_union, random_graph, torus

    vertices, signed = int(size), family.endswith("-signed")
    kind = family.removesuffix("-signed")
    if kind == "random":
        return random_graph(vertices, 10 * vertices, seed, signed=signed)
    if kind == "planar":
        return planar_union(vertices, seed, signed=signed)
    rows = max(3, math.isqrt(vertices))
    return torus(rows, max(3, vertices // rows), seed, signed=True)


def _run_maxcut(graph: Any, settings: Any, seconds: float | None, moves: int | None, seed: int) -> float:
    from mpc_ray.planner.ising import maxcut

    cut = maxcut(graph, seconds=seconds, moves=moves, seed=seed, threads=1, settings=settings).cut
    # Weights are 1 and -1, so no cut is above the number of edges.
    return math.log(len(graph.heads) - cut + 1)


TARGETS: Mapping[str, Kind] = {
    "gap": Kind(_check_gap, _make_gap, _run_gap),
    "jobs": Kind(_check_jobs, _make_jobs, _run_jobs),
    "maxcut": Kind(_check_maxcut, _make_maxcut, _run_maxcut),
}
