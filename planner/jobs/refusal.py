"""Why a job cannot run here, in words that name what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isnan
from typing import Any

import numpy as np

from mpc_ray.planner.jobs.workload import Group, Job, Link, Triple, Worker, Workload
from mpc_ray.planner.problem import ProblemError

Array = np.ndarray[Any, np.dtype[Any]]

PAIRS = ((0, 1), (0, 2), (1, 2))
# Far beyond what there is, and so that no sum or product of them overflows.
MOST = 1e15  # rounds, bytes, seconds of computing
LONGEST_S = 1e12  # from the clock's zero, and of a round trip
LEAST, FASTEST = 1e-6, 1e18  # rates, and bytes a second


def group_fault(group: Group) -> str | None:
    """What is wrong with the costs of a group."""
    numbers = {"work_s": group.work_s, "memory_gb": group.memory_gb}
    for variant in group.variants:
        numbers |= {
            f"rounds of variant {variant.name}": variant.rounds,
            f"nbytes of variant {variant.name}": variant.nbytes,
        }
    for name, value in numbers.items():
        if not 0 <= value <= MOST:
            return f"its group {group.name} has {name} {value}, must be a number from 0 to {MOST:g}"
    return None if group.variants else f"its group {group.name} has no variant to run"


def job_fault(job: Job, now_s: float) -> str | None:
    """What is wrong with the times of a job."""
    if not abs(job.arrival_s) <= LONGEST_S:
        return f"arrival_s is {job.arrival_s}, must be a number of at most {LONGEST_S:g}"
    if not (abs(job.due_s) <= LONGEST_S or job.due_s == inf):
        return f"due_s is {job.due_s}, must be a number of at most {LONGEST_S:g}, or infinite"
    if job.arrival_s > now_s:
        return f"it arrives at {job.arrival_s:g} s, after now ({now_s:g} s)"
    return None


class Sites:
    """The triples of a workload as arrays, and what is wrong with each.

    `faults[t]` says why nothing can run on triple t, None where it can be used.
    """

    def __init__(self, workload: Workload) -> None:
        self.triples = workload.triples
        self.regions = {name: i for i, name in enumerate(sorted(_regions(workload)))}
        self.places = np.array(
            [[self.regions[worker.region] for worker in triple.workers] for triple in workload.triples],
            np.int64,
        )
        links = _links(workload)
        faults = [_fault(triple, links, workload.distinct_trust) for triple in workload.triples]
        self.faults = faults
        self.usable = np.array([fault is None for fault in faults])
        self.memory = np.array([min(w.memory_gb for w in triple.workers) for triple in workload.triples])
        count = len(workload.triples)
        self.rate, self.rtt = np.ones(count), np.zeros(count)
        self.bandwidth, self.price = np.ones(count), np.zeros(count)
        used: dict[tuple[str, str], int] = {}
        rows: list[tuple[int, int]] = []
        for t, triple in enumerate(workload.triples):
            if faults[t] is not None:
                continue
            joins = [links[_pair(triple.workers[a], triple.workers[b])] for a, b in PAIRS]
            self.rate[t] = min(worker.rate for worker in triple.workers)
            self.rtt[t] = max(link.rtt_s for link in joins) if triple.rtt_s is None else triple.rtt_s
            self.bandwidth[t] = triple.bandwidth or min(link.bandwidth for link in joins)
            self.price[t] = sum(link.usd_per_gb for link in joins) / 1e9
            for link in joins:
                ends = _ordered(link.between)
                rows.append((t, used.setdefault(ends, len(used))))
        self.pairs = np.zeros((count, len(used)))
        for t, number in rows:
            self.pairs[t, number] += 1
        self.capacity = np.array([links[ends].capacity for ends in used], np.float64)
        self.link_names = tuple("–".join(ends) for ends in used)
        self._holding: dict[str, Array] = {}
        self._labelled: dict[tuple[str, str], Array] = {}

    def fault(self, job: Job, groups: Mapping[str, int]) -> str | None:
        """What contradicts itself, or names what is not there."""
        if job.group not in groups:
            return f"there is no group {job.group}"
        if job.regions is not None and not job.regions:
            return "its residency allows no region"
        for name in sorted((job.regions or frozenset()) | job.forbidden_regions):
            if name not in self.regions:
                return f"its residency names region {name}, where no worker stands"
        if job.regions is not None and job.regions <= job.forbidden_regions:
            return f"its residency contradicts itself: {_listed(job.regions)} allowed and forbidden"
        for name, value in sorted(job.labels.items()):
            if not any(w.labels.get(name) == value for triple in self.triples for w in triple.workers):
                return f"it wants label {name}={value}, which no worker carries"
        return None

    def tests(self, job: Job, group: Group) -> dict[str, Array]:
        """Each hard limit with the triples that meet it."""
        found = {"cannot be used": self.usable, "leave its residency": self.resident(job)}
        for name, value in job.labels.items():
            found[f"lack label {name}={value}"] = self.labelled(name, value)
        found[f"lack model {group.model}"] = self.holding(group.model)
        found[f"have less than {group.memory_gb:g} GB of memory"] = self.memory >= group.memory_gb
        return found

    def allowed(self, job: Job, group: Group) -> Array:
        """Triples [T] on which the job may run."""
        mask: Array = np.all(np.array(list(self.tests(job, group).values())), axis=0)
        return mask

    def resident(self, job: Job) -> Array:
        """Triples whose three workers all stand where the job may be computed."""
        good: Array = np.ones(len(self.regions), np.bool_)
        for name, number in self.regions.items():
            good[number] = (job.regions is None or name in job.regions) and name not in job.forbidden_regions
        mask: Array = np.all(good[self.places], axis=1)
        return mask

    def holding(self, model: str) -> Array:
        """Triples whose three workers hold the model."""
        if model not in self._holding:
            self._holding[model] = np.array(
                [
                    all(w.models is None or model in w.models for w in triple.workers)
                    for triple in self.triples
                ]
            )
        return self._holding[model]

    def labelled(self, name: str, value: str) -> Array:
        """Triples whose three workers carry the label."""
        if (name, value) not in self._labelled:
            self._labelled[name, value] = np.array(
                [all(w.labels.get(name) == value for w in triple.workers) for triple in self.triples]
            )
        return self._labelled[name, value]


def why_nowhere(sites: Sites, job: Job, group: Group) -> str:
    """Why no triple may run the job: how many fail which test, each counted at the first it fails."""
    left: Array = np.ones(len(sites.triples), np.bool_)
    parts = []
    for words, mask in sites.tests(job, group).items():
        if failed := int((left & ~mask).sum()):
            first = next((f for f in sites.faults if f), "") if words == "cannot be used" else ""
            parts.append(f"{failed} {words}" + (f" ({first})" if first else ""))
        left = np.logical_and(left, mask)
    residency = "" if job.regions is None else f" (residency {_listed(job.regions)})"
    return f"it fits none of {len(sites.triples)} triples{residency}: {', '.join(parts)}"


def _regions(workload: Workload) -> set[str]:
    return {worker.region for triple in workload.triples for worker in triple.workers}


def _links(workload: Workload) -> dict[tuple[str, str], Link]:
    found: dict[tuple[str, str], Link] = {}
    for link in workload.links:
        ends = _ordered(link.between)
        if ends in found:
            raise ProblemError(f"link {ends[0]}–{ends[1]} is given twice")
        found[ends] = link
    return found


def _fault(triple: Triple, links: Mapping[tuple[str, str], Link], distinct_trust: bool) -> str | None:
    """Why nothing can run on this triple."""
    if isnan(triple.free_at_s):
        return f"triple {triple.name}: free_at_s is {triple.free_at_s}"
    if triple.free_at_s > LONGEST_S:
        return f"triple {triple.name} is down"
    for worker in triple.workers:
        if not LEAST <= worker.rate <= FASTEST:
            return (
                f"triple {triple.name}: worker {worker.name} has rate {worker.rate}, "
                f"must be from {LEAST:g} to {FASTEST:g}"
            )
        if isnan(worker.memory_gb) or worker.memory_gb < 0:
            return f"triple {triple.name}: worker {worker.name} has memory_gb {worker.memory_gb}"
    if distinct_trust:
        owners = [worker.trust for worker in triple.workers]
        if "" in owners:
            return (
                f"triple {triple.name}: worker {triple.workers[owners.index('')].name} names no trust domain"
            )
        if len(set(owners)) < len(owners):
            twice = next(owner for owner in owners if owners.count(owner) > 1)
            return f"triple {triple.name}: two workers share trust domain {twice}"
    for a, b in PAIRS:
        link = links.get(_pair(triple.workers[a], triple.workers[b]))
        if link is None:
            return f"triple {triple.name}: no link {triple.workers[a].region}–{triple.workers[b].region} is given"
        if fault := _link_fault(link):
            return f"triple {triple.name}: {fault}"
    for name, value, low, high in (
        ("rtt_s", triple.rtt_s, 0.0, LONGEST_S),
        ("bandwidth", triple.bandwidth, LEAST, FASTEST),
    ):
        if value is not None and not low <= value <= high:
            return f"triple {triple.name}: {name} is {value}, must be from {low:g} to {high:g}"
    return None


def _link_fault(link: Link) -> str | None:
    named = f"link {link.between[0]}–{link.between[1]}"
    for name, value in (("rtt_s", link.rtt_s), ("usd_per_gb", link.usd_per_gb)):
        if not 0 <= value <= LONGEST_S:
            return f"{named} has {name} {value}, must be a number from 0 to {LONGEST_S:g}"
    for name, value in (("bandwidth", link.bandwidth), ("capacity", link.capacity)):
        if not value >= LEAST:
            return f"{named} has {name} {value}, must be at least {LEAST:g}"
    return None


def _pair(a: Worker, b: Worker) -> tuple[str, str]:
    return _ordered((a.region, b.region))


def _ordered(ends: tuple[str, str]) -> tuple[str, str]:
    return ends if ends[0] <= ends[1] else (ends[1], ends[0])


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nowhere"
