"""The cost model, and what measurements say of it.

A batch of n jobs of one group takes, on a triple with round-trip time RTT, slowest rate s and slowest bandwidth β,

    D = overhead_s + rounds·(R × RTT) + n·(work·(w ÷ s) + nbytes·(b ÷ β))

for a variant of R rounds and b bytes a job; the factors are 1 and the overhead 0 until they were measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from mpc_ray.planner.jobs.workload import Calibration, Group, Variant
from mpc_ray.planner.problem import ProblemError

Array = np.ndarray[Any, np.dtype[Any]]


def predicted_s(
    group: Group, variant: Variant, n: int, *, rtt_s: float, rate: float, bandwidth: float, c: Calibration
) -> float:
    """Seconds of a batch of n."""
    each = c.work * group.work_s / rate + c.nbytes * variant.nbytes / bandwidth
    return c.overhead_s + c.rounds * variant.rounds * rtt_s + n * each


@dataclass(frozen=True)
class Measurement:
    """A batch that ran: the parts of its prediction before calibration, and how long it took, all in seconds."""

    rounds_s: float  # rounds × RTT
    work_s: float  # n × work ÷ rate
    nbytes_s: float  # n × bytes ÷ bandwidth
    took_s: float


@dataclass(frozen=True)
class Fit:
    """A calibration, and the relative error |predicted - took| / took of its predictions: mean and largest."""

    calibration: Calibration
    mean_error: float
    largest_error: float


def error_of(c: Calibration, measured: Sequence[Measurement]) -> tuple[float, float]:
    """Mean and largest relative error of the predictions under `c`: the metric of a model in use."""
    _check(measured)
    parts, took = _matrix(measured)
    errors = np.abs(parts @ np.array([c.overhead_s, c.rounds, c.work, c.nbytes]) - took) / took
    return float(errors.mean()), float(errors.max())


def fit(measured: Sequence[Measurement]) -> Fit:
    """The calibration with the least squared relative error, none of its four numbers below 0.

    Non-negative least squares by trying each set of factors that may be 0 (16 of them). A part that never varies
    cannot be told from the overhead; factors of parts that are all zero stay 1. Raises ProblemError without
    measurements, or where one is not a number.
    """
    _check(measured)
    parts, took = _matrix(measured)
    rows, ones = parts / took[:, None], np.ones(len(took))
    seen = [k for k in range(4) if parts[:, k].any()]
    best, least = np.array([0.0, 1.0, 1.0, 1.0]), np.inf
    for chosen in range(1, 1 << len(seen)):
        columns = [k for i, k in enumerate(seen) if chosen >> i & 1]
        found = np.linalg.lstsq(rows[:, columns], ones, rcond=None)[0]
        if (found < 0).any():
            continue
        whole = np.array([0.0, 1.0, 1.0, 1.0])
        whole[seen] = 0.0
        whole[columns] = found
        squares = float(((rows @ whole - 1.0) ** 2).sum())
        if squares < least - 1e-12:
            best, least = whole, squares
    calibration = Calibration(*(float(value) for value in best))
    return Fit(calibration, *error_of(calibration, measured))


def _check(measured: Sequence[Measurement]) -> None:
    if not measured:
        raise ProblemError("there are no measurements to fit")
    for number, one in enumerate(measured):
        for name, value in vars(one).items():
            if not isfinite(value) or value < 0 or (name == "took_s" and value == 0):
                raise ProblemError(f"measurement {number}: {name} is {value}")


def _matrix(measured: Sequence[Measurement]) -> tuple[Array, Array]:
    parts = np.array([[1.0, one.rounds_s, one.work_s, one.nbytes_s] for one in measured])
    return parts, np.array([one.took_s for one in measured])
