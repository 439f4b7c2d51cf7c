"""Annealing whose move is an ejection chain, with slack at its shadow price.

At prices u (`prices`), with e_ij what job j costs with agent i beyond its cheapest agent, every assignment costs

    L(u) + sum_j e_ij + sum_i u_i (capacity_i - load_i)

so a good one gives few jobs to dear agents and leaves no priced capacity unused. The walk minimises

    E = sum_j e_ij + sum_i psi_i(load_i - capacity_i),    psi_i(x) = (alpha u'_i - u_i) x      for x > 0
                                                                  = -(1 - theta) u_i x         for x < 0

with u' = max(u, mean u / 10). Theta falls from 1 to 0 in the first part of a run: slack is free while hot, since
another job could use it, and costs its price in the end. Alpha rises while more than half of the states are over
capacity, and falls while fewer are (strategic oscillation: F. Glover, Decision Sciences 8, 1977), so the walk stays
near the border where good assignments are.

**The move.** Random shifts and swaps stall at low temperatures: two loads must fit at once. Here a random job goes
to one of its cheapest agents; if that costs too much, some job there is sent on to one of *its* agents, and so on
for up to `depth` jobs, until a chain costs no more than the threshold -T ln(random), drawn beforehand; a chain may
close where it began, so a swap is a chain of two. Links are searched depth first, and left where what they cost so
far is beyond the threshold: a job ejected must nearly match the one that came. (Ejection chains: M. Yagiura, T.
Ibaraki and F. Glover, INFORMS Journal on Computing 16, 2004, there in a tabu search; a threshold before the search:
G. Dueck and T. Scheuer, J. Comp. Physics 90, 1990.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mpc_ray.planner.assignment.problem import Agents, Floats
from mpc_ray.planner.assignment.state import Counts, State, Table, enter, move
from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.draws import below, draw

_BLOCKS = 400  # of a run, between which temperature, theta and alpha change
_LINKS = 400  # links looked at for one proposal: agents with very many jobs would take for ever

# -ln of a uniform number, at 65,536 points.
_THRESHOLDS: Floats = -np.log((np.arange(65536) + 0.5) / 65536)


class Slopes(NamedTuple):
    """psi of each agent: price of a unit above and below capacity; its value now."""

    over: Floats
    under: Floats
    value: Floats


class Chain(NamedTuple):
    """A chain and its search: `job[t]` goes from `agent[t]` to `agent[t + 1]`.

    `spent[t]`: what the chain costs up to job t - 1, without the first and the last agent; `excess[t]`: of agent t
    with the job that came; `member`, `choice`: how far the search at t is; `on[i]`: agent i is on the chain.
    """

    job: Counts
    agent: Counts
    spent: Floats
    excess: Floats
    member: Counts
    choice: Counts
    on: NDArray[np.bool_]


class Schedule(NamedTuple):
    """A run: proposals, temperatures at both ends, alpha at the start, share of it until theta is 0, longest chain."""

    proposals: int
    hot: float
    cold: float
    overload: float
    span: float
    depth: int


@compiled
def anneal(
    t: Table,
    s: State,
    plan: Schedule,
    seed: NDArray[np.uint64],
    best: Agents,
    least: float,
    halt: Counts,
    done: Counts,
) -> float:
    """Walk from `s`, left where the walk ends; the least cost of an assignment met, infinite if none is below `least`.

    That assignment goes to `best` [jobs]. `halt[0]` not 0 ends the walk; `done` [2] grows by the proposals made,
    and by those taken.
    """
    jobs, agents = t.cost.shape
    enter(t.need, s)
    slopes = Slopes(np.empty(agents), np.empty(agents), np.empty(agents))
    chain = _scratch(plan.depth, agents)
    floor = np.maximum(
        t.price, 0.1 * t.price.mean() + 1e-9 * t.cost.max() / max(t.need.max(), 1e-300) + 1e-300
    )
    cost, full = 0.0, 0
    for j in range(jobs):
        cost += t.cost[j, s.agent[j]]
    for i in range(agents):
        full += s.load[i] > t.room[i]
    found, least_cost = np.inf, least
    if full == 0 and cost < least_cost:
        found = least_cost = cost
        best[:] = s.agent
    alpha, temperature, crowded = plan.overload, plan.hot, 0
    block = max(8, plan.proposals // _BLOCKS)
    cooling = (plan.cold / plan.hot) ** (block / max(plan.proposals, 1))
    for q in range(plan.proposals):
        if q % block == 0:
            if halt[0] != 0:
                break
            done[0] += min(block, plan.proposals - q)
            if q > 0:
                temperature *= cooling
                alpha = max(1.05, alpha * (1.01 if 2 * crowded > block else 0.995))
                crowded = 0
            theta = max(0.0, 1.0 - q / (plan.span * plan.proposals + 1e-9))
            for i in range(agents):
                slopes.over[i] = alpha * floor[i] - t.price[i]
                slopes.under[i] = (1.0 - theta) * t.price[i]
                slopes.value[i] = _psi(slopes, i, s.load[i] - t.room[i])
        crowded += full > 0
        job = below(seed, jobs)
        to = t.choice[job, below(seed, t.choice.shape[1])]
        if to == s.agent[job]:
            continue
        threshold = temperature * _THRESHOLDS[draw(seed) >> np.uint64(48)]
        length = _search(t, s, slopes, chain, job, to, threshold, plan.depth, seed)
        if length == 0:
            continue
        done[1] += 1
        for step in range(length):
            moved, old, new = chain.job[step], chain.agent[step], chain.agent[step + 1]
            full -= (s.load[old] > t.room[old]) + (s.load[new] > t.room[new])
            move(t.need, s, moved, new)
            full += (s.load[old] > t.room[old]) + (s.load[new] > t.room[new])
            cost += t.cost[moved, new] - t.cost[moved, old]
        for step in range(length + 1):
            i = chain.agent[step]
            slopes.value[i] = _psi(slopes, i, s.load[i] - t.room[i])
        if full == 0 and cost < least_cost - 1e-9 * cost:
            found = least_cost = cost
            best[:] = s.agent
    return found


@compiled
def _scratch(depth: int, agents: int) -> Chain:
    size = depth + 2
    return Chain(
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros(size),
        np.zeros(size),
        np.zeros(size, np.int64),
        np.zeros(size, np.int64),
        np.zeros(agents, np.bool_),
    )


@compiled
def _psi(slopes: Slopes, i: int, excess: float) -> float:
    return float(slopes.over[i] * excess if excess > 0.0 else -slopes.under[i] * excess)


@compiled
def _search(
    t: Table,
    s: State,
    slopes: Slopes,
    c: Chain,
    job: int,
    to: int,
    threshold: float,
    depth: int,
    seed: NDArray[np.uint64],
) -> int:
    """Jobs of the first chain found that begins with `job` going to `to` and costs at most `threshold`; 0: none."""
    origin = s.agent[job]
    left = s.load[origin] - t.need[job, origin] - t.room[origin]
    relief = _psi(slopes, origin, left) - slopes.value[origin]
    c.job[0], c.agent[0], c.agent[1] = job, origin, to
    c.spent[1] = t.extra[job, to] - t.extra[job, origin]
    c.excess[1] = s.load[to] + t.need[job, to] - t.room[to]
    if c.spent[1] + relief + _psi(slopes, to, c.excess[1]) - slopes.value[to] <= threshold:
        return 1
    if depth < 2:
        return 0
    choices = t.choice.shape[1]
    hope = min(relief, 0.0)  # a chain that comes back to its origin gives this up
    c.on[origin] = c.on[to] = True
    c.member[1], c.choice[1] = 0, choices
    turn = below(seed, len(s.agent))  # lists are gone through from another place each time
    level, length, links = 1, 0, 0
    while level > 0 and length == 0 and links < _LINKS:
        here = c.agent[level]
        if c.choice[level] >= choices:  # the next job to eject
            if c.member[level] >= s.held[here]:
                c.on[here] = False
                level -= 1
                continue
            out = s.member[here, (turn + c.member[level]) % s.held[here]]
            c.member[level] += 1
            links += 1
            change = _psi(slopes, here, c.excess[level] - t.need[out, here]) - slopes.value[here]
            spent = c.spent[level] + change - t.extra[out, here]
            if spent + hope <= threshold:
                c.job[level], c.spent[level + 1], c.choice[level] = out, spent, 0
            continue
        out, there = c.job[level], t.choice[c.job[level], c.choice[level]]
        c.choice[level] += 1
        if there == here or (c.on[there] and there != origin):
            continue
        # Recomputed, not taken from spent[level + 1]: a deeper search has written there.
        change = _psi(slopes, here, c.excess[level] - t.need[out, here]) - slopes.value[here]
        spent = c.spent[level] + change + t.extra[out, there] - t.extra[out, here]
        if there == origin:
            closed = _psi(slopes, origin, left + t.need[out, origin]) - slopes.value[origin]
            if spent + closed <= threshold:
                c.agent[level + 1], length = origin, level + 1
            continue
        excess = s.load[there] + t.need[out, there] - t.room[there]
        if spent + relief + _psi(slopes, there, excess) - slopes.value[there] <= threshold:
            c.agent[level + 1], length = there, level + 1
        elif level + 2 <= depth and spent + hope - slopes.value[there] <= threshold:
            level += 1
            c.agent[level], c.spent[level], c.excess[level] = there, spent, excess
            c.member[level], c.choice[level] = 0, choices
            c.on[there] = True
    for step in range(level + 1):
        c.on[c.agent[step]] = False
    return length
