"""What the compiled loops work on: a problem laid out by job, an assignment with its loads, and states of `draws`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc_ray.planner.assignment.prices import reduced_costs
from mpc_ray.planner.assignment.problem import Agents, Assignment, Floats
from mpc_ray.planner.compiled import compiled

Counts = NDArray[np.int64]


class Table(NamedTuple):
    """The problem by job: `cost`, `need` and `extra` [jobs, agents], `room` and `price` [agents].

    `extra` is the priced cost above that of the job's cheapest agent; `choice` [jobs, K] are its K cheapest agents.
    A job that fits fewer than K agents has its cheapest one several times: agents that it does not fit are never
    proposed.
    """

    cost: Floats
    need: Floats
    extra: Floats
    room: Floats
    price: Floats
    choice: Counts


class State(NamedTuple):
    """An assignment: of each job its agent and place in its list; of each agent load, number and list of jobs."""

    agent: Agents
    place: Counts
    load: Floats
    held: Counts
    member: NDArray[np.int32]


def table(problem: Assignment, unit: Floats, choices: int) -> Table:
    """The problem at those prices of capacity. `choices`: how many agents of each job are worth trying."""
    extra = np.array(reduced_costs(problem, unit).T, order="C")
    order = np.argsort(extra, axis=1, kind="stable")[:, : min(choices, problem.agents)].astype(np.int64)
    fits = np.isfinite(np.take_along_axis(extra, order, axis=1))
    return Table(
        np.array(problem.costs.T, order="C"),
        np.array(problem.needs.T, order="C"),
        extra,
        problem.room.copy(),
        unit.copy(),
        np.where(fits, order, order[:, :1]),
    )


def state(table: Table, agents: Agents) -> State:
    """The assignment `agents` [jobs], which is copied."""
    jobs, count = table.cost.shape
    made = State(
        agents.astype(np.int64),
        np.zeros(jobs, np.int64),
        np.zeros(count),
        np.zeros(count, np.int64),
        np.empty((count, jobs), np.int32),
    )
    enter(table.need, made)
    return made


@compiled
def enter(need: Floats, s: State) -> None:
    """Fill loads and lists from `s.agent`."""
    s.load[:] = 0.0
    s.held[:] = 0
    for j in range(len(s.agent)):
        i = s.agent[j]
        s.load[i] += need[j, i]
        s.place[j] = s.held[i]
        s.member[i, s.held[i]] = j
        s.held[i] += 1


@compiled
def move(need: Floats, s: State, job: int, to: int) -> None:
    """Take the job from its agent to another."""
    old = s.agent[job]
    s.held[old] -= 1
    last = s.member[old, s.held[old]]
    s.member[old, s.place[job]] = last
    s.place[last] = s.place[job]
    s.member[to, s.held[to]] = job
    s.place[job] = s.held[to]
    s.held[to] += 1
    s.load[old] -= need[job, old]
    s.load[to] += need[job, to]
    s.agent[job] = to


def seeds(seed: int, count: int) -> list[NDArray[np.uint64]]:
    """Independent states for `draw`, one a thread."""
    children = np.random.SeedSequence(seed).spawn(count)
    return [child.generate_state(1, np.uint64) | np.uint64(1) for child in children]
