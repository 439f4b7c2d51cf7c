"""Simulated annealing of 32 copies, and the merging of its solutions into smaller problems.

`annealing` is plain: T falls in a line from hot to cold, then the descent, again and again (Kirkpatrick et al. 1983).

`merging` keeps the solutions. Vertices that have the same relation to each other in several of them are joined to one,
which leaves a problem of the places where they differ; it is tempered from the solutions themselves, and its answer is
at least as good as the best of them (renormalisation for optimisation, Houdayer and Martin 1999; partition crossover,
Whitley et al. 2009). Answers are merged with answers in turn.
"""

from __future__ import annotations

import numpy as np

from mpc_ray.planner.ising.loops.layout import LANES
from mpc_ray.planner.ising.problem import Array
from mpc_ray.planner.ising.run import Lanes, Run, descended
from mpc_ray.planner.ising.settings import MaxcutSettings
from mpc_ray.planner.ising.tempering import Ladder

PIECE = 600_000
LAST = 0.9  # share of the budget after which no annealing begins that would not end in it


def annealing(run: Run, settings: MaxcutSettings) -> None:
    """Anneal to the end of the budget. The first run is short, so that there is an answer; then they get longer."""
    sweeps = max(20, settings.sweeps // 8)
    while run.more():
        anneal(run, settings, sweeps)
        sweeps = min(2 * sweeps, 4 * settings.sweeps)


def anneal(run: Run, settings: MaxcutSettings, sweeps: int) -> Array | None:
    """One run of 32 copies: their solutions, [copies, vertices]; None if the budget ended before."""
    from mpc_ray.planner.ising.loops.tempering import anneal as loop

    lanes = Lanes.scattered(run.rows, run.rng)
    hot, cold = (end * run.graph.scale / 2 for end in (settings.hot, settings.cold))
    piece = max(1, PIECE // run.graph.vertices)
    found, energy = run.best.copy(), run.energy
    begin = 0
    while begin < sweeps:
        end = min(begin + piece, sweeps)
        if not run.more():
            end = sweeps = begin  # cold is where it is now: the descent finishes it
        energy = loop(
            *run.rows, lanes.h, lanes.s, lanes.table, lanes.energy, lanes.state,
            hot, cold, begin, end, sweeps, found, energy,
        )  # fmt: skip
        run.spent(end - begin)
        if end == begin:
            break
        begin = end
    run.found(found, int(energy))
    return lanes.s.T.astype(np.int8) if run.more() else None


def merging(run: Run, settings: MaxcutSettings) -> None:
    """Anneal, merge the solutions, and merge the answers, to the end of the budget."""
    levels: list[list[Array]] = [[]]
    sweeps = settings.sweeps
    while run.more():
        before = run.share()
        solutions = anneal(run, settings, sweeps)
        if solutions is None:
            break
        fresh = list(solutions)
        level = 0
        while fresh and run.more():
            if len(levels) == level:
                levels.append([])
            levels[level] += fresh
            fresh = []
            while len(levels[level]) >= settings.merged and run.more():
                group, levels[level] = levels[level][: settings.merged], levels[level][settings.merged :]
                fresh.append(merge(run, settings, np.array(group), settings.rounds))
            level += 1
        took = run.share() - before
        if run.share() + took > LAST:  # no whole turn is left: merge all that there is, then anneal shorter
            rest = [one for part in levels[1:] for one in part] + [run.best]
            levels = [[], [merge(run, settings, np.array(rest[-2 * LANES :]), 4 * settings.rounds)]]
            sweeps = max(20, sweeps // 3)


def merge(run: Run, settings: MaxcutSettings, solutions: Array, rounds: int) -> Array:
    """One solution, at least as good as each of `solutions` ([solutions, vertices], ±1)."""
    from mpc_ray.planner.ising.loops.merging import components

    solutions = np.unique(solutions * solutions[:, :1], axis=0)
    first: Array = solutions[0]
    if len(solutions) == 1:
        return first
    differs = solutions != first
    weights = np.random.default_rng(len(solutions)).integers(1, 1 << 62, len(solutions))
    pattern = (differs * weights[:, None]).sum(axis=0)  # equal for equal columns, and hardly ever else
    label, count = components(run.rows[0], run.rows[1], pattern)
    if count == 1:
        return first
    rows = contract(run, label, count, first)
    place = np.empty(count, np.int64)
    place[label[::-1]] = np.arange(len(label))[::-1]
    starts = np.where(differs[:, place], -1, 1).astype(np.int8)
    lanes = Lanes.holding(rows, starts, run.rng)
    ladder = Ladder(settings.cold * run.graph.scale, settings.hot * run.graph.scale)
    low = int(lanes.energy.argmin())
    best, energy = lanes.s[:, low].astype(np.int8), int(lanes.energy[low])
    piece = max(1, min(rounds, PIECE // count))
    for _ in range(0, rounds, piece):
        best, energy = ladder.climb(lanes, piece, best, energy)
        run.spent(piece, count)
        if not run.more():
            break
    merged = descended(run.rows, first * best[label])
    run.found(merged, run.energy_of(merged))
    return merged


def contract(run: Run, label: Array, count: int, first: Array) -> tuple[Array, Array, Array]:
    """The rows of the problem in which each component is one spin, relative to the solution `first`."""
    starts, others, couplings = run.rows
    vertex = np.repeat(np.arange(len(label)), np.diff(starts))
    a, b = label[vertex], label[others]
    kept = a != b
    values = couplings[kept].astype(np.int64) * first[vertex[kept]] * first[others[kept]]
    keys, inverse = np.unique(a[kept] * count + b[kept], return_inverse=True)
    sums = np.zeros(len(keys), np.int64)
    np.add.at(sums, inverse, values)
    keys, sums = keys[sums != 0], sums[sums != 0]
    begins = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(keys // count, minlength=count), out=begins[1:])
    return begins, (keys % count).astype(np.int32), sums.astype(np.int32)
