"""Steps of simulated bifurcation over 32 replicas: positions x and momenta y, [vertices, LANES], float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.ising.loops.layout import LANES


@compiled
def bifurcate(
    first: Any,
    others: Any,
    couplings: Any,
    x: Any,
    y: Any,
    q: Any,
    strength: Any,
    dt: Any,
    start: Any,
    stop: Any,
    steps: Any,
    discrete: Any,
    general: Any,
) -> Any:
    """Steps `start` to `stop` of `steps`. `discrete`: the force is that of the signs. `general` > 0: GSB with that A,
    each spin's own pressure q; 0: one pressure for all, which falls in a line."""
    n = x.shape[0]
    force = np.empty((n, LANES), np.float32)
    for m in range(start, stop):
        pressure = np.float32(1.0 - m / steps)
        for i in range(n):
            for r in range(LANES):
                force[i, r] = 0.0
            for k in range(first[i], first[i + 1]):
                j, w = others[k], np.float32(couplings[k])
                if discrete:
                    for r in range(LANES):
                        force[i, r] += w if x[j, r] >= 0 else -w
                else:
                    for r in range(LANES):
                        force[i, r] += w * x[j, r]
        for i in range(n):
            for r in range(LANES):
                if general > 0:
                    q[i, r] -= (1 - general * x[i, r] * x[i, r]) * q[i, r] / (steps - m)
                    held = q[i, r]
                else:
                    held = pressure
                y[i, r] += dt * (strength * force[i, r] - held * x[i, r])
                x[i, r] += dt * y[i, r]
                if x[i, r] > 1:
                    x[i, r], y[i, r] = 1.0, 0.0
                elif x[i, r] < -1:
                    x[i, r], y[i, r] = -1.0, 0.0


@compiled
def least_eigenvalue(first: Any, others: Any, couplings: Any, v: Any, times: Any) -> Any:
    """|λ_min(J)| by power iterations on J shifted by its largest row sum; `v` is a random start."""
    n = v.shape[0]
    shift = 0.0
    for i in range(n):
        row = 0.0
        for k in range(first[i], first[i + 1]):
            row += abs(couplings[k])
        shift = max(shift, row)
    value = 0.0
    for _ in range(times):
        new = np.empty(n, np.float64)
        for i in range(n):
            total = 0.0
            for k in range(first[i], first[i + 1]):
                total += couplings[k] * v[others[k]]
            new[i] = shift * v[i] - total
        length = np.sqrt((new * new).sum())
        if length == 0:
            return 0.0
        value = length
        v[:] = new / length
    return max(0.0, value - shift)
