"""The compiled walk over plans by native moves, and the greedy filling of queues.

A move changes one or two queues, and these alone are measured again: one to two microseconds for ten jobs in each.
"""

from __future__ import annotations

import numpy as np

from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.draws import below, unit
from mpc_ray.planner.jobs.loops.layout import MODES, Array, Data
from mpc_ray.planner.jobs.loops.queues import (
    END,
    EXCESS,
    NBYTES,
    STATS,
    Goal,
    State,
    insert,
    links,
    measure,
    rebuild,
    scratch,
    value,
    without,
)

EAGERNESS = 0.75


@compiled
def walk(
    d: Data,
    p: State,
    goal: Goal,
    mates: Array,
    start: Array,
    near: int,
    eager: Array,
    moves: int,
    hot: float,
    cold: float,
    shares: Array,
    best_place: Array,
    best_mode: Array,
    found: Array,
) -> None:
    """Metropolis' walk of `moves` proposals while the temperature falls from `hot` to `cold`; 0: descent.

    `mates[start[g]:start[g + 1]]` are the jobs of group g; `near` how many of a job's quickest triples are proposed;
    three proposals in four are for one of the jobs `eager`, where there are any;
    `shares` [4]: shares of proposals that swap two jobs, take a job's whole group from its queue, cut or order a queue
    otherwise, and send a job to where another of its group is. The best plan met goes to `best_place`, `best_mode`;
    `found` [2] becomes its value and that of `p`, which is left where the walk ended.
    """
    n, T = len(d.group), len(p.held)
    s = scratch(n, d.fixed.shape[1])
    rebuild(d, p, goal, s)
    load, new_load = np.zeros(len(d.capacity)), np.zeros(len(d.capacity))
    links(d, p, load)
    sums = np.zeros(STATS)
    for t in range(T):
        sums += p.stat[t]
    moved = 0
    for j in range(n):
        moved += goal.old[j] >= 0 and p.place[j] != goal.old[j]
    now = value(d, goal, sums, load, moved)
    best = now
    best_place[:] = p.place
    best_mode[:] = p.mode
    row_a, row_b = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64)
    stat_a, stat_b = np.zeros(STATS), np.zeros(STATS)
    going = np.zeros(n, np.int64)
    after = np.zeros(STATS)
    swap = shares[0]
    group = swap + shares[1]
    recut = group + shares[2]
    heat = hot
    falls = (cold / hot) ** (64.0 / max(64, moves)) if hot > 0 else 1.0
    for step in range(moves):
        if step % 64 == 63:
            heat *= falls
        j = below(p.random, n)
        if len(eager) > 0 and unit(p.random) < EAGERNESS:
            j = eager[below(p.random, len(eager))]
        a = p.place[j]
        u = unit(p.random)
        other, leaving, mode_a = -1, 1, p.mode[a]
        going[0] = j
        b = a
        if group <= u < recut:
            mode_a = below(p.random, MODES)
            if mode_a == p.mode[a]:
                continue
        else:
            c = d.klass[j]
            if unit(p.random) < shares[3]:
                g = d.group[j]
                b = p.place[mates[start[g] + below(p.random, start[g + 1] - start[g])]]
            else:
                b = d.choice[c, below(p.random, min(near, d.choices[c]))]
            if b == a or not d.allowed[c, b]:
                continue
            if u < swap:
                if p.held[b] == 0:
                    continue
                other = p.queue[b, below(p.random, p.held[b])]
                if not d.allowed[d.klass[other], a]:
                    continue
            elif u < group:
                leaving = 0
                for i in range(p.held[a]):
                    i_j = p.queue[a, i]
                    if d.group[i_j] == d.group[j] and d.allowed[d.klass[i_j], b]:
                        going[leaving] = i_j
                        leaving += 1
        new_moved = moved
        if b != a:
            for i in range(leaving):
                old = goal.old[going[i]]
                if old >= 0:
                    new_moved += (b != old) - (a != old)
            if other >= 0:
                old = goal.old[other]
                if old >= 0:
                    new_moved += (a != old) - (b != old)
            if new_moved > goal.most_moves and new_moved > moved:
                continue
        k_a, k_b = 0, 0
        if b == a:
            k_a = p.held[a]
            row_a[:k_a] = p.queue[a, :k_a]
        else:
            at = 0
            for i in range(p.held[a]):
                if at < leaving and p.queue[a, i] == going[at]:
                    at += 1
                else:
                    row_a[k_a] = p.queue[a, i]
                    k_a += 1
            k_b = without(p.queue[b], p.held[b], other, row_b)
            for i in range(leaving):
                k_b = insert(row_b, k_b, going[i])
            if other >= 0:
                k_a = insert(row_a, k_a, other)
            measure(d, b, p.mode[b], row_b, k_b, goal, s, stat_b)
        measure(d, a, mode_a, row_a, k_a, goal, s, stat_a)
        for i in range(STATS):
            after[i] = sums[i] + stat_a[i] - p.stat[a, i]
            if b != a:
                after[i] += stat_b[i] - p.stat[b, i]
        change_a = stat_a[NBYTES] - p.stat[a, NBYTES]
        change_b = stat_b[NBYTES] - p.stat[b, NBYTES] if b != a else 0.0
        for l in range(len(load)):
            new_load[l] = load[l] + (change_a * d.pairs[a, l] + change_b * d.pairs[b, l]) / d.capacity[l]
        new = value(d, goal, after, new_load, new_moved)
        if new > now and (heat <= 0.0 or new - now > -heat * np.log(unit(p.random))):
            continue
        now, moved = new, new_moved
        sums[:] = after
        load[:] = new_load
        p.mode[a] = mode_a
        p.stat[a] = stat_a
        if b != a:
            p.queue[a, :k_a] = row_a[:k_a]
            p.queue[b, :k_b] = row_b[:k_b]
            p.held[a], p.held[b] = k_a, k_b
            p.stat[b] = stat_b
            for i in range(leaving):
                p.place[going[i]] = b
            if other >= 0:
                p.place[other] = a
        if now < best - 1e-12:
            best = now
            best_place[:] = p.place
            best_mode[:] = p.mode
    found[0], found[1] = best, now


