"""Simulated quantum annealing: path-integral Monte Carlo of the Ising model in a transverse field Γ.

P = 32 slices of imaginary time, each a copy at P times the temperature T, neighbours held together by
J⊥ = −(P·T/2)·ln tanh(Γ/(P·T)) (Suzuki 1976; Martoňák, Santoro and Tosatti 2002). Γ falls in a line to nearly 0 while T
stays. A classical algorithm that samples a quantum model; it runs on no quantum hardware and gains none of its speed.
"""

from __future__ import annotations

from math import log, tanh

import numpy as np

from mpc_ray.planner.ising.loops.layout import LANES
from mpc_ray.planner.ising.run import Lanes, Run
from mpc_ray.planner.ising.settings import MaxcutSettings

FIELD = 1.5  # Γ at the start, in σ
PIECE = 100_000


def quantum_annealing(run: Run, settings: MaxcutSettings) -> None:
    """Anneal in Γ, again and again to the end of the budget."""
    from mpc_ray.planner.ising.loops.lanes import fill, settle
    from mpc_ray.planner.ising.loops.quantum import quantum_sweep

    n, scale = run.graph.vertices, run.graph.scale
    slices_t = max(settings.cold, 0.1) * scale * 0.5 * LANES / 8  # P·T
    sweeps, piece = max(20, settings.sweeps // 4), max(1, PIECE // n)
    while run.more():
        lanes = Lanes.scattered(run.rows, run.rng)
        for m in range(sweeps):
            if m % piece == 0 and not run.more():
                break
            field = FIELD * scale * (1 - m / sweeps) + 1e-3 * scale
            between = -slices_t / 2 * log(tanh(field / slices_t))
            quantum_sweep(
                *run.rows, lanes.h, lanes.s, slices_t / 2, between, lanes.table, lanes.energy, lanes.state
            )
            run.spent(1)
            if m % 1000 == 999:
                fill(lanes.table, lanes.state)
        best = np.empty(n, np.int8)
        energy = settle(*run.rows, lanes.s, lanes.energy, best, np.empty(n, np.int8), np.empty(n, np.int64))
        run.found(best, int(energy))
