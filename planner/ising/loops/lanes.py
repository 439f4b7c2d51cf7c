"""Metropolis sweeps over 32 copies at once, with the fields h_i = Σ J_ij s_j kept up to date.

`h` and `s` are [vertices, LANES], so one vertex of all copies is one run of memory. Flipping costs the vertex's degree,
once for all copies that flip. No logarithm is taken in a sweep: `table` holds -ln u for 2^16 uniform u, and a vertex
reads 32 of them from a random place on; it is filled anew from time to time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.draws import draw, unit
from mpc_ray.planner.ising.loops.layout import LANES
from mpc_ray.planner.ising.loops.vector import visit_16, visit_32


@compiled
def fill(table: Any, state: Any) -> Any:
    """-ln u for each place of the table, which is TABLE + LANES long."""
    for i in range(table.shape[0]):
        table[i] = -np.log(unit(state))


@compiled
def scatter(s: Any, state: Any) -> Any:
    """Random spins."""
    for i in range(s.shape[0]):
        bits = draw(state)
        for r in range(LANES):
            s[i, r] = 1 if (bits >> np.uint64(r + 16)) & np.uint64(1) else -1


@compiled
def fields(first: Any, others: Any, couplings: Any, s: Any, h: Any, energy: Any) -> Any:
    """Fields and energies (each edge once) of all copies, from nothing."""
    for r in range(LANES):
        energy[r] = 0
    for i in range(s.shape[0]):
        for r in range(LANES):
            h[i, r] = 0
        for k in range(first[i], first[i + 1]):
            j, w = others[k], couplings[k]
            for r in range(LANES):
                h[i, r] += w * s[j, r]
        for r in range(LANES):
            energy[r] -= np.int64(s[i, r]) * h[i, r]
    for r in range(LANES):
        energy[r] //= 2


@compiled
def sweep(
    first: Any, others: Any, couplings: Any, h: Any, s: Any, half: Any, table: Any, energy: Any, state: Any
) -> Any:
    """One Metropolis step at each vertex of each copy; `half[r]` is half the temperature of copy r (float32).

    `h`, `s` and `couplings` are all int16 (fields up to 2^14) or all int32; `energy` is int32.
    """
    narrow = h.itemsize == 2
    for i in range(s.shape[0]):
        logarithms = table.ctypes.data + 4 * np.int64(draw(state) >> np.uint64(48))
        if narrow:
            visit_16(
                h.ctypes.data, s.ctypes.data, i, logarithms, half.ctypes.data, energy.ctypes.data,
                others.ctypes.data, couplings.ctypes.data, first[i], first[i + 1],
            )  # fmt: skip
        else:
            visit_32(
                h.ctypes.data, s.ctypes.data, i, logarithms, half.ctypes.data, energy.ctypes.data,
                others.ctypes.data, couplings.ctypes.data, first[i], first[i + 1],
            )  # fmt: skip


@compiled
def descend(first: Any, others: Any, couplings: Any, s: Any, h: Any) -> Any:
    """Flip single spins of one copy while that lowers E; how far it fell. The descent that ends every solver."""
    fall = 0
    for i in range(s.shape[0]):
        field = 0
        for k in range(first[i], first[i + 1]):
            field += couplings[k] * s[others[k]]
        h[i] = field
    moved = True
    while moved:
        moved = False
        for i in range(s.shape[0]):
            if s[i] * h[i] < 0:
                fall += 2 * s[i] * h[i]
                s[i] = -s[i]
                moved = True
                for k in range(first[i], first[i + 1]):
                    h[others[k]] += 2 * couplings[k] * s[i]
    return fall


@compiled
def energy_of(first: Any, others: Any, couplings: Any, s: Any) -> Any:
    """E of one copy, each edge once."""
    total = 0
    for i in range(s.shape[0]):
        for k in range(first[i], first[i + 1]):
            total -= couplings[k] * s[i] * s[others[k]]
    return total // 2


@compiled
def settle(
    first: Any, others: Any, couplings: Any, s: Any, energy: Any, best: Any, scratch: Any, h: Any
) -> Any:
    """Descend a copy of each lane; the best of them is left in `best`. Its energy, and each lane's in `energy`."""
    least = np.int64(1) << 62
    for r in range(LANES):
        for i in range(s.shape[0]):
            scratch[i] = s[i, r]
        energy[r] += descend(first, others, couplings, scratch, h)
        for i in range(s.shape[0]):
            s[i, r] = scratch[i]
        if energy[r] < least:
            least = energy[r]
            best[:] = scratch
    return least
