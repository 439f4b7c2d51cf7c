"""The control: random spins and the same descent that ends every solver. What it reaches, no idea was needed for."""

from __future__ import annotations

import numpy as np

from mpc_ray.planner.ising.run import Lanes, Run
from mpc_ray.planner.ising.settings import MaxcutSettings


def descent(run: Run, settings: MaxcutSettings) -> None:
    """Random starts and the descent by single flips, again and again to the end of the budget."""
    from mpc_ray.planner.ising.loops.lanes import settle

    n = run.graph.vertices
    while run.more():
        lanes = Lanes.scattered(run.rows, run.rng)
        best = np.empty(n, np.int8)
        energy = settle(*run.rows, lanes.s, lanes.energy, best, np.empty(n, np.int8), np.empty(n, np.int64))
        run.spent(4)  # a descent is a few sweeps
        run.found(best, int(energy))
