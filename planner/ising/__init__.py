"""Maximum cut and Ising problems: the planner's core for hard spin problems, and solvers to hold against public ones.

from mpc_ray.planner.ising import maxcut, read

answer = maxcut(read(Path("G1.txt")), seconds=10)
answer.cut, answer.spins
"""

from __future__ import annotations

from mpc_ray.planner.ising.problem import Graph, from_edges, read
from mpc_ray.planner.ising.run import Point
from mpc_ray.planner.ising.settings import MaxcutSettings
from mpc_ray.planner.ising.solve import PORTFOLIO, SOLVERS, Cut, maxcut, warm

__all__ = [
    "PORTFOLIO",
    "SOLVERS",
    "Cut",
    "Graph",
    "MaxcutSettings",
    "Point",
    "from_edges",
    "maxcut",
    "read",
    "warm",
]
