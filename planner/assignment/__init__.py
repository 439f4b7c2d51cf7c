"""Generalised assignment: each job to one agent, within capacities, at the least cost.

from mpc_ray.planner.assignment import read, solve

answer = solve(read(Path("d05100")), seconds=10, seed=1)
answer.status, answer.cost, answer.bound, answer.agents
"""

from __future__ import annotations

from mpc_ray.planner.assignment.files import parse, read, write
from mpc_ray.planner.assignment.generate import KINDS, generate
from mpc_ray.planner.assignment.problem import Answer, Assignment
from mpc_ray.planner.assignment.settings import GapSettings
from mpc_ray.planner.assignment.solve import DEFAULT, SOLVERS, solve, warm

__all__ = [
    "DEFAULT",
    "KINDS",
    "SOLVERS",
    "Answer",
    "Assignment",
    "GapSettings",
    "generate",
    "parse",
    "read",
    "solve",
    "warm",
    "write",
]
