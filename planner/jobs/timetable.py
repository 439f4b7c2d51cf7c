"""A plan in full, with times, and its measures: what a person is told, and what plans are compared by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpc_ray.planner.jobs.loops.layout import TAIL, Array, Data, Timetable

ROUNDING = 1e-9  # seconds


@dataclass(frozen=True)
class Measures:
    """Seconds, dollars, jobs. Latency counts from a job's arrival; `p95_s` is numpy's default quantile.

    `makespan_s` is the end of the last batch, or, where that is later, the time in which the busiest link can carry
    its bytes. `tail_s` is the mean of the worst 5 % of latencies, `energy` the objective F of `Weights`.
    """

    energy: float
    makespan_s: float
    mean_s: float
    p95_s: float
    tail_s: float
    tardiness_s: float
    late: int
    dollars: float
    jobs: int

    def behind(self, other: Measures) -> float:
        """How much worse than `other`: the shares by which makespan, mean and p95 are longer, and the share of jobs
        that are late beyond the other's, added up. 0.0 where it is worse in none of the four."""
        worse = 0.0
        for mine, theirs in (
            (self.makespan_s, other.makespan_s),
            (self.mean_s, other.mean_s),
            (self.p95_s, other.p95_s),
        ):
            if mine > theirs + ROUNDING:
                worse += (mine - theirs) / max(theirs, ROUNDING)
        return worse + max(0, self.late - other.late) / max(1, self.jobs)


def best_of(one: Measures, *others: Measures) -> Measures:
    """In each of the measures the best of several plans: a bar that no plan need reach in all."""
    every = (one, *others)
    return Measures(*(min(getattr(m, name) for m in every) for name in Measures.__dataclass_fields__))


def tail_of(latency: Array) -> tuple[float, float]:
    """Mean of the worst 5 % of latencies, fractions of a job counted, and the z at which it is taken."""
    share = TAIL * len(latency)
    at = len(latency) - 1 - min(len(latency) - 1, int(share))
    z = float(np.partition(latency, at)[at])
    return z + float(np.maximum(latency - z, 0.0).sum()) / share, z


def measures(d: Data, table: Timetable) -> Measures:
    """What a timetable is worth."""
    n = len(d.group)
    if n == 0:
        return Measures(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0.0, 0)
    end = table.end[table.batch]
    latency = end - d.arrived
    tardy = np.maximum(end - d.due, 0.0)
    sent = table.size * d.nbytes[table.variant, table.group]
    dollars = float((sent * d.price[table.triple]).sum())
    makespan = float(end.max())
    if len(d.capacity):
        makespan = max(makespan, float((sent @ d.pairs[table.triple] / d.capacity).max()))
    mean, tardiness, late = float(latency.mean()), float(tardy.mean()), int((tardy > ROUNDING).sum())
    tail, _ = tail_of(latency)
    w = d.weights
    energy = (
        w[0] * makespan + w[1] * mean + w[2] * tail + w[3] * tardiness + (w[4] * late + w[5] * dollars) / n
    )
    p95 = float(np.quantile(latency, 0.95))
    return Measures(float(energy), makespan, mean, p95, tail, tardiness, late, dollars, n)
