"""Solvers that walk over plans by native moves: descent, annealing, tempering, and the control.

A plan keeps every hard limit at every step, so there is no penalty and nothing to repair. Moves: send a job to one of
its quickest triples or to where another of its group is; swap two jobs; send a job's whole group from its queue; cut or
order a queue otherwise (`walk.walk`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc_ray.planner.jobs.clock import Lane
from mpc_ray.planner.jobs.loops.queues import State
from mpc_ray.planner.jobs.loops.walk import walk
from mpc_ray.planner.jobs.search import Candidate, Search
from mpc_ray.planner.jobs.settings import JobSettings
from mpc_ray.planner.jobs.timetable import tail_of

Array = np.ndarray[Any, np.dtype[Any]]


def _walk(
    search: Search,
    lane: Lane,
    s: JobSettings,
    state: State,
    at: Candidate,
    moves: int,
    heat: tuple[float, float],
    below: float,
    name: str,
) -> tuple[Candidate, float]:
    """One walk from `state`, m and z by the plan `at`; the best plan met, and the value at which the walk ended."""
    latency = at.table.end[at.table.batch] - search.data.arrived
    goal = search.goal(at.measures.makespan_s, tail_of(latency)[1], below, strict=lane.strict)
    place, mode, found = np.empty_like(state.place), np.empty_like(state.mode), np.zeros(2)
    shares = np.array([s.swaps, s.groups, s.recuts, s.mates])
    began = search.clock.now()
    walk(
        search.data,
        state,
        goal,
        search.mates,
        search.first_mate,
        s.near,
        search.orphans,
        moves,
        heat[0],
        heat[1],
        shares,
        place,
        mode,
        found,
    )
    lane.used(moves, search.clock.now() - began)
    return search.offer(place, mode, name), float(found[1])


def annealing(
    search: Search, lane: Lane, s: JobSettings, name: str = "annealing", start: Candidate | None = None
) -> None:
    """Simulated annealing (Kirkpatrick, Gelatt and Vecchi, 1983) from the best plan so far, or from `start`.

    A move that changes the value by Δ is taken if Δ ≤ 0, else with probability exp(-Δ/T), while T falls from
    hot·F/n to cold·F/n with what is left of the lane, from a tenth of that where there is a start or a previous plan;
    m rises towards the makespan as it falls.
    """
    at = search.best if start is None else start
    hot = s.hot if start is None and not search.warm else max(s.cold, 0.1 * s.hot)
    state = search.state(at.place, search.mode_of(at), lane.seed())
    unit = search.guard.measures.energy / max(1, search.n)
    began = lane.fraction()
    done = 0.0
    slices = lane.slices(s.slices)
    while moves := lane.take(slices):
        after = min(1.0, done + 1.0 / slices)
        heat = (_between(hot, s.cold, done) * unit, _between(hot, s.cold, after) * unit)
        found, _ = _walk(search, lane, s, state, at, moves, heat, _between(s.deep, s.shallow, done), name)
        if found.rank < at.rank or found.measures.makespan_s < at.measures.makespan_s:
            at = found
        done = min(1.0, (lane.fraction() - began) / max(1e-9, 1.0 - began))


def descent(
    search: Search,
    lane: Lane,
    s: JobSettings,
    start: tuple[Array, Array] | None = None,
    name: str = "descent",
) -> None:
    """Local search: moves that make nothing worse, in random order; when 30 moves a job have found nothing better, a
    few jobs of the best plan go elsewhere at random and it begins again (iterated local search; Lourenço, Martin and
    Stützle, 2003)."""
    best = search.best if start is None else search.offer(*start, name)
    state = search.state(best.place, search.mode_of(best), lane.seed())
    slices = lane.slices(s.slices)
    while moves := lane.take(slices):
        below = _between(s.deep, s.shallow, min(1.0, 2 * lane.fraction()))
        at, _ = _walk(search, lane, s, state, best, min(moves, 30 * search.n), (0.0, 0.0), below, name)
        if at.rank < best.rank:
            best = at
            continue
        state = search.state(_kicked(search, lane, best.place, s.kick), search.mode_of(best), lane.seed())


def tempering(search: Search, lane: Lane, s: JobSettings, name: str = "tempering") -> None:
    """Parallel tempering (Geyer, 1991; Hukushima and Nemoto, 1996) on native moves.

    `ladder` plans walk at temperatures from cold·F/n to hot·F/n; after each round neighbours k, k+1 change places
    with probability min(1, exp((1/T_k - 1/T_k+1)·(E_k - E_k+1))).
    """
    at = search.best
    count = max(2, s.ladder)
    unit = search.guard.measures.energy / max(1, search.n)
    heats = [_between(s.cold, s.hot, k / (count - 1)) * unit for k in range(count)]
    states = [search.state(at.place, search.mode_of(at), lane.seed()) for _ in heats]
    values = [0.0] * count
    while moves := lane.take(4 * s.slices):
        each = max(1, moves // count)
        below = _between(s.deep, s.shallow, lane.fraction())
        origin = at
        for k, heat in enumerate(heats):
            found, values[k] = _walk(search, lane, s, states[k], origin, each, (heat, heat), below, name)
            at = min(at, found, key=lambda one: one.rank)
        for k in range(count - 1):
            gain = (1 / heats[k] - 1 / heats[k + 1]) * (values[k] - values[k + 1])
            if gain >= 0 or lane.random.random() < np.exp(gain):
                states[k], states[k + 1] = states[k + 1], states[k]
                values[k], values[k + 1] = values[k + 1], values[k]


def control(search: Search, lane: Lane, s: JobSettings, name: str = "random") -> None:
    """The control: random plans, each brought down by the same descent as everything else, until the lane is over.

    What a cleverer start is worth is what it gains over this.
    """
    while lane.fraction() < 1.0:
        part = lane.part(0.25 if lane.fraction() < 0.7 else 1.0)
        place = random_plan(search, lane)
        descent(search, part, s, (place, search.settled(place)), name)
        lane.join(part)
        if part.done == 0:
            return


def random_plan(search: Search, lane: Lane) -> Array:
    """A triple for each job, any of those allowed being as likely as another."""
    d = search.data
    which = (lane.random.random(search.n) * d.choices[d.klass]).astype(np.int64)
    place: Array = d.choice[d.klass, which]
    return place


def greedy(search: Search, lane: Lane, s: JobSettings, name: str = "greedy") -> None:
    """Greedy by marginal F: the jobs one by one, longest first and by due date, each where F grows least."""
    d = search.data
    alone = (d.fixed + d.item).min(axis=0)
    longest = np.argsort(-alone[d.group, d.choice[d.klass, 0]], kind="stable")
    for turn in (longest, np.arange(search.n)):
        place = search.filled(np.full(search.n, -1, np.int64), turn, 3, s.near)
        search.offer(place, search.settled(place), name)


def _between(first: float, last: float, share: float) -> float:
    """Geometrically from `first` (share 0) to `last` (share 1)."""
    return float(first * (last / first) ** share)


def _kicked(search: Search, lane: Lane, place: Array, share: float) -> Array:
    """`place` with a share of the jobs somewhere else, the most moves allowed."""
    kicked = place.copy()
    if search.warm:  # whom to move is the price's to say
        return kicked
    anew = random_plan(search, lane)
    chosen = lane.random.integers(0, search.n, max(1, int(share * search.n)))
    kicked[chosen] = anew[chosen]
    return kicked
