"""CP-SAT on the makespan: plans that are proved, and the bound that other plans are held against.

Jobs of one class (group, residency, labels) are interchangeable here, so the variables are counts: y_ct jobs of class c
on triple t, N_gt of a group, k_gt batches. For each group and triple

    seconds ≥ fixed_v·k_gt + item_v·N_gt,     B·k_gt ≥ N_gt,    k_gt ≤ N_gt

where one variant v is the faster for every size of batch; else a table of N over the least seconds of full batches and
a rest, which is optimal, as the seconds of a batch are concave in its size. The makespan is above every queue and every
link. A bound on the makespan alone: F has terms that depend on order.

OR-Tools (the extra `planner`) is needed; where it is missing, asking for this solver is a ProblemError.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np

from mpc_ray.planner.jobs.clock import Lane
from mpc_ray.planner.jobs.loops.layout import Array
from mpc_ray.planner.jobs.search import Search
from mpc_ray.planner.jobs.settings import JobSettings
from mpc_ray.planner.problem import ProblemError

TICKS = 1000  # to a second: times are whole numbers of ticks here


@dataclass(frozen=True)
class Proof:
    """`bound_s`: no plan has a shorter makespan. `place` is the best plan found, None for none; `proved` that it is
    optimal, to a tick a batch."""

    bound_s: float
    makespan_s: float | None
    place: Array | None
    proved: bool


def exact(search: Search, lane: Lane, s: JobSettings, name: str = "exact") -> None:
    """CP-SAT for the makespan until the lane is over or optimality is proved; queues are then ordered for F.

    With a budget of moves it works for a fixed amount of its own deterministic time, a second for 100,000 moves.
    """
    seconds = lane.left() if lane.moves is None else None
    work = None if lane.moves is None else lane.moves / 100_000
    proof = prove(search, seconds=seconds, work=work, seed=lane.seed() % 2**31)
    if proof.place is not None:
        search.offer(proof.place, search.settled(proof.place), name)


def prove(
    search: Search,
    *,
    seconds: float | None = None,
    work: float | None = None,
    seed: int = 0,
    workers: int = 1,
) -> Proof:
    """Run CP-SAT for `seconds` of the clock, or `work` of deterministic time, from the best plan of `search`."""
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise ProblemError("solver exact needs OR-Tools: pip install 'mpc-ray[planner]'") from error
    d = search.data
    model = cp_model.CpModel()
    members = [np.flatnonzero(d.klass == c) for c in range(len(d.choices))]
    hint = search.best.place
    horizon = ceil(TICKS * search.best.measures.makespan_s) + 1
    counts: dict[tuple[int, int], Any] = {}
    amounts: dict[tuple[int, int], list[tuple[Any, int, int]]] = {}
    for c, jobs in enumerate(members):
        if not len(jobs):
            continue
        triples = d.choice[c, : d.choices[c]].tolist()
        for t in triples:
            there = int((hint[jobs] == t).sum())
            counts[c, t] = y = model.new_int_var(0, len(jobs), "")
            model.add_hint(y, there)
            amounts.setdefault((int(d.group[jobs[0]]), t), []).append((y, len(jobs), there))
        model.add(sum(counts[c, t] for t in triples) == len(jobs))
    makespan = model.new_int_var(0, horizon, "")
    model.add_hint(makespan, horizon)
    queues: list[list[Any]] = [[] for _ in range(search.triples)]
    loads: list[list[Any]] = [[] for _ in range(len(d.capacity))]
    for (g, t), parts in amounts.items():
        total = sum(most for _, most, _ in parts)
        there = sum(now for _, _, now in parts)
        amount = model.new_int_var(0, total, "")
        model.add(amount == sum(y for y, _, _ in parts))
        model.add_hint(amount, there)
        queues[t].append(_seconds(model, search, g, t, amount, total, there, horizon))
        least = float(d.nbytes[:, g].min())  # whichever variant runs, a link carries no less
        for l in np.flatnonzero(d.pairs[t]):
            loads[l].append(floor(TICKS * least * d.pairs[t, l] / d.capacity[l]) * amount)
    for t, queue in enumerate(queues):
        if queue:
            model.add(sum(queue) + floor(TICKS * float(d.free[t])) <= makespan)
    for load in loads:
        if load:
            model.add(sum(load) <= makespan)
    model.minimize(makespan)
    solver = cp_model.CpSolver()
    if seconds is not None:
        solver.parameters.max_time_in_seconds = max(0.001, seconds)
    if work is not None:
        solver.parameters.max_deterministic_time = work
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        bound = 0.0 if status == cp_model.UNKNOWN else solver.best_objective_bound / TICKS
        return Proof(max(0.0, bound), None, None, False)
    place = np.empty(search.n, np.int64)
    for c, jobs in enumerate(members):
        at = 0
        for t in d.choice[c, : d.choices[c]].tolist() if len(jobs) else ():
            count = solver.value(counts[c, t])
            place[jobs[at : at + count]] = t
            at += count
    table = search.table(place, np.zeros(search.triples, np.int64))
    return Proof(
        solver.best_objective_bound / TICKS, float(table.end.max()), place, status == cp_model.OPTIMAL
    )


def _seconds(
    model: Any, search: Search, g: int, t: int, amount: Any, total: int, there: int, horizon: int
) -> Any:
    """Ticks of `amount` jobs of g on t, rounded down, as an expression."""
    d, batch = search.data, search.compiled.batch
    sizes = np.arange(1, batch + 1)
    times = d.fixed[:, g, t, None] + d.item[:, g, t, None] * sizes  # [V, batch]
    least = times.min(axis=0)
    always = np.flatnonzero((times <= least + 1e-12).all(axis=1))
    if len(always):
        v = int(always[0])
        number = model.new_int_var(0, ceil(total / batch), "")
        model.add(batch * number >= amount)
        model.add(number <= amount)
        model.add_hint(number, ceil(there / batch))
        return (
            floor(TICKS * float(d.fixed[v, g, t])) * number + floor(TICKS * float(d.item[v, g, t])) * amount
        )
    table = [0] + [
        floor(TICKS * float(n // batch * least[-1] + (least[n % batch - 1] if n % batch else 0.0)))
        for n in range(1, total + 1)
    ]
    ticks = model.new_int_var(0, max(horizon, table[-1]), "")
    model.add_element(amount, table, ticks)
    model.add_hint(ticks, table[there])
    return ticks
