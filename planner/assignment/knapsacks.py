"""The bound from knapsacks: each job has a reward, each agent fills its capacity with what pays most.

With a reward v_j for taking job j, no assignment costs less than

    L(v) = sum_j v_j - sum_i max { sum_j (v_j - cost_ij) x_j : sum_j need_ij x_j <= capacity_i, x_j in {0, 1} }

Agents whose needs are whole numbers are solved exactly by dynamic programming, so this bound takes in that capacity
cannot be filled to the brim: on types c to e it closes most of the gap that the linear relaxation leaves. L is
climbed by subgradients, 1 - (how many agents took job j), smoothed, with Polyak's step, from the rewards of the
linear relaxation (P. Avella, M. Boccia and I. Vasilyev, Computational Optimization and Applications 45, 2010; M.
Posta, J. Ferland and P. Michelon, ibid. 52, 2012).

The same tables say how much L(v) rises when job j must go to agent i: where it rises beyond the best cost known, j
goes elsewhere in every better assignment. What is left, the core, is often small enough for an exact solver.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc_ray.planner.assignment.problem import Assignment, Floats, unit_of
from mpc_ray.planner.compiled import compiled

MAX_CELLS = 20_000_000  # of the table of one agent, jobs x capacity, a byte each
_STALE = 8  # steps without a better bound, after which theta shrinks

Whole = NDArray[np.int64]


@dataclass
class Rewards:
    """The climb, kept so that it can go on: rewards [jobs], the best found and their bound."""

    best: Floats
    bound: float
    now: Floats
    smooth: Floats
    theta: float = 1.0
    stale: int = 0


@dataclass(frozen=True)
class Knapsacks:
    """The problem with needs as whole numbers: costs and needs [agents, jobs], capacities [agents]."""

    costs: Floats
    needs: Whole
    room: Whole

    @property
    def cells(self) -> int:
        """Table cells that one step works through at most."""
        return int(self.room.sum()) * int(self.costs.shape[1])


def knapsacks(problem: Assignment) -> Knapsacks | None:
    """The problem in whole numbers, or None: needs with too many decimals, or tables too large."""
    unit = unit_of(problem.needs)
    if unit is None:
        return None
    needs = np.rint(problem.needs / unit).astype(np.int64)
    # Capacity beyond the needs of all jobs is never used.
    room = np.minimum(np.floor(problem.capacities / unit + 1e-9).astype(np.int64), needs.sum(axis=1))
    if int(room.max() + 1) * problem.jobs > MAX_CELLS:
        return None
    return Knapsacks(problem.costs, needs, room)


def start(problem: Assignment, unit: Floats) -> Rewards:
    """The rewards at which the climb begins: what each job costs at its cheapest agent, with need priced at `unit`."""
    priced = np.where(problem.allowed, problem.costs + unit[:, None] * problem.needs, np.inf).min(axis=0)
    return Rewards(priced, -np.inf, priced.copy(), np.zeros(problem.jobs))


def climb(sacks: Knapsacks, rewards: Rewards, steps: int, target: float, halt: Whole) -> None:
    """Take that many steps, or fewer once `halt[0]` is not 0, towards a bound of `target`: the best cost known."""
    rewards.bound, rewards.theta, rewards.stale = _climb(
        sacks.costs,
        sacks.needs,
        sacks.room,
        rewards.best,
        rewards.now,
        rewards.smooth,
        rewards.bound,
        rewards.theta,
        rewards.stale,
        steps,
        target,
        halt,
    )


def rises(sacks: Knapsacks, rewards: Rewards) -> Floats:
    """[agents, jobs]: how much the bound of the best rewards rises when that job must go to that agent."""
    return _rises(sacks.costs, sacks.needs, sacks.room, rewards.best)


@compiled
def _climb(
    costs: Floats,
    needs: Whole,
    room: Whole,
    best: Floats,
    now: Floats,
    smooth: Floats,
    bound: float,
    theta: float,
    stale: int,
    steps: int,
    target: float,
    halt: Whole,
) -> tuple[float, float, int]:
    """Bound, theta and stale steps after the climb; `best`, `now` and `smooth` are changed in place."""
    agents, jobs = costs.shape
    width = room.max() + 1
    worth, taken = np.empty(width), np.empty((jobs, width), np.uint8)
    takers = np.empty(jobs)
    for _ in range(steps):
        if halt[0] != 0:
            break
        takers[:] = 0.0
        value = now.sum()
        for i in range(agents):
            value -= _fill(costs[i], needs[i], room[i], now, worth, taken, takers)
        if value > bound + 1e-9 * abs(value):
            bound, stale = value, 0
            best[:] = now
        else:
            stale += 1
            if stale >= _STALE:
                theta, stale = 0.7 * theta, 0
                now[:] = best
                continue
        norm, exact = 0.0, True
        for j in range(jobs):
            if takers[j] != 1.0:
                exact = False
            smooth[j] = 0.7 * (1.0 - takers[j]) + 0.3 * smooth[j]
            norm += smooth[j] ** 2
        if exact or norm < 1e-12:
            break
        step = 0.5 * theta * max(target - value, 1e-6 * abs(value) + 1e-9) / norm
        for j in range(jobs):
            now[j] += step * smooth[j]
    return bound, theta, stale


@compiled
def _fill(
    cost: Floats,
    need: Whole,
    room: int,
    reward: Floats,
    worth: Floats,
    taken: NDArray[np.uint8],
    takers: Floats,
) -> float:
    """The most that one agent can earn; what it takes is counted in `takers`. `worth` [w]: with capacity w."""
    worth[: room + 1] = 0.0
    for j in range(len(cost)):
        gain, size = reward[j] - cost[j], need[j]
        if gain <= 0.0 or size > room:
            continue
        row = taken[j]
        row[:size] = 0
        for w in range(room, size - 1, -1):
            other = worth[w - size] + gain
            better = other > worth[w]
            row[w] = better
            if better:
                worth[w] = other
    left = room
    for j in range(len(cost) - 1, -1, -1):
        if reward[j] - cost[j] > 0.0 and need[j] <= room and taken[j, left]:
            takers[j] += 1.0
            left -= need[j]
    return float(worth[room])


@compiled
def _rises(costs: Floats, needs: Whole, room: Whole, reward: Floats) -> Floats:
    agents, jobs = costs.shape
    width = room.max() + 1
    rise = np.full((agents, jobs), np.inf)
    before, after = np.zeros((jobs + 1, width)), np.zeros((jobs + 1, width))
    for i in range(agents):
        top = room[i]
        for j in range(jobs):  # before[j]: the best of the jobs before j
            _add(before[j], before[j + 1], reward[j] - costs[i, j], needs[i, j], top)
        for j in range(jobs - 1, -1, -1):  # after[j]: of job j and those behind it
            _add(after[j + 1], after[j], reward[j] - costs[i, j], needs[i, j], top)
        for j in range(jobs):
            spare = top - needs[i, j]
            if spare < 0:
                continue
            most = 0.0
            for w in range(spare + 1):
                most = max(most, before[j, w] + after[j + 1, spare - w])
            rise[i, j] = max(0.0, before[jobs, top] - most - (reward[j] - costs[i, j]))
    return rise


@compiled
def _add(old: Floats, new: Floats, gain: float, size: int, room: int) -> None:
    """`new[w]` is the most that capacity w earns from the jobs in `old` and one more."""
    for w in range(room + 1):
        new[w] = old[w]
        if gain > 0.0 and w >= size and old[w - size] + gain > old[w]:
            new[w] = old[w - size] + gain
