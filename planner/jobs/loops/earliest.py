"""Batch-aware earliest completion as a compiled loop; `earliest` defines it."""

from __future__ import annotations

import numpy as np

from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.jobs.loops.layout import Array, Data


@compiled
def fill_queues(
    d: Data, turn: Array, step: Array, place: Array, of_job: Array, triple: Array, kind: Array, size: Array
) -> int:
    """As `earliest._fill_queues`: the same places, batches and sizes."""
    batch, G, T = step.shape
    end = d.free.copy()
    adds = step[0].copy()
    open_batch = np.full((G, T), -1, np.int64)
    count = 0
    for j in turn:
        g, c = d.group[j], d.klass[j]
        least, t = np.inf, 0
        for x in range(T):  # not the candidate list: among equals the first triple wins
            if d.allowed[c, x] and end[x] + adds[g, x] < least:
                least, t = end[x] + adds[g, x], x
        end[t] = least
        b = open_batch[g, t]
        if b < 0:
            b = count
            count += 1
            open_batch[g, t] = b
            triple[b], kind[b], size[b] = t, g, 0
        size[b] += 1
        if size[b] == batch:
            open_batch[g, t] = -1
            adds[g, t] = step[0, g, t]
        else:
            adds[g, t] = step[size[b], g, t]
        place[j], of_job[j] = t, b
    return count
