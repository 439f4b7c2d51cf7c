"""What the Ising solvers run with; `mpc-ray plan tune` searches these ranges. Temperatures are in σ (`Graph.scale`)."""

from __future__ import annotations

from dataclasses import dataclass

from mpc_ray.planner.settings import ranged


@dataclass(frozen=True)
class MaxcutSettings:
    """Settings of tempering, of annealing and of the merging of solutions."""

    cold: float = ranged(0.1, 0.02, 0.4, "coldest temperature")
    hot: float = ranged(0.7, 0.4, 1.5, "hottest temperature")
    sweeps: int = ranged(3000, 100, 100_000, "sweeps of one annealing, before solutions are merged")
    merged: int = ranged(8, 2, 32, "solutions that are merged at once")
    rounds: int = ranged(500, 20, 10_000, "rounds of tempering on a merged problem")
    small: int = ranged(
        3000, 0, 1_000_000, "up to so many vertices one of two threads tempers the whole problem"
    )
