"""The compiled loop of bifurcation on the Potts form of a workload; `potts` states the equations."""

from __future__ import annotations

import numpy as np

from mpc_ray.planner.compiled import compiled
from mpc_ray.planner.jobs.loops.layout import Array, Data

NORM = 6.0  # of queues and links, in place of their maximum
FIRST, LAST = 2.0, 12.0  # sharpness of the softmax
STEP = 0.5
PULL = 0.5


@compiled
def marginal(d: Data, g: int, t: int, k: float, batch: int) -> tuple[float, float, int]:
    """Seconds of k jobs of g (a fraction) on t, their derivative, and the faster variant.

    k jobs make φ(k) = k/B + (1 - 1/B)(1 - e^-k) batches: one for the first job, k/B for many.
    """
    fade = np.exp(-k)
    count = k / batch + (1.0 - 1.0 / batch) * (1.0 - fade)
    slope = 1.0 / batch + (1.0 - 1.0 / batch) * fade
    best, least = 0, d.fixed[0, g, t] * count + d.item[0, g, t] * k
    if k <= 0.0:
        least = d.fixed[0, g, t] + d.item[0, g, t]
    for v in range(1, d.fixed.shape[0]):
        time = d.fixed[v, g, t] * count + d.item[v, g, t] * k
        if k <= 0.0:
            time = d.fixed[v, g, t] + d.item[v, g, t]
        if time < least:
            best, least = v, time
    rise = d.fixed[best, g, t] * slope + d.item[best, g, t]
    return (0.0 if k <= 0.0 else least), rise, best


@compiled
def bifurcate(
    d: Data, near: int, steps: int, batch: int, position: Array, speed: Array, place: Array
) -> None:
    """Move `position` and `speed` [n, near] through the bifurcation; `place` [n] becomes each job's leading triple."""
    n, T, G, L = len(d.group), len(d.free), d.fixed.shape[1], len(d.capacity)
    share, force = np.zeros((n, near)), np.zeros((n, near))
    amount, rise, kind = np.zeros((G, T)), np.zeros((G, T)), np.zeros((G, T), np.int64)
    length, jobs, load = np.zeros(T), np.zeros(T), np.zeros(L)
    w = d.weights
    for step in range(steps):
        passed = (step + 1.0) / steps
        sharp = FIRST + (LAST - FIRST) * passed
        amount[:] = 0.0
        for j in range(n):
            most, total = min(near, d.choices[d.klass[j]]), 0.0
            for q in range(most):
                share[j, q] = np.exp(sharp * (position[j, q] - 1.0))
                total += share[j, q]
            for q in range(most):
                share[j, q] /= total
                amount[d.group[j], d.choice[d.klass[j], q]] += share[j, q]
        length[:] = d.free
        jobs[:] = 0.0
        load[:] = 0.0
        for g in range(G):
            for t in range(T):
                seconds, rise[g, t], kind[g, t] = marginal(d, g, t, amount[g, t], batch)
                length[t] += seconds
                jobs[t] += amount[g, t]
                for l in range(L):
                    load[l] += amount[g, t] * d.nbytes[kind[g, t], g] * d.pairs[t, l] / d.capacity[l]
        top = 1e-12
        for t in range(T):
            top = max(top, length[t])
        for l in range(L):
            top = max(top, load[l])
        total = 0.0
        for t in range(T):
            total += (length[t] / top) ** NORM
        for l in range(L):
            total += (load[l] / top) ** NORM
        norm = top * total ** (1.0 / NORM)
        squares, count = 0.0, 0
        for j in range(n):
            c, g = d.klass[j], d.group[j]
            most, mean = min(near, d.choices[c]), 0.0
            for q in range(most):
                t = d.choice[c, q]
                more = rise[g, t]
                f = w[0] * (length[t] / norm) ** (NORM - 1.0) * more
                f += w[1] * 0.5 * (jobs[t] * more + length[t] + more) / n
                sent = d.nbytes[kind[g, t], g]
                f += w[5] * sent * d.price[t] / n
                for l in range(L):
                    f += w[0] * (load[l] / norm) ** (NORM - 1.0) * sent * d.pairs[t, l] / d.capacity[l]
                force[j, q] = f
                mean += f
            mean /= most
            for q in range(most):
                force[j, q] -= mean
                squares += force[j, q] ** 2
                count += 1
        scale = 1.0 / np.sqrt(squares / max(1, count) + 1e-30)
        for j in range(n):
            for q in range(min(near, d.choices[d.klass[j]])):
                pull = PULL * scale * force[j, q] + (1.0 - passed) * position[j, q]
                speed[j, q] -= STEP * pull
                x = position[j, q] + STEP * speed[j, q]
                if x > 1.0 or x < -1.0:
                    x = 1.0 if x > 0.0 else -1.0
                    speed[j, q] = 0.0
                position[j, q] = x
    for j in range(n):
        c, best = d.klass[j], 0
        for q in range(1, min(near, d.choices[c])):
            if position[j, q] > position[j, best]:
                best = q
        place[j] = d.choice[c, best]
