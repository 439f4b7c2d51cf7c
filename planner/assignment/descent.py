"""Descent by shifts and swaps over all agents: what every solver ends with, and all that the control has."""

from __future__ import annotations

import numpy as np

from mpc_ray.planner.assignment.state import Counts, State, Table, enter, move
from mpc_ray.planner.compiled import compiled

_ROUNDS = 30  # doublings of the price of overload before an assignment is given up


@compiled
def descend(t: Table, s: State, overload: float, halt: Counts) -> float:
    """Take every shift and swap that lowers sum of costs + overload x what is beyond capacity; the cost, or infinite.

    `overload` doubles while the assignment at the bottom is beyond capacity. First improvement, jobs in order: the
    same start gives the same end.
    """
    jobs = len(t.cost)
    enter(t.need, s)
    for _ in range(_ROUNDS):
        moving = True
        while moving and halt[0] == 0:
            moving = False
            for j in range(jobs):
                moving |= _shift(t, s, j, overload) | _swap(t, s, j, overload)
        if (s.load <= t.room).all():
            cost = 0.0
            for j in range(jobs):
                cost += t.cost[j, s.agent[j]]
            return cost
        overload *= 2.0
    return np.inf


@compiled
def _beyond(t: Table, i: int, load: float) -> float:
    return max(0.0, float(load - t.room[i]))


@compiled
def _shift(t: Table, s: State, j: int, overload: float) -> bool:
    """Take job j to the first agent where all is cheaper, again and again."""
    moved = False
    for k in range(t.cost.shape[1]):
        i = s.agent[j]
        if k == i or t.need[j, k] > t.room[k]:
            continue
        change = t.cost[j, k] - t.cost[j, i]
        change += overload * (
            _beyond(t, i, s.load[i] - t.need[j, i])
            - _beyond(t, i, s.load[i])
            + _beyond(t, k, s.load[k] + t.need[j, k])
            - _beyond(t, k, s.load[k])
        )
        if change < -1e-9 * (1.0 + t.cost[j, i]):
            move(t.need, s, j, k)
            moved = True
    return moved


@compiled
def _swap(t: Table, s: State, j: int, overload: float) -> bool:
    """Exchange job j with each later job where all is cheaper then."""
    moved = False
    for h in range(j + 1, len(s.agent)):
        i, k = s.agent[j], s.agent[h]
        if i == k or t.need[j, k] > t.room[k] or t.need[h, i] > t.room[i]:
            continue
        change = t.cost[j, k] - t.cost[j, i] + t.cost[h, i] - t.cost[h, k]
        change += overload * (
            _beyond(t, i, s.load[i] - t.need[j, i] + t.need[h, i])
            - _beyond(t, i, s.load[i])
            + _beyond(t, k, s.load[k] - t.need[h, k] + t.need[j, k])
            - _beyond(t, k, s.load[k])
        )
        if change < -1e-9 * (1.0 + t.cost[j, i] + t.cost[h, k]):
            move(t.need, s, j, k)
            move(t.need, s, h, i)
            moved = True
    return moved


def overload_price(t: Table) -> float:
    """A price of overload above most differences of cost: the dearest capacity, or cost per need on average."""
    return max(float(t.price.max(initial=0.0)), float(t.cost.mean() / max(t.need.mean(), 1e-300)), 1e-9)
