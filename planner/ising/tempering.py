"""Parallel tempering: 32 copies at 32 temperatures, one Metropolis sweep each, then swaps between neighbours.

A swap is taken if Δ = (1/T_k − 1/T_k+1)(E_k+1 − E_k) ≤ 0 or Δ < −ln u (Hukushima and Nemoto 1996). The temperatures
begin geometric; in the first tenth of the budget they are placed anew a few times, so that all neighbours swap equally
often: with Gaussian energies a swap rate A is a distance erfc⁻¹(A), and distances along the ladder are made equal.
"""

from __future__ import annotations

from math import erfc

import numpy as np

from mpc_ray.planner.ising.loops.layout import LANES
from mpc_ray.planner.ising.problem import Array
from mpc_ray.planner.ising.run import Lanes, Run
from mpc_ray.planner.ising.settings import MaxcutSettings

PIECE = 600_000  # vertices visited between two looks at the clock: about 30 ms
ADAPTED = 0.1  # share of the budget in which the ladder is adapted
LEAST_DISTANCE = 0.02


def tempering(run: Run, settings: MaxcutSettings) -> None:
    """Temper the whole problem to the end of the budget."""
    lanes = Lanes.scattered(run.rows, run.rng)
    temper_on(run, lanes, settings.cold * run.graph.scale, settings.hot * run.graph.scale)


def temper_on(run: Run, lanes: Lanes, cold: float, hot: float) -> None:
    """Temper the copies in `lanes`, which are of the run's own problem, to the end of the budget."""
    ladder = Ladder(cold, hot)
    rounds = max(1, PIECE // lanes.vertices)
    next_look = 0.0
    while run.more():
        found, energy = ladder.climb(lanes, rounds, run.best, run.energy)
        run.spent(rounds)
        run.found(found, energy)
        done = run.share()
        if done >= next_look and done < ADAPTED:
            ladder.adapt()
            next_look = max(1.5 * done, 0.005)


class Ladder:
    """32 temperatures and the copies that have them."""

    def __init__(self, cold: float, hot: float) -> None:
        self.half = (np.geomspace(cold, hot, LANES) / 2).astype(np.float32)
        self.lane = np.arange(LANES)
        self.taken, self.tried = np.zeros(LANES), np.zeros(LANES)

    def climb(self, lanes: Lanes, rounds: int, best: Array, energy: int) -> tuple[Array, int]:
        """Some rounds; the better of what was best and what they found."""
        from mpc_ray.planner.ising.loops.lanes import fill
        from mpc_ray.planner.ising.loops.tempering import temper

        found = best.astype(np.int8, copy=True)
        fill(lanes.table, lanes.state)
        energy = temper(
            *lanes.rows, lanes.h, lanes.s, lanes.table, self.half, self.lane, lanes.energy, lanes.state,
            rounds, found, energy, self.taken, self.tried,
        )  # fmt: skip
        return found, int(energy)

    def adapt(self) -> None:
        """Place the temperatures so that neighbours swap equally often, by the swaps so far; count anew."""
        rates = np.clip((self.taken[:-1] + 1) / (self.tried[:-1] + 2), 1e-3, 1 - 1e-3)
        distance = np.array([max(_inverse_erfc(rate), LEAST_DISTANCE) for rate in rates])
        distance = np.maximum(distance, 0.25 * distance.mean())
        along = np.concatenate([[0.0], np.cumsum(distance)])
        wanted = np.linspace(0.0, along[-1], LANES)
        self.half = np.exp(np.interp(wanted, along, np.log(self.half))).astype(np.float32)
        self.taken[:], self.tried[:] = 0, 0


def _inverse_erfc(value: float) -> float:
    low, high = 0.0, 3.0
    for _ in range(40):
        middle = (low + high) / 2
        if erfc(middle) > value:
            low = middle
        else:
            high = middle
    return (low + high) / 2
