"""What the default solver of generalised assignment runs with; `mpc-ray plan tune` searches these ranges."""

from __future__ import annotations

from dataclasses import dataclass

from mpc_ray.planner.settings import ranged


@dataclass(frozen=True)
class GapSettings:
    """Settings of the annealing with ejection chains (`chains`)."""

    choices: int = ranged(4, 2, 10, "agents of each job that are worth trying, the cheapest at the prices")
    depth: int = ranged(4, 1, 6, "jobs that one chain moves at most")
    proposals: int = ranged(
        400, 20, 5000, "proposals of one run for each job; runs are repeated to the clock"
    )
    hot: float = ranged(
        0.3, 0.02, 3.0, "first temperature, in median differences between a job's two cheapest agents"
    )
    cold: float = ranged(0.02, 0.001, 0.5, "last temperature, in the same unit")
    span: float = ranged(0.8, 0.1, 1.0, "share of a run until slack costs its full price")
    overload: float = ranged(
        1.5, 1.05, 10.0, "price of overload at the start of a run, in prices of capacity"
    )
    again: float = ranged(0.0, 0.0, 1.0, "share of runs that begin at the best assignment known")
