"""Prices of capacity: the Lagrangian of the capacities, and a proof that there is too little of it.

With a price u_i >= 0 for each unit of agent i's capacity, no assignment costs less than

    L(u) = sum_j min_i (cost_ij + u_i need_ij) - sum_i u_i capacity_i

The largest L(u) is the bound of the linear relaxation. It is climbed by subgradients, load_i - capacity_i of the
cheapest agents, with Polyak's step theta (target - L) / |g|^2 (B. Polyak, 1969; for assignment: M. Fisher,
Management Science 27, 1981). What a job costs beyond its cheapest agent, at those prices, says which agents are
worth trying: most jobs of a good assignment are with one of the three or four cheapest.

The same with all costs nought: where any L(u) is above nought, no assignment fits (Farkas' lemma).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpc_ray.planner.assignment.problem import Assignment, Floats
from mpc_ray.planner.compiled import compiled

STEPS = 1000
_STALE = 10  # steps without a better bound, after which theta shrinks


@dataclass(frozen=True)
class Prices:
    """`unit` [agents]: price of a unit of capacity; `bound`: no assignment costs less."""

    unit: Floats
    bound: float


def prices(problem: Assignment, steps: int = STEPS) -> Prices:
    """Prices near the best, and their bound. Every job must fit some agent."""
    unit = np.zeros(problem.agents)
    bound = _climb(*_by_job(problem, problem.costs), problem.capacities, unit, steps)
    return Prices(unit, bound)


def reduced_costs(problem: Assignment, unit: Floats) -> Floats:
    """[agents, jobs]: cost with priced need, above that of the job's cheapest agent; infinite where it does not fit."""
    priced = np.where(problem.allowed, problem.costs + unit[:, None] * problem.needs, np.inf)
    return np.asarray(priced - priced.min(axis=0), np.float64)


def misfit(problem: Assignment) -> str:
    """Why no assignment can exist, where a simple argument says so; "" where none does.

    Either a job fits no agent, or the capacities are too small together: with some prices even the cheapest agents
    of all jobs take more than what all capacity is worth.
    """
    alone = np.flatnonzero(~problem.allowed.any(axis=0))
    if len(alone):
        job = int(alone[0])
        agent = int((problem.needs[:, job] - problem.capacities).argmin())
        more = f", nor do {len(alone) - 1} other jobs" if len(alone) > 1 else ""
        return (
            f"job {job} fits no agent{more}: agent {agent} lacks least, with a capacity of "
            f"{problem.capacities[agent]:g} for a need of {problem.needs[agent, job]:g}"
        )
    least = np.where(problem.allowed, problem.needs, np.inf).min(axis=0).sum()
    room = problem.room.sum()
    if least > room * (1 + 1e-9):
        return (
            f"all jobs need {least:g} at least, and all capacities together are {problem.capacities.sum():g}"
        )
    weight = 1 / np.maximum(problem.needs.mean(axis=1), 1e-300)
    lack = _climb(*_by_job(problem, np.zeros_like(problem.costs)), problem.room, weight, STEPS)
    if lack > 1e-6 * (weight @ problem.room):
        shown = ", ".join(f"{x:.3g}" for x in weight[:8]) + (", ..." if len(weight) > 8 else "")
        return f"the capacities are too small together: weighted by {shown}, the jobs need more than there is"
    return ""


def _by_job(problem: Assignment, costs: Floats) -> tuple[Floats, Floats]:
    """Costs and needs as [jobs, agents]; what does not fit costs infinitely much."""
    return np.ascontiguousarray(np.where(problem.allowed, costs, np.inf).T), np.ascontiguousarray(
        problem.needs.T
    )


@compiled
def _climb(cost: Floats, need: Floats, room: Floats, unit: Floats, steps: int) -> float:
    """Polyak's steps from the prices in `unit`, which become the best found; their bound."""
    jobs, agents = cost.shape
    price, best = unit.copy(), -np.inf
    load = np.empty(agents)
    theta, stale, scale = 1.0, 0, 0.0
    for _ in range(steps):
        load[:] = 0.0
        value = 0.0
        for j in range(jobs):
            cheapest, least = 0, np.inf
            for i in range(agents):
                z = cost[j, i] + price[i] * need[j, i]
                if z < least:
                    cheapest, least = i, z
            value += least
            load[cheapest] += need[j, cheapest]
        scale = max(scale, abs(value))
        for i in range(agents):
            value -= price[i] * room[i]
        if value > best + 1e-12 * scale:
            best, stale = value, 0
            unit[:] = price
        else:
            stale += 1
            if stale >= _STALE:  # too long a step: back to the best prices with a shorter one
                theta, stale = 0.7 * theta, 0
                price[:] = unit
                continue
        norm = 0.0
        for i in range(agents):
            norm += (load[i] - room[i]) ** 2
        if norm <= 1e-18 * (room @ room):
            break
        # The optimum is not known: aim a hundredth above the best, of the size of the terms.
        step = theta * (best + 0.01 * scale - value) / norm
        for i in range(agents):
            price[i] = max(0.0, price[i] + step * (load[i] - room[i]))
    return best
