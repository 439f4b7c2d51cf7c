"""What is to be scheduled: jobs over triples of workers, as plain data.

A *triple* is three workers, one for each party. A *job* belongs to a *group* (model, bucket and protocol: what may
share a batch) and may run on the triples whose **three** workers meet its residency, labels and memory and hold its
model. A *link* joins two regions, or the workers of one; batches that run at once share its capacity.

Seconds, bytes and dollars throughout. Nothing here is checked when it is made: `arrays.compile_workload` does it once,
refuses what cannot run with the reason, and lets the rest be planned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf


@dataclass(frozen=True)
class Worker:
    """A machine that computes for one party.

    `rate` is its speed relative to the one that `Group.work_s` was measured on; `models` are those it holds, None for
    all; `trust` is the operator it belongs to.
    """

    name: str
    region: str
    trust: str = ""
    rate: float = 1.0
    memory_gb: float = inf
    models: frozenset[str] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Triple:
    """Three workers that compute together, one batch at a time.

    `free_at_s` says when the batch that runs now ends. `rtt_s` and `bandwidth`, where measured between these very
    workers, win over those of the links.
    """

    name: str
    workers: tuple[Worker, Worker, Worker]
    free_at_s: float = -inf
    rtt_s: float | None = None
    bandwidth: float | None = None


@dataclass(frozen=True)
class Link:
    """Between two regions, or inside one. `bandwidth` is bytes a second of one pair of workers, `capacity` of all."""

    between: tuple[str, str]
    rtt_s: float
    bandwidth: float
    capacity: float = inf
    usd_per_gb: float = 0.0


@dataclass(frozen=True)
class Variant:
    """One way to run a protocol: rounds of a batch, and bytes that each pair of parties exchanges for one job."""

    name: str
    rounds: float
    nbytes: float


@dataclass(frozen=True)
class Group:
    """Jobs that may share a batch. `work_s` is one job's computing at rate 1; the faster variant is taken."""

    name: str
    model: str
    work_s: float
    variants: tuple[Variant, ...]
    memory_gb: float = 0.0


@dataclass(frozen=True)
class Job:
    """One request. It may run where all three workers stand in `regions` (None: anywhere), none in
    `forbidden_regions`, and all carry `labels`."""

    name: str
    group: str
    arrival_s: float = 0.0
    due_s: float = inf
    regions: frozenset[str] | None = None
    forbidden_regions: frozenset[str] = frozenset()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Weights:
    """What a plan is worth (the energy F): seconds, and what a dollar and a late job cost in seconds. A policy.

    F = makespan·max(longest queue, busiest link) + (mean·Σ latency + tardiness·Σ tardiness + late·late jobs
    + dollars·Σ dollars) / jobs + tail·(mean latency of the worst 5 %)
    """

    makespan: float = 1.0
    mean: float = 1.0
    tail: float = 0.5
    tardiness: float = 2.0
    late: float = 0.5
    dollars: float = 20.0


@dataclass(frozen=True)
class Calibration:
    """What measurements say of the model of a batch of n (`cost.fit` finds it):

    D = overhead_s + rounds·(rounds × RTT) + n·(work·(work ÷ rate) + nbytes·(bytes ÷ bandwidth))
    """

    overhead_s: float = 0.0
    rounds: float = 1.0
    work: float = 1.0
    nbytes: float = 1.0


@dataclass(frozen=True)
class Workload:
    """Jobs that wait at `now_s`, and where they may run.

    `batch` is the most jobs that one batch takes. With `distinct_trust` a triple needs three workers of three named
    operators; without it, as on one's own machine, anything goes.
    """

    jobs: tuple[Job, ...]
    triples: tuple[Triple, ...]
    links: tuple[Link, ...]
    groups: tuple[Group, ...]
    weights: Weights = Weights()
    batch: int = 8
    now_s: float = 0.0
    distinct_trust: bool = True
    calibration: Calibration = Calibration()
