"""The planner: who computes what, and where. Plain data in, plan out; it knows neither Ray nor mpc-ray.

Two problems, one entry. `plan` takes either, and answers with the plan of that kind:

    Problem    three parties on the nodes of a cluster                       → Plan
    Workload   jobs over triples of workers: which triple, batch and turn    → Schedule

    from mpc_ray.planner import Node, Problem, plan

    answer = plan(Problem(nodes=(Node("a", cpus=4), Node("b", cpus=4), Node("c", cpus=4))))
    answer.nodes        # ("a", "b", "c")

    from mpc_ray.planner.jobs import Recipe, generate

    schedule = plan(generate(Recipe(jobs=20, triples=6)), deadline_s=0.2)
    schedule.placement  # {"j0": "t3", …}

A solver of the first is any function from a problem to a plan; those of the second have names (`jobs.plan_jobs`).
"""

from __future__ import annotations

from typing import Any, overload

from mpc_ray.planner.jobs.schedule import Schedule
from mpc_ray.planner.jobs.solve import plan_jobs
from mpc_ray.planner.jobs.workload import Workload
from mpc_ray.planner.plan import Infeasible, Plan, Solver, violations
from mpc_ray.planner.problem import PARTIES, UNKNOWN_TRUST, Node, Problem, ProblemError, Requirement
from mpc_ray.planner.solvers.greedy import greedy

__all__ = [
    "PARTIES",
    "UNKNOWN_TRUST",
    "Infeasible",
    "Node",
    "Plan",
    "Problem",
    "ProblemError",
    "Requirement",
    "Schedule",
    "Solver",
    "Workload",
    "greedy",
    "plan",
    "plan_jobs",
    "violations",
]


@overload
def plan(problem: Problem, solver: Solver = ...) -> Plan: ...


@overload
def plan(problem: Workload, solver: str = ..., **options: Any) -> Schedule: ...


def plan(problem: Problem | Workload, solver: Solver | str | None = None, **options: Any) -> Plan | Schedule:
    """Solve `problem` and check the answer before anyone acts on it.

    A `Problem` takes a function as its solver (`greedy` by default), a `Workload` the name of one and the options of
    `jobs.plan_jobs`: a deadline or a number of moves, a seed, the previous plan.

    Raises:
        Infeasible: there is no placement; `reason` says why. (A job that fits nowhere is in `Schedule.refused`.)
        ProblemError: the workload contradicts itself, or an option is out of range.
        AssertionError: the solver's plan breaks a rule of the problem (a bug in the solver).
        TypeError: a solver or an option of the other kind.
    """
    if isinstance(problem, Workload):
        if solver is not None and not isinstance(solver, str):
            raise TypeError("a workload's solver is named, for instance 'annealing'")
        return plan_jobs(problem, **({} if solver is None else {"solver": solver}), **options)
    if isinstance(solver, str) or options:
        raise TypeError("a placement problem takes a function as its solver, and no options")
    chosen = greedy if solver is None else solver
    answer = chosen(problem)
    broken = violations(problem, answer)
    if broken:
        name = getattr(chosen, "__name__", repr(chosen))
        raise AssertionError(f"{name} broke the problem's rules: {'; '.join(broken)}")
    return answer
