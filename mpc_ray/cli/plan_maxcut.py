"""``mpc-ray plan maxcut``: cut a graph in two with one of the planner's Ising solvers."""

from __future__ import annotations

from mpc_ray.errors import InputError


def maxcut() -> None:
    """Cut a graph in two so that the weight between the halves is largest."""
    raise InputError("not built yet", remedy="wait")
