"""The compiled loops: what a queue costs.

A plan is `place[j]`, the triple of each job, and `mode[t]`, how the queue of a triple is cut into batches and ordered
(`arrays.MODES`). Everything else follows: jobs in order of due date fill the open batch of their group, each batch runs
the faster variant.

Two terms of F are not sums over queues, and are made so by a bound that the right number turns into an equality:

    longest queue   max L = min over m of m + Σ max(0, L - m)
    worst 5 %       mean of them = min over z of z + Σ max(0, latency - z) / (0.05·n)

(the second: Rockafellar and Uryasev, Optimization of conditional value-at-risk, 2000). Each walk keeps its m and z; who
calls it chooses them between walks. An m below the longest queue lets every long queue pull, not the longest alone:
with the plain maximum annealing ended 5 to 9 % worse at 200 jobs on 30 triples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.jobs.loops.layout import SHARES, TAIL, Array, Data

RULES = len(SHARES)
STATS = 10
END, LATENCY, TARDY, LATE, OVER, WORSE, DOLLARS, NBYTES, EXCESS, BEYOND = range(STATS)


class State(NamedTuple):
    """A plan with its queues and their measures. `queue[t, :held[t]]` holds job numbers, ascending."""

    place: Array  # [n] int64
    mode: Array  # [T] int64
    held: Array  # [T] int64, jobs of each queue
    queue: Array  # [T, n] int64
    stat: Array  # [T, STATS] float64
    random: Array  # [1] uint64, state of the generator


class Goal(NamedTuple):
    """What a walk minimises: F with the m and z of its bounds, and a price on passing a reference plan and on moves."""

    m: float
    z: float
    limits: Array  # [5] of the reference: makespan, mean latency, late jobs, p95, jobs whose latency is above that
    prices: (
        Array  # [4] in F: a second of makespan or mean above its limit, one more late job or job above p95
    )
    old: Array  # [n] int64: triple in the previous plan, -1 for none
    move_price: float  # F for each job that leaves its previous triple
    most_moves: int  # and never more of them than this


class Scratch(NamedTuple):
    """Room for one queue."""

    open: Array  # [G] batch that takes jobs of the group
    seen: Array  # [G] queue that `open` was written for
    batch: Array  # [n] of each job
    group: Array  # [n] of each batch
    size: Array
    variant: Array
    first: Array
    length: Array
    key: Array
    order: Array
    end: Array
    tick: Array  # [1]


@compiled
def scratch(n: int, G: int) -> Scratch:
    """Room for queues of n jobs."""
    m = max(1, n)
    return Scratch(
        np.zeros(G, np.int64),
        np.full(G, -1, np.int64),
        np.zeros(m, np.int64),
        np.zeros(m, np.int64),
        np.zeros(m, np.int64),
        np.zeros(m, np.int64),
        np.zeros(m, np.float64),
        np.zeros(m, np.float64),
        np.zeros(m, np.float64),
        np.zeros(m, np.int64),
        np.zeros(m, np.float64),
        np.zeros(1, np.int64),
    )


@compiled
def batches(d: Data, t: int, mode: int, member: Array, k: int, s: Scratch) -> int:
    """Cut the queue `member[:k]` of triple t into batches and order them; `s` holds them. Returns how many."""
    rule, by = mode % RULES, mode // RULES
    s.tick[0] += 1
    tick = s.tick[0]
    count = 0
    for i in range(k):
        j = member[i]
        g = d.group[j]
        b = s.open[g] if s.seen[g] == tick else -1
        if b < 0 or s.size[b] >= d.cap[rule, g, t]:
            b = count
            count += 1
            s.open[g], s.seen[g] = b, tick
            s.group[b], s.size[b], s.first[b] = g, 0, d.arrived[j]
        s.size[b] += 1
        s.batch[i] = b
        s.first[b] = min(s.first[b], d.arrived[j])
    for b in range(count):
        g, m = s.group[b], s.size[b]
        best, least = 0, d.fixed[0, g, t] + m * d.item[0, g, t]
        for v in range(1, d.fixed.shape[0]):
            time = d.fixed[v, g, t] + m * d.item[v, g, t]
            if time < least:
                best, least = v, time
        s.variant[b], s.length[b] = best, least
        s.order[b] = b
    if by > 0:  # batches were opened in order of due date
        for b in range(count):
            s.key[b] = s.length[b] / s.size[b] if by == 1 else s.first[b]
        for i in range(1, count):
            b = s.order[i]
            value = s.key[b]
            at = i
            while at > 0 and s.key[s.order[at - 1]] > value:
                s.order[at] = s.order[at - 1]
                at -= 1
            s.order[at] = b
    now = d.free[t]
    for i in range(count):
        b = s.order[i]
        now += s.length[b]
        s.end[b] = now
    return count


@compiled
def measure(d: Data, t: int, mode: int, member: Array, k: int, goal: Goal, s: Scratch, out: Array) -> None:
    """Measures of the queue `member[:k]` on triple t, into `out` [STATS]."""
    out[:] = 0.0
    if k == 0:
        return
    count = batches(d, t, mode, member, k, s)
    last, nbytes = 0.0, 0.0
    for b in range(count):
        last = max(last, s.end[b])
        g, m = s.group[b], s.size[b]
        nbytes += m * d.nbytes[s.variant[b], g]
    z, p95 = goal.z, goal.limits[3]
    latency = tardy = late = over = worse = 0.0
    for i in range(k):
        j, end = member[i], s.end[s.batch[i]]
        after = end - d.arrived[j]
        latency += after
        if end > d.due[j]:
            tardy += end - d.due[j]
            late += 1.0
        if after > z:
            over += after - z
        if after > p95:
            worse += 1.0
    out[END], out[LATENCY], out[TARDY], out[LATE] = last, latency, tardy, late
    out[EXCESS], out[BEYOND] = max(0.0, last - goal.m), max(0.0, last - goal.limits[0])
    out[OVER], out[WORSE], out[DOLLARS], out[NBYTES] = over, worse, nbytes * d.price[t], nbytes


@compiled
def value(d: Data, goal: Goal, sums: Array, load: Array, moved: int) -> Any:
    """F of a plan with these sums, for the z of `goal`, and the price of passing its limits and of moving jobs."""
    w, n = d.weights, len(d.group)
    excess, beyond = sums[EXCESS], sums[BEYOND]
    for l in range(len(load)):
        excess += max(0.0, load[l] - goal.m)
        beyond += max(0.0, load[l] - goal.limits[0])
    found = w[0] * (goal.m + excess) + w[2] * (goal.z + sums[OVER] / (TAIL * n)) + goal.move_price * moved
    found += (w[1] * sums[LATENCY] + w[3] * sums[TARDY] + w[4] * sums[LATE] + w[5] * sums[DOLLARS]) / n
    found += goal.prices[0] * beyond + goal.prices[1] * max(0.0, sums[LATENCY] / n - goal.limits[1])
    found += goal.prices[2] * max(0.0, sums[LATE] - goal.limits[2])
    return found + goal.prices[3] * max(0.0, sums[WORSE] - goal.limits[4])


@compiled
def rebuild(d: Data, p: State, goal: Goal, s: Scratch) -> None:
    """Queues and measures from `place` and `mode`; a place of -1 is none yet."""
    p.held[:] = 0
    for j in range(len(d.group)):
        t = p.place[j]
        if t >= 0:
            p.queue[t, p.held[t]] = j
            p.held[t] += 1
    for t in range(len(p.held)):
        measure(d, t, p.mode[t], p.queue[t], p.held[t], goal, s, p.stat[t])


@compiled
def links(d: Data, p: State, load: Array) -> None:
    """`load` [L] becomes the seconds of each link."""
    for l in range(len(load)):
        total = 0.0
        for t in range(len(p.held)):
            total += p.stat[t, NBYTES] * d.pairs[t, l]
        load[l] = total / d.capacity[l]


@compiled
def without(member: Array, k: int, j: int, out: Array) -> int:
    """`member[:k]` without job j, into `out`."""
    m = 0
    for i in range(k):
        if member[i] != j:
            out[m] = member[i]
            m += 1
    return m


@compiled
def insert(out: Array, k: int, j: int) -> int:
    """Put job j into the ascending `out[:k]`."""
    at = k
    while at > 0 and out[at - 1] > j:
        out[at] = out[at - 1]
        at -= 1
    out[at] = j
    return k + 1
