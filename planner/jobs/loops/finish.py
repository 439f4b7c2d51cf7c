"""The compiled loops that finish a plan: the best mode of each queue, and the timetable."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.jobs.loops.layout import MODES, TAIL, Array, Data
from mpc_ray.planner.jobs.loops.queues import (
    BEYOND,
    DOLLARS,
    EXCESS,
    LATE,
    LATENCY,
    OVER,
    STATS,
    TARDY,
    WORSE,
    Goal,
    batches,
    measure,
    scratch,
)


@compiled
def settle(d: Data, place: Array, goal: Goal, mode: Array) -> None:
    """Choose for each queue of `place` the mode under which its part of the value is least; into `mode` [T]."""
    n, T = len(d.group), len(mode)
    s = scratch(n, d.fixed.shape[1])
    rows, first = queues(place, T)
    stat = np.zeros(STATS)
    w = d.weights
    for t in range(T):
        member = rows[first[t] : first[t + 1]]
        least = np.inf
        for choice in range(MODES):
            measure(d, t, choice, member, len(member), goal, s, stat)
            cost = w[0] * stat[EXCESS] + goal.prices[0] * stat[BEYOND] + goal.prices[3] * stat[WORSE]
            cost += (w[1] * stat[LATENCY] + w[2] * stat[OVER] / TAIL + w[3] * stat[TARDY]) / n
            cost += (w[4] * stat[LATE] + w[5] * stat[DOLLARS]) / n
            if cost < least:
                least = cost
                mode[t] = choice


@compiled
def queues(place: Array, T: int) -> Any:
    """Jobs by triple: `rows[first[t]:first[t + 1]]`, ascending."""
    first = np.zeros(T + 1, np.int64)
    for t in place:
        first[t + 1] += 1
    for t in range(T):
        first[t + 1] += first[t]
    rows, at = np.zeros(len(place), np.int64), first[:-1].copy()
    for j in range(len(place)):
        rows[at[place[j]]] = j
        at[place[j]] += 1
    return rows, first


@compiled
def in_full(
    d: Data,
    place: Array,
    mode: Array,
    batch: Array,
    triple: Array,
    kind: Array,
    group: Array,
    size: Array,
    start: Array,
    end: Array,
) -> int:
    """The timetable of a plan, into arrays of n, fields as in `Timetable`; how many batches there are."""
    n, T = len(d.group), len(mode)
    s = scratch(n, d.fixed.shape[1])
    rows, first = queues(place, T)
    rank = np.zeros(max(1, n), np.int64)
    total = 0
    for t in range(T):
        member = rows[first[t] : first[t + 1]]
        if len(member) == 0:
            continue
        count = batches(d, t, mode[t], member, len(member), s)
        now = d.free[t]
        for i in range(count):
            b = s.order[i]
            at = total + i
            rank[b] = at
            triple[at], kind[at], group[at], size[at] = t, s.variant[b], s.group[b], s.size[b]
            start[at], end[at] = now, s.end[b]
            now = s.end[b]
        for i in range(len(member)):
            batch[member[i]] = rank[s.batch[i]]
        total += count
    return total
