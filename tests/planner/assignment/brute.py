"""The optimum by trying everything, for problems of a few jobs."""

from __future__ import annotations

from itertools import product

import numpy as np

from mpc_ray.planner.assignment import Assignment


def optimum(problem: Assignment, fixed: tuple[int, int] | None = None) -> float:
    """The least cost, infinite where nothing fits; `fixed` (agent, job): among assignments with that pair."""
    least = np.inf
    for agents in product(range(problem.agents), repeat=problem.jobs):
        if fixed is not None and agents[fixed[1]] != fixed[0]:
            continue
        chosen = np.array(agents)
        if not problem.violations(chosen):
            least = min(least, problem.cost_of(chosen))
    return float(least)


def small(seed: int, agents: int = 3, jobs: int = 6, tightness: float = 0.9) -> Assignment:
    """A random problem of whole numbers, sometimes without any assignment."""
    draw = np.random.default_rng(seed)
    needs = draw.integers(1, 12, (agents, jobs))
    room = np.maximum(1, (tightness * needs.sum(1) / agents).round())
    return Assignment(draw.integers(1, 30, (agents, jobs)).astype(float), needs.astype(float), room)
