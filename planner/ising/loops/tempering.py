"""Rounds of parallel tempering, and of annealing, over the lanes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.draws import unit
from mpc_ray.planner.ising.loops.lanes import descend, fill, settle, sweep
from mpc_ray.planner.ising.loops.layout import LANES

FRESH = 10_000  # sweeps until the table of logarithms is filled anew


@compiled
def temper(
    first: Any,
    others: Any,
    couplings: Any,
    h: Any,
    s: Any,
    table: Any,
    half: Any,
    lane: Any,
    energy: Any,
    state: Any,
    rounds: Any,
    best: Any,
    least: Any,
    taken: Any,
    tried: Any,
) -> Any:
    """`rounds` of a sweep and swaps between neighbouring temperatures; the least energy so far, its spins in `best`.

    `half[t]` is half of temperature t, coldest first, `lane[t]` the copy that has it. `taken` and `tried` count swaps.
    """
    n = s.shape[0]
    now = np.empty(LANES, np.float32)
    field = np.empty(n, np.int64)
    one = np.empty(n, np.int8)
    for m in range(rounds):
        for t in range(LANES):
            now[lane[t]] = half[t]
        sweep(first, others, couplings, h, s, now, table, energy, state)
        low = 0
        for r in range(1, LANES):
            if energy[r] < energy[low]:
                low = r
        if energy[low] < least:
            for i in range(n):
                one[i] = s[i, low]
            found = energy[low] + descend(first, others, couplings, one, field)
            if found < least:
                least = found
                best[:] = one
        for t in range(m & 1, LANES - 1, 2):
            a, b = lane[t], lane[t + 1]
            d = (0.5 / half[t] - 0.5 / half[t + 1]) * (energy[b] - energy[a])
            tried[t] += 1
            if d <= 0 or d < -np.log(unit(state)):
                taken[t] += 1
                lane[t], lane[t + 1] = b, a
    return least


@compiled
def anneal(
    first: Any,
    others: Any,
    couplings: Any,
    h: Any,
    s: Any,
    table: Any,
    energy: Any,
    state: Any,
    hot: Any,
    cold: Any,
    start: Any,
    stop: Any,
    sweeps: Any,
    best: Any,
    least: Any,
) -> Any:
    """Sweeps `start` to `stop` of a run of `sweeps` whose half temperature falls in a line; then, at its end, the
    descent of each copy. The least energy so far, its spins in `best`."""
    n = s.shape[0]
    now = np.empty(LANES, np.float32)
    for m in range(start, stop):
        half = hot + (cold - hot) * m / max(1, sweeps - 1)
        for r in range(LANES):
            now[r] = half
        sweep(first, others, couplings, h, s, now, table, energy, state)
        if m % FRESH == FRESH - 1:
            fill(table, state)
    if stop == sweeps:
        one = np.empty(n, np.int8)
        found = settle(first, others, couplings, s, energy, one, np.empty(n, np.int8), np.empty(n, np.int64))
        if found < least:
            best[:] = one
            return found
    return least
