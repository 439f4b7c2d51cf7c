"""A trace: links, triples, kinds of jobs, when jobs come, and what breaks. configs/planner/trace.yaml shows all of it.

Jobs of an entry come in a Poisson stream (`per_s`), the same one for a seed. An event concerns a triple, a worker
(`triple/0`) or all triples that have a worker in a region.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from mpc_ray.planner import fields
from mpc_ray.planner.jobs.emulate import Change
from mpc_ray.planner.jobs.workload import Group, Job, Link, Triple, Variant, Weights, Worker, Workload
from mpc_ray.planner.problem import ProblemError

MOST_JOBS = 100_000


@dataclass(frozen=True)
class Trace:
    """All jobs that will come, as a workload whose now is when the last of them does, and what changes when."""

    workload: Workload
    changes: tuple[Change, ...]
    seed: int


def read(path: Path) -> Trace:
    """The trace in a YAML file. Raises ProblemError: unreadable, or not a trace."""
    found = fields.content(path, "trace")
    try:
        return parse(found)
    except ProblemError as error:
        raise ProblemError(f"trace {path}: {error}") from error


def parse(content: Any) -> Trace:
    """The same from what the file holds."""
    top = fields.mapping(
        content,
        "the trace",
        ("links", "triples", "groups", "jobs"),
        ("events", "batch", "seed", "weights", "distinct_trust"),
    )
    seed = fields.whole(top, "seed", 0, 0)
    distinct = top.get("distinct_trust", True)
    if not isinstance(distinct, bool):
        raise ProblemError(f"distinct_trust is {distinct!r}, must be true or false")
    links = tuple(_link(one) for one in fields.entries(top["links"], "links"))
    triples = tuple(t for one in fields.entries(top["triples"], "triples") for t in _triples(one))
    groups = tuple(_group(one) for one in fields.entries(top["groups"], "groups"))
    jobs = _jobs(fields.entries(top["jobs"], "jobs"), np.random.default_rng(seed))
    weights = fields.mapping(top.get("weights", {}), "weights", (), tuple(vars(Weights())))
    workload = Workload(
        jobs,
        triples,
        links,
        groups,
        weights=Weights(**{name: fields.number(weights, name, 0.0, "weights") for name in weights}),
        batch=fields.whole(top, "batch", 8, 1),
        now_s=max(job.arrival_s for job in jobs),
        distinct_trust=distinct,
    )
    return Trace(workload, _changes(top.get("events", []), triples), seed)


def _link(content: Any) -> Link:
    said = fields.mapping(
        content, "a link", ("between", "rtt_ms", "bandwidth_mb_s"), ("capacity_mb_s", "usd_per_gb")
    )
    ends = said["between"]
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, str) for end in ends):
        raise ProblemError(f"a link: between is {ends!r}, must be two regions")
    where = f"link {ends[0]}–{ends[1]}"
    return Link(
        (ends[0], ends[1]),
        fields.number(said, "rtt_ms", 0.0, where) / 1e3,
        fields.number(said, "bandwidth_mb_s", 0.0, where, above=True) * 1e6,
        fields.number(said, "capacity_mb_s", inf, where, above=True) * 1e6,
        fields.number(said, "usd_per_gb", 0.0, where),
    )


def _triples(content: Any) -> list[Triple]:
    said = fields.mapping(
        content, "a triple", ("name", "regions", "trust"), ("count", "rate", "memory_gb", "models", "labels")
    )
    name, count = str(said["name"]), fields.whole(said, "count", 1, 1, "a triple")
    where = f"triple {name}"
    for key in ("regions", "trust"):
        three = said[key]
        if not isinstance(three, list) or len(three) != 3 or not all(isinstance(one, str) for one in three):
            raise ProblemError(f"{where}: {key} is {three!r}, must be three names, of parties 0, 1 and 2")
    labels = fields.mapping(said.get("labels", {}), f"{where}: labels", (), tuple(said.get("labels", {})))
    models = fields.texts(said, "models", where)
    found = []
    for k in range(count):
        own = name if count == 1 else f"{name}-{k}"
        one, two, three = (
            Worker(
                f"{own}/{i}",
                said["regions"][i],
                said["trust"][i],
                fields.number(said, "rate", 1.0, where, above=True),
                fields.number(said, "memory_gb", inf, where),
                models,
                {str(label): str(value) for label, value in labels.items()},
            )
            for i in range(3)
        )
        found.append(Triple(own, (one, two, three)))
    return found


def _group(content: Any) -> Group:
    said = fields.mapping(content, "a group", ("name", "model", "work_s", "variants"), ("memory_gb",))
    where = f"group {said['name']}"
    variants = []
    for one in fields.entries(said["variants"], f"{where}: variants"):
        each = fields.mapping(one, f"{where}: a variant", ("name", "rounds", "megabytes"), ())
        variants.append(
            Variant(
                str(each["name"]),
                fields.number(each, "rounds", 0.0, where),
                fields.number(each, "megabytes", 0.0, where) * 1e6,
            )
        )
    return Group(
        str(said["name"]),
        str(said["model"]),
        fields.number(said, "work_s", 0.0, where),
        tuple(variants),
        fields.number(said, "memory_gb", 0.0, where),
    )


def _jobs(content: list[Any], random: np.random.Generator) -> tuple[Job, ...]:
    found: list[Job] = []
    for number, one in enumerate(content):
        said = fields.mapping(
            one,
            "jobs",
            ("group",),
            ("count", "per_s", "first_s", "due_in_s", "regions", "forbidden_regions", "labels"),
        )
        where = f"jobs of {said['group']}"
        count = fields.whole(said, "count", 1, 1, where)
        if len(found) + count > MOST_JOBS:
            raise ProblemError(f"{where}: there are more than {MOST_JOBS} jobs")
        rate = fields.number(said, "per_s", inf, where, above=True)
        first, due = fields.number(said, "first_s", 0.0, where), fields.number(said, "due_in_s", inf, where)
        gaps = np.zeros(count) if rate == inf else random.exponential(1.0 / rate, count)
        labels = said.get("labels", {})
        if not isinstance(labels, dict):
            raise ProblemError(f"{where}: labels is {labels!r}, must be a mapping")
        for k, at in enumerate((first + np.cumsum(gaps)).tolist()):
            found.append(
                Job(
                    f"{said['group']}#{number}.{k}",
                    str(said["group"]),
                    at,
                    at + due,
                    fields.texts(said, "regions", where),
                    fields.texts(said, "forbidden_regions", where) or frozenset(),
                    {str(label): str(value) for label, value in labels.items()},
                )
            )
    return tuple(found)


def _changes(content: Any, triples: tuple[Triple, ...]) -> tuple[Change, ...]:
    if not isinstance(content, list):
        raise ProblemError("events must be a list")
    found = []
    for one in content:
        said = fields.mapping(one, "an event", ("at_s",), ("triple", "worker", "region", "what", "slower"))
        at = fields.number(said, "at_s", 0.0, "an event")
        where = f"the event at {at:g} s"
        hit = _hit(said, triples, where)
        what = said.get("what", "slower" if "slower" in said else None)
        if what not in ("dies", "back", "slower") or (what == "slower") != ("slower" in said):
            raise ProblemError(f"{where}: what must be dies or back, or slower must be a factor")
        slow = fields.number(said, "slower", 1.0, where, above=True)
        found += [Change(at, t, {"dies": inf, "back": 1.0, "slower": slow}[what]) for t in hit]
    return tuple(found)


def _hit(said: Mapping[str, Any], triples: tuple[Triple, ...], where: str) -> list[int]:
    """Numbers of the triples that an event concerns."""
    named = [key for key in ("triple", "worker", "region") if key in said]
    if len(named) != 1:
        raise ProblemError(f"{where}: name one triple, worker or region")
    key, name = named[0], said[named[0]]
    hit = [
        t
        for t, triple in enumerate(triples)
        if (key == "triple" and triple.name == name)
        or (key == "worker" and any(worker.name == name for worker in triple.workers))
        or (key == "region" and any(worker.region == name for worker in triple.workers))
    ]
    if not hit:
        raise ProblemError(f"{where}: there is no {key} {name!r}")
    return hit
