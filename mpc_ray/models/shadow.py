"""Shadow mode: how far the values on shares are from float, place by place.

The model's owner, who here is also the client, asks the parties for their summands of the normalised rows after every
norm, adds them up and compares them with the folded model in float64 on the same padded input. Only real tokens
count. Normalised rows have mean square 1, so drifts at all layers are in one unit.

Not for anyone else: what is traced are hidden states, from which a text can be reconstructed and a model copied. The
parties refuse it unless their own setting says ``shadow``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpc_ray.errors import MpcError
from mpc_ray.models import bert
from mpc_ray.models.clear import FloatBlocks, FloatInput, run_clear
from mpc_ray.models.fold import Folded
from mpc_ray.models.weights import Array, BertConfig

# Of all-MiniLM-L6-v2 the mean drift is 3e-5 after the embeddings, at most 7e-4 later, and its largest 3e-2; of random
# models of 1 to 24 layers at most 6e-4 and 4e-2. A value that leaves its window makes the next rows drift by 1.
MEAN_BOUND = 2e-3
LARGEST_BOUND = 0.1


@dataclass(frozen=True)
class Drift:
    """|shares - float| of the normalised rows at one place, over ``count`` numbers, and its bounds."""

    place: str
    count: int
    mean: float
    largest: float
    mean_bound: float = MEAN_BOUND
    largest_bound: float = LARGEST_BOUND

    @property
    def ok(self) -> bool:
        return self.mean <= self.mean_bound and self.largest <= self.largest_bound


@dataclass(frozen=True)
class ShadowReport:
    """Drifts in the order of computation. ``outside``: where the range check struck, "layer/function"."""

    drifts: tuple[Drift, ...]
    outside: tuple[str, ...] = ()

    @property
    def first_outside(self) -> Drift | None:
        """The first place whose drift is outside its bound; None if all are inside."""
        return next((d for d in self.drifts if not d.ok), None)

    @property
    def ok(self) -> bool:
        """Whether every drift is inside its bound and no range check struck."""
        return self.first_outside is None and not self.outside

    def __str__(self) -> str:
        lines = [
            f"{d.place:24} mean {d.mean:.1e}  largest {d.largest:.1e}  {'' if d.ok else 'OUTSIDE'}"
            for d in self.drifts
        ]
        first = self.first_outside
        verdict = (
            "every layer is inside its bound" if first is None else f"first outside its bound: {first.place}"
        )
        if self.outside:
            verdict += f"; left the calibrated range: {', '.join(self.outside)}"
        return "\n".join([*(line.rstrip() for line in lines), verdict])


def float_rows(
    folded: Folded, config: BertConfig, program: bert.Program, given: FloatInput
) -> dict[str, Array]:
    """The normalised rows (b, n, h) that the folded model computes in float64 at each place of ``program``."""
    blocks = FloatBlocks(folded, config, real=given.real, pooling=given.pooling)
    rows: dict[str, Array] = {}
    run_clear(bert.encode(blocks, program, given.x, tap=lambda where, x: rows.update({where: x.numpy()})))
    return rows


def drifts(
    traced: Mapping[str, Array],
    wanted: Mapping[str, Array],
    real: np.ndarray,
    *,
    mean_bound: float = MEAN_BOUND,
    largest_bound: float = LARGEST_BOUND,
) -> tuple[Drift, ...]:
    """``traced`` against ``wanted`` (b, n, h) where ``real`` (b, n); places in the order of ``wanted``.

    Raises MpcError if the parties traced other places.
    """
    if list(traced) != list(wanted):
        raise MpcError(
            "the parties traced other places than the float model has", remedy="use one version everywhere"
        )
    out = []
    for where, rows in wanted.items():
        error = np.abs(traced[where][real] - rows[real])
        out.append(
            Drift(where, error.size, float(error.mean()), float(error.max()), mean_bound, largest_bound)
        )
    return tuple(out)


def merged(jobs: Sequence[tuple[Drift, ...]], outside: Sequence[str] = ()) -> ShadowReport:
    """One report of several jobs: means over all numbers, the largest of all."""
    out = []
    for same in zip(*jobs, strict=True):
        count = sum(d.count for d in same)
        mean = sum(d.mean * d.count for d in same) / count
        first = same[0]
        out.append(
            Drift(
                first.place, count, mean, max(d.largest for d in same), first.mean_bound, first.largest_bound
            )
        )
    return ShadowReport(tuple(out), tuple(dict.fromkeys(outside)))
