"""The answer: which job runs where, in which batch and when; what it is worth; who was refused, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mpc_ray.planner.jobs.arrays import Compiled
from mpc_ray.planner.jobs.loops.layout import Timetable
from mpc_ray.planner.jobs.timetable import Measures


@dataclass(frozen=True)
class Point:
    """What one solver had reached after `seconds`: F, and whether the plan is worse than the yardstick in nothing."""

    seconds: float
    solver: str
    energy: float
    guarded: bool


@dataclass(frozen=True)
class Batch:
    """Jobs that run together on one triple. Times are on the clock of the workload, like its arrivals."""

    triple: str
    group: str
    variant: str
    jobs: tuple[str, ...]
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Schedule:
    """A plan for a workload.

    `measures` are what it is predicted to reach, `yardstick` what batch-aware earliest completion would. `solver` found
    it in `seconds`; `moved` jobs left the triple of the previous plan. `notes` say what a reader must know: that the
    compiled loops were not loaded, for instance. `history` is each solver's way down.
    """

    measures: Measures
    yardstick: Measures
    solver: str
    seconds: float
    moved: int
    refused: Mapping[str, str]
    notes: tuple[str, ...]
    history: tuple[Point, ...]
    compiled: Compiled
    table: Timetable

    @cached_property
    def placement(self) -> dict[str, str]:
        """The triple of each job that was not refused."""
        triple = self.table.triple[self.table.batch].tolist()
        return {name: self.compiled.triple[t] for name, t in zip(self.compiled.job, triple, strict=True)}

    @cached_property
    def batches(self) -> tuple[Batch, ...]:
        """All batches, by triple, in order of starting."""
        c, table = self.compiled, self.table
        order = np.argsort(table.batch, kind="stable").tolist()
        found, at = [], 0
        for b, count in enumerate(table.size.tolist()):
            group, triple, variant = int(table.group[b]), int(table.triple[b]), int(table.variant[b])
            found.append(
                Batch(
                    c.triple[triple],
                    c.group[group],
                    c.variant[group][variant],
                    tuple(c.job[j] for j in order[at : at + count]),
                    c.now_s + float(table.start[b]),
                    c.now_s + float(table.end[b]),
                )
            )
            at += count
        return tuple(found)

    @property
    def guarded(self) -> bool:
        """Whether it is worse than the yardstick in none of makespan, mean, p95 and late jobs."""
        return self.measures.behind(self.yardstick) == 0

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "solver": self.solver,
            "seconds": self.seconds,
            "measures": asdict(self.measures),
            "yardstick": asdict(self.yardstick),
            "guarded": self.guarded,
            "moved": self.moved,
            "placement": self.placement,
            "batches": [asdict(batch) for batch in self.batches],
            "refused": dict(self.refused),
            "notes": list(self.notes),
            "history": [asdict(point) for point in self.history],
        }
