"""What a choice of settings is worth in training, and whether it may replace the defaults."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

WORST = 0.5  # weight of the worst problem beside the mean: no family is sold for the others


@dataclass(frozen=True)
class Verdict:
    """The best against the defaults on held-out problems, in natural logarithms (0.01 is about one per cent).

    `improvement`: mean over problems and seeds; `by_seed`: over problems, for each seed. `spread`: how far the mean
    over problems moves by the seed alone, with the defaults or with the best, whichever moves more. `median` and
    `worst` are over problems. `better`: the improvement is larger than the spread.
    """

    improvement: float
    spread: float
    by_seed: tuple[float, ...]
    median: float
    worst: float
    better: bool


def loss(values: Sequence[float], defaults: Sequence[float]) -> float:
    """Of the problems seen so far: mean of ln(value / default's value), and half the largest of them. 0 is as good."""
    apart = [value - default for value, default in zip(values, defaults, strict=True)]
    return statistics.fmean(apart) + WORST * max(apart)


def judge(best: Sequence[Sequence[float]], defaults: Sequence[Sequence[float]]) -> Verdict:
    """Compare logarithms [problems][seeds] of the best settings with the defaults', on the same problems and seeds."""
    gains = [
        [default - value for value, default in zip(row, base, strict=True)]
        for row, base in zip(best, defaults, strict=True)
    ]
    by_seed = tuple(statistics.fmean(column) for column in zip(*gains, strict=True))
    by_problem = [statistics.fmean(row) for row in gains]
    improvement = statistics.fmean(by_seed)
    spread = max(_spread(best), _spread(defaults))
    return Verdict(
        improvement, spread, by_seed, statistics.median(by_problem), min(by_problem), improvement > spread
    )


def _spread(rows: Sequence[Sequence[float]]) -> float:
    """Largest less smallest, over seeds, of the mean over problems."""
    means = [statistics.fmean(column) for column in zip(*rows, strict=True)]
    return max(means) - min(means)
