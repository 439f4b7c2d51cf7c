"""OR-Tools CP-SAT on generalised assignment: the yardstick, the proof that nothing better is left, and the last resort.

The model has a Boolean for each pair of job and agent, exactly one true for each job, and one linear constraint for
each capacity. CP-SAT is L. Perron and F. Didier's solver of OR-Tools (lazy clause generation, LP and large
neighbourhood search). It is an optional package, and takes whole numbers: decimals are scaled to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc_ray.planner.assignment.problem import Agents, Assignment, Status, unit_of
from mpc_ray.planner.problem import ProblemError

_LARGEST = 2**50  # of sums: CP-SAT counts in 64 bits


@dataclass(frozen=True)
class Exact:
    """ "none found" as `status`: the time was over. `bound` holds for the pairs and costs that were allowed."""

    status: Status
    agents: Agents | None
    bound: float


def installed() -> bool:
    """Whether OR-Tools is here."""
    return find_spec("ortools") is not None


def cp_sat(
    problem: Assignment,
    *,
    seconds: float | None = None,
    work: float | None = None,
    seed: int = 0,
    workers: int = 1,
    pairs: NDArray[np.bool_] | None = None,
    below: float | None = None,
    cheapest: bool = True,
    on_start: Callable[[Callable[[], None]], None] | None = None,
    on_better: Callable[[float, Agents], None] | None = None,
) -> Exact:
    """The best assignment CP-SAT finds within `seconds`, or within `work` of its own deterministic time.

    Args:
        pairs: [agents, jobs], which are allowed; None: all that fit.
        below: only assignments that cost less.
        cheapest: False: any assignment will do, costs are ignored.
        on_start: called with a function that ends the search from another thread.
        on_better: called with cost and agents of each better assignment, in CP-SAT's thread.

    Raises:
        ProblemError: OR-Tools is not installed, or the numbers have too many digits for whole numbers of 50 bits.
    """
    if not installed():
        raise ProblemError("solver cp-sat needs the package ortools: pip install 'mpc-ray[planner]'")
    from ortools.sat.python import cp_model

    costs, cost_unit = _whole(problem.costs, "costs")
    needs, need_unit = _whole(problem.needs, "needs")
    room = np.floor(problem.capacities / need_unit + 1e-9).astype(np.int64)
    allowed = problem.allowed if pairs is None else problem.allowed & pairs
    model = cp_model.CpModel()
    held: list[list[tuple[int, Any]]] = [[] for _ in range(problem.agents)]
    paid: list[tuple[int, Any]] = []
    chosen: list[list[tuple[int, Any]]] = []
    for j in range(problem.jobs):
        row = [(int(i), model.new_bool_var("")) for i in np.flatnonzero(allowed[:, j])]
        if not row:
            return Exact("infeasible", None, np.inf)
        model.add_exactly_one(x for _, x in row)
        for i, x in row:
            held[i].append((int(needs[i, j]), x))
            paid.append((int(costs[i, j]), x))
        chosen.append(row)
    for i, items in enumerate(held):
        if sum(w for w, _ in items) > room[i]:
            model.add(_sum(items) <= int(room[i]))
    if below is not None:
        model.add(_sum(paid) <= int(np.ceil(below / cost_unit - 1e-6)) - 1)
    if cheapest:
        model.minimize(_sum(paid))

    def agents_of(value: Callable[[Any], Any]) -> Agents:
        return np.array([next(i for i, x in row if value(x)) for row in chosen], np.int64)

    solver = cp_model.CpSolver()
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed % 2**31
    if seconds is not None:
        solver.parameters.max_time_in_seconds = max(seconds, 0.01)
    if work is not None:
        solver.parameters.max_deterministic_time = work
    if on_start is not None:
        on_start(solver.stop_search)

    class Watch(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            if on_better is not None:
                agents = agents_of(self.boolean_value)
                on_better(problem.cost_of(agents), agents)

    code = solver.solve(model, Watch())
    if code == cp_model.INFEASIBLE:
        return Exact("infeasible", None, np.inf)
    bound = float(solver.best_objective_bound * cost_unit) if cheapest else 0.0
    if code in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        agents = agents_of(solver.boolean_value)
        return Exact("optimal" if code == cp_model.OPTIMAL and cheapest else "feasible", agents, bound)
    return Exact("none found", None, bound)


def _whole(values: NDArray[np.float64], what: str) -> tuple[NDArray[np.int64], float]:
    """`values` as multiples of a unit, and the unit."""
    unit = unit_of(values)
    if unit is None or values.sum() / unit > _LARGEST:
        raise ProblemError(
            f"solver cp-sat counts in whole numbers, and the {what} have too many digits for it"
        )
    return np.rint(values / unit).astype(np.int64), unit


def _sum(items: list[tuple[int, Any]]) -> Any:
    from ortools.sat.python import cp_model

    return cp_model.LinearExpr.weighted_sum([x for _, x in items], [w for w, _ in items])
