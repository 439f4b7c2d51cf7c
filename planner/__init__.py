"""The planner: which node holds which party. Plain data in, plan out; it knows neither Ray nor mpc-ray.

    from mpc_ray.planner import Node, Problem, plan

    answer = plan(Problem(nodes=(Node("a", cpus=4), Node("b", cpus=4), Node("c", cpus=4))))
    answer.nodes        # ("a", "b", "c")

A solver is any function from a problem to a plan; greedy is the baseline that later ones must beat.
"""

from __future__ import annotations

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
    "Solver",
    "greedy",
    "plan",
    "violations",
]


def plan(problem: Problem, solver: Solver = greedy) -> Plan:
    """Solve `problem` and check the answer before anyone acts on it.

    Raises:
        Infeasible: there is no placement; `reason` says why.
        AssertionError: the solver's plan breaks a rule of the problem (a bug in the solver).
    """
    answer = solver(problem)
    broken = violations(problem, answer)
    if broken:
        name = getattr(solver, "__name__", repr(solver))
        raise AssertionError(f"{name} broke the problem's rules: {'; '.join(broken)}")
    return answer