@compiled
def fill(d: Data, p: State, goal: Goal, turn: Array, near: int) -> None:
    """Place the jobs of `turn` one by one where the value grows least, `near` triples tried for each."""
    n, T = len(d.group), len(p.held)
    s = scratch(n, d.fixed.shape[1])
    rebuild(d, p, goal, s)
    load = np.zeros(len(d.capacity))
    none = np.zeros(0)
    links(d, p, load)
    sums, after = np.zeros(STATS), np.zeros(STATS)
    longest = 0.0
    for t in range(T):
        sums += p.stat[t]
        longest = max(longest, p.stat[t, END])
    for l in range(len(load)):
        longest = max(longest, load[l])
    row, stat, best_stat = np.zeros(n + 1, np.int64), np.zeros(STATS), np.zeros(STATS)
    for j in turn:
        c = d.klass[j]
        least, chosen = np.inf, -1
        for i in range(min(near, d.choices[c])):
            t = d.choice[c, i]
            k = p.held[t]
            row[:k] = p.queue[t, :k]
            k = insert(row, k, j)
            measure(d, t, p.mode[t], row, k, goal, s, stat)
            most = max(longest, stat[END])
            for l in range(len(load)):
                more = (stat[NBYTES] - p.stat[t, NBYTES]) * d.pairs[t, l] / d.capacity[l]
                most = max(most, load[l] + more)
            for x in range(STATS):
                after[x] = sums[x] + stat[x] - p.stat[t, x]
            after[EXCESS] = most - goal.m  # the makespan itself: one job at a time has no need of the bound
            new = value(d, goal, after, none, 0)
            if new < least:
                least, chosen = new, t
                best_stat[:] = stat
        t = chosen
        p.held[t] = insert(p.queue[t], p.held[t], j)
        p.place[j] = t
        for l in range(len(load)):
            load[l] += (best_stat[NBYTES] - p.stat[t, NBYTES]) * d.pairs[t, l] / d.capacity[l]
            longest = max(longest, load[l])
        for x in range(STATS):
            sums[x] += best_stat[x] - p.stat[t, x]
        p.stat[t] = best_stat
        longest = max(longest, best_stat[END])
