"""The same trace under several policies, side by side.

planner       the plan of jobs that come one by one (`live`)
earliest      batch-aware earliest completion: the yardstick
round-robin   each job to the next triple that may run it, in turn
fewest        the fewer jobs of two triples at random: what Ray Serve does
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from mpc_ray.planner.jobs.arrays import Compiled, compile_workload
from mpc_ray.planner.jobs.emulate import Outcome, Policy, World, emulate
from mpc_ray.planner.jobs.policies import Earliest, fewest, round_robin
from mpc_ray.planner.jobs.settings import JobSettings
from mpc_ray.planner.jobs.trace import Trace
from mpc_ray.planner.problem import ProblemError
from mpc_ray.planner.settings import section

POLICIES = ("planner", "earliest", "round-robin", "fewest")


@dataclass(frozen=True)
class Row:
    """One policy's run. `planning_s`: the longest that the policy took for one decision; `broken`: hard limits that the
    batches that ran would have broken, which is always none (`violations`)."""

    policy: str
    outcome: Outcome
    planning_s: float
    broken: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data, without the batches."""
        said = asdict(self.outcome)
        del said["ran"]
        said["stranded"] = len(self.outcome.stranded)
        return {"policy": self.policy, **said, "planning_s": self.planning_s, "broken": list(self.broken)}


@dataclass(frozen=True)
class Comparison:
    """All rows, and the jobs that fit nowhere, with the reason."""

    rows: tuple[Row, ...]
    refused: dict[str, str]
    compiled: Compiled


def simulate(trace: Trace, policies: Sequence[str] = POLICIES, seed: int | None = None) -> Comparison:
    """Run the trace under each policy. Raises ProblemError: no such policy, or nothing of the trace can be planned."""
    compiled = compile_workload(trace.workload)
    rows = []
    for name in policies:
        make = policy(name, trace, trace.seed if seed is None else seed)
        watch: list[Watched] = []

        def watched(
            world: World, make: Callable[[World], Policy] = make, kept: list[Watched] = watch
        ) -> Policy:
            kept.append(Watched(make(world)))
            return kept[0]

        outcome = emulate(compiled, trace.changes, watched)
        rows.append(Row(name, outcome, watch[0].longest_s, tuple(violations(trace, compiled, outcome))))
    return Comparison(tuple(rows), dict(compiled.refused), compiled)


def policy(name: str, trace: Trace, seed: int) -> Callable[[World], Policy]:
    """What makes the policy of this name."""
    if name == "earliest":
        return Earliest
    if name == "round-robin":
        return round_robin
    if name == "fewest":
        return partial(fewest, seed=seed)
    if name != "planner":
        raise ProblemError(f"there is no policy {name}; there are {', '.join(POLICIES)}")
    from mpc_ray.planner.jobs.live import Live  # loads the compiled loops
    from mpc_ray.planner.jobs.warm import warm

    warm()
    settings: JobSettings = section("jobs")
    return lambda world: Live(world, trace.changes, seed, settings=settings)


class Watched:
    """A policy, and how long it took for its longest decision."""

    def __init__(self, inner: Policy) -> None:
        self.inner = inner
        self.longest_s = 0.0

    def arrive(self, now: float, jobs: list[int]) -> None:
        """Timed."""
        self._timed(self.inner.arrive, now, jobs)

    def changed(self, now: float, triple: int) -> None:
        """Timed."""
        self._timed(self.inner.changed, now, triple)

    def take(self, now: float, triple: int) -> list[int]:
        """Timed."""
        found: list[int] = self._timed(self.inner.take, now, triple)
        return found

    def _timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments)
        finally:
            self.longest_s = max(self.longest_s, time.perf_counter() - began)


def violations(trace: Trace, compiled: Compiled, outcome: Outcome) -> list[str]:
    """Every hard limit that a batch of the run broke, from the trace itself and not from what the policies saw."""
    jobs = {job.name: job for job in trace.workload.jobs}
    groups = {group.name: group for group in trace.workload.groups}
    found = []
    for ran in outcome.ran:
        triple = trace.workload.triples[ran.triple]
        if len(ran.jobs) > trace.workload.batch:
            found.append(f"{triple.name} ran {len(ran.jobs)} jobs at once")
        if trace.workload.distinct_trust and len({worker.trust for worker in triple.workers}) < 3:
            found.append(f"{triple.name} is not of three operators")
        for name in (compiled.job[j] for j in ran.jobs):
            job = jobs[name]
            group = groups[job.group]
            for worker in triple.workers:
                if (job.regions is not None and worker.region not in job.regions) or (
                    worker.region in job.forbidden_regions
                ):
                    found.append(f"job {name} ran in {worker.region}")
                if worker.memory_gb < group.memory_gb:
                    found.append(f"job {name} ran on {worker.name}, which has too little memory")
                if worker.models is not None and group.model not in worker.models:
                    found.append(f"job {name} ran on {worker.name}, which lacks {group.model}")
                if any(worker.labels.get(label) != value for label, value in job.labels.items()):
                    found.append(f"job {name} ran on {worker.name}, which lacks a label")
    return found
