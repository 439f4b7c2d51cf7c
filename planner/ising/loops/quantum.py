"""Path-integral Monte Carlo of the transverse-field Ising model: the 32 lanes are the Trotter slices of one ring."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.draws import draw
from mpc_ray.planner.ising.loops.layout import LANES


@compiled
def quantum_sweep(
    first: Any,
    others: Any,
    couplings: Any,
    h: Any,
    s: Any,
    half: Any,
    between: Any,
    table: Any,
    energy: Any,
    state: Any,
) -> Any:
    """One step at each vertex of each slice, even slices first: neighbours in imaginary time must not flip at once.

    `half`: half of P times the temperature; `between`: P times the coupling of neighbouring slices.
    """
    step = np.empty(LANES, h.dtype)
    for i in range(s.shape[0]):
        at = np.int64(draw(state) >> np.uint64(48))
        for parity in range(2):
            some = False
            for r in range(LANES):
                step[r] = 0
            for r in range(parity, LANES, 2):
                beside = s[i, (r + 1) % LANES] + s[i, (r + LANES - 1) % LANES]
                up = np.int64(s[i, r]) * h[i, r]
                if up + between * s[i, r] * beside <= half * table[at + r]:
                    step[r] = -2 * s[i, r]
                    energy[r] += 2 * up
                    some = True
            if some:
                for r in range(LANES):
                    s[i, r] += step[r]
                for k in range(first[i], first[i + 1]):
                    j, w = others[k], couplings[k]
                    for r in range(LANES):
                        h[j, r] += w * step[r]
