"""Generalised assignment: each job goes to one agent, no agent beyond its capacity, at the least cost.

    minimise  sum_j cost[agent_j, j]    subject to  sum_{j: agent_j = i} need[i, j] <= capacity[i]  for each agent i

Costs and needs depend on the agent. The problem is NP-hard, and so is the question whether there is any assignment.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import floor, fsum, gcd, log10
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpc_ray.planner.problem import ProblemError

Floats = NDArray[np.float64]
Agents = NDArray[np.int64]
Status = Literal["optimal", "feasible", "infeasible", "none found"]

MAX_DECIMALS = (
    6  # numbers with more digits behind the point are taken as they are: no bound is rounded up for them
)
SLACK = 1e-9  # of a capacity: what sums of fractions may lack


@dataclass(frozen=True)
class Assignment:
    """What is to be assigned. `costs` and `needs` are [agents, jobs], `capacities` [agents]; float64, none negative.

    Raises:
        ProblemError: shapes that do not fit together, no agent or no job, a number that is negative or not finite.
    """

    costs: Floats
    needs: Floats
    capacities: Floats

    def __post_init__(self) -> None:
        for name in ("costs", "needs", "capacities"):
            values = np.array(getattr(self, name), np.float64, order="C")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if self.costs.ndim != 2 or 0 in self.costs.shape:
            raise ProblemError(
                f"costs are of shape {self.costs.shape}, must be agents x jobs, at least one of each"
            )
        if self.needs.shape != self.costs.shape or self.capacities.shape != self.costs.shape[:1]:
            raise ProblemError(
                f"costs are of shape {self.costs.shape}, needs {self.needs.shape} and capacities "
                f"{self.capacities.shape}: the first two must agree, and each agent needs one capacity"
            )
        for name, values in (("cost", self.costs), ("need", self.needs), ("capacity", self.capacities)):
            wrong = np.argwhere(~(np.isfinite(values) & (values >= 0)))
            if len(wrong):
                where = tuple(int(x) for x in wrong[0])
                at = f"agent {where[0]}" + (f", job {where[1]}" if len(where) > 1 else "")
                raise ProblemError(f"{at}: {name} is {values[where]:g}, must be a number not below 0")

    @property
    def agents(self) -> int:
        return int(self.costs.shape[0])

    @property
    def jobs(self) -> int:
        return int(self.costs.shape[1])

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """[agents, jobs]: the job fits the agent when it is alone there."""
        return self.needs <= self.room[:, None]

    @cached_property
    def room(self) -> Floats:
        """Capacities with the slack that sums of fractions may lack; whole numbers need none."""
        if unit_of(self.needs) is not None:
            return self.capacities
        return self.capacities * (1 + SLACK) + SLACK

    @cached_property
    def cost_unit(self) -> float | None:
        """Every cost is a multiple of this, so a bound may be rounded up to the next; None for arbitrary fractions."""
        return unit_of(self.costs)

    def cost_of(self, agents: Agents) -> float:
        """What the assignment costs. `agents[j]` is the agent of job j, from 0."""
        return fsum(self.costs[agents, np.arange(self.jobs)])

    def loads(self, agents: Agents) -> Floats:
        """[agents]: what the jobs of each agent need together."""
        return np.asarray(
            np.bincount(agents, self.needs[agents, np.arange(self.jobs)], self.agents), np.float64
        )

    def violations(self, agents: Agents) -> list[str]:
        """Every rule that the assignment breaks, in words; an empty list if it breaks none."""
        if agents.shape != (self.jobs,) or agents.dtype.kind != "i":
            return [
                f"an assignment of {self.jobs} jobs is that many whole numbers, not {agents.dtype}{agents.shape}"
            ]
        if agents.min() < 0 or agents.max() >= self.agents:
            return [
                f"agents are 0 to {self.agents - 1}; one is {agents.min() if agents.min() < 0 else agents.max()}"
            ]
        loads = self.loads(agents)
        return [
            f"agent {i}: load {loads[i]:g} is beyond its capacity {self.capacities[i]:g}"
            for i in np.flatnonzero(loads > self.room)
        ]

    def round_up(self, bound: float) -> float:
        """The least cost that an assignment can have if none is below `bound`, known to a 1e-9th part of itself."""
        unit = self.cost_unit
        if unit is None:
            return bound
        steps = bound / unit
        return float(np.ceil(steps - SLACK * max(1.0, abs(steps))) * unit)

    def proves(self, bound: float, cost: float) -> bool:
        """Whether an assignment of this cost is optimal when none is below `bound`."""
        return cost <= self.round_up(bound) + SLACK * max(1.0, cost)


def unit_of(values: NDArray[Any]) -> float | None:
    """The largest number of which all `values` are multiples, with `MAX_DECIMALS` decimals at most; None: none."""
    largest = float(np.abs(values).max(initial=0.0))
    if largest > 2.0**52:
        return None
    spare = MAX_DECIMALS if largest < 1 else min(MAX_DECIMALS, 15 - floor(log10(largest)) - 1)
    for decimals in range(spare + 1):
        scaled = values * 10.0**decimals
        whole = np.rint(scaled)
        # A decimal fraction is off by its rounding when read, and by another when multiplied.
        if (np.abs(scaled - whole) <= 4e-16 * np.abs(scaled)).all():
            common = gcd(*(int(x) for x in np.unique(whole)))
            return (common or 1) / 10.0**decimals
    return None


@dataclass(frozen=True)
class Answer:
    """What a solver found.

    `status`: "optimal" is proved; "feasible" is not; "infeasible" is proved, `reason` says how; "none found" says
    that the solver found no assignment and no proof that there is none. `agents[j]` is the agent of job j, from 0,
    None where there is no assignment, as is `cost`. No assignment costs less than `bound` (None: no bound was
    computed). `seconds` is the solver's time without compilation; `trace` holds (seconds, cost) of each better
    assignment met on the way.
    """

    solver: str
    status: Status
    agents: tuple[int, ...] | None
    cost: float | None
    bound: float | None
    seconds: float
    reason: str = ""
    trace: tuple[tuple[float, float], ...] = ()

    @property
    def feasible(self) -> bool:
        return self.agents is not None

    @property
    def gap(self) -> float | None:
        """How far the cost may be above the least one, as a share of the bound; None where either is missing."""
        if self.cost is None or self.bound is None or self.bound <= 0:
            return 0.0 if self.cost == self.bound and self.cost is not None else None
        return self.cost / self.bound - 1
