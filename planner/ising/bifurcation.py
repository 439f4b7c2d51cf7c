"""Simulated bifurcation: positions x_i that are driven apart until their signs are spins.

    y_i += dt·(−(1 − a)·x_i + c0·Σ J_ij f(x_j)),   x_i += dt·y_i,   |x_i| > 1 → x_i = sgn x_i, y_i = 0

with a from 0 to 1 in a line. Ballistic (f = x) and discrete (f = sgn x): Goto et al., Science Advances 7 (2021).
Generalised: each spin has a pressure q_i of its own instead of 1 − a, which falls faster for spins that have not
decided, q_i −= (1 − A·x_i²)·q_i / (M − m) (Goto et al. 2025, as its published rule reads). The step respects the
spectrum, dt < 2/√(1 + c0·|λ_min(J)|): with the fixed step of the literature cuts stayed 3 % short. Classical
mechanics, whatever its name: no quantum effect is simulated.
"""

from __future__ import annotations

import numpy as np

from mpc_ray.planner.ising.loops.layout import LANES
from mpc_ray.planner.ising.run import Lanes, Run
from mpc_ray.planner.ising.settings import MaxcutSettings

STEPS = 3000
MOST_STEP, SHARE_OF_LIMIT = 1.25, 0.85
GENERAL = 1.0
PIECE = 300_000


def ballistic(run: Run, settings: MaxcutSettings) -> None:
    """bSB, again and again to the end of the budget."""
    _bifurcate(run, discrete=False, general=0.0)


def discrete(run: Run, settings: MaxcutSettings) -> None:
    """dSB."""
    _bifurcate(run, discrete=True, general=0.0)


def generalised(run: Run, settings: MaxcutSettings) -> None:
    """GSB with the discrete force."""
    _bifurcate(run, discrete=True, general=GENERAL)


def _bifurcate(run: Run, *, discrete: bool, general: float) -> None:
    from mpc_ray.planner.ising.loops.bifurcation import bifurcate, least_eigenvalue
    from mpc_ray.planner.ising.loops.lanes import settle

    n = run.graph.vertices
    strength = 0.5 / run.graph.scale
    least = least_eigenvalue(*run.rows, run.rng.standard_normal(n), 60)
    dt = min(MOST_STEP, SHARE_OF_LIMIT * 2 / np.sqrt(1 + strength * 1.02 * least))
    steps, piece = STEPS, max(1, PIECE // n)
    while run.more():
        x, y = (run.rng.uniform(-0.1, 0.1, (n, LANES)).astype(np.float32) for _ in range(2))
        q = np.ones((n, LANES), np.float32)
        begin = 0
        while begin < steps and run.more():
            end = min(begin + piece, steps)
            bifurcate(
                *run.rows, x, y, q, np.float32(strength), np.float32(dt), begin, end, steps, discrete, general
            )
            run.spent(end - begin)
            begin = end
        lanes = Lanes.holding(run.rows, np.where(x.T >= 0, 1, -1).astype(np.int8), run.rng)
        best = np.empty(n, np.int8)
        energy = settle(*run.rows, lanes.s, lanes.energy, best, np.empty(n, np.int8), np.empty(n, np.int64))
        run.found(best, int(energy))
