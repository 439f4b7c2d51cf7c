"""Random workloads: three regions with links between them, operators, models, residency, deadlines.

Families, by how far triples reach and how many jobs are tied down:

    mixed   65 % of the triples stand in one region, 60 % of the jobs may be computed in one region only
    cross   10 % and 15 %: most work crosses an ocean, rounds are what costs
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc_ray.planner.jobs.workload import Group, Job, Link, Triple, Variant, Weights, Worker, Workload
from mpc_ray.planner.problem import ProblemError

Array = np.ndarray[Any, np.dtype[Any]]

REGIONS = ("eu", "us", "ap")
FAMILIES = {"mixed": (0.65, 0.6), "cross": (0.1, 0.15)}  # share of triples at home, of jobs tied to a region
LINKS = (
    ("eu", "eu", 0.001, 0.01),
    ("us", "us", 0.001, 0.01),
    ("ap", "ap", 0.001, 0.01),
    ("eu", "us", 0.085, 0.05),
    ("us", "ap", 0.150, 0.09),
    ("eu", "ap", 0.180, 0.09),
)  # ends, round-trip time, dollars a GB

# Model, rounds, megabytes of a job of 128 tokens, seconds of computing, memory, share of the jobs.
MODELS = (
    ("minilm", 110, 75.0, 0.04, 1.0, 0.5),
    ("bert-base", 200, 450.0, 0.25, 3.0, 0.35),
    ("bert-large", 400, 1350.0, 0.8, 8.0, 0.15),
)
BUCKETS = ((32, 0.3), (64, 0.3), (128, 0.2), (256, 0.15), (512, 0.05))  # tokens, share
MALICIOUS = 0.25  # share of jobs under the protocol that also checks


@dataclass(frozen=True)
class Recipe:
    """What `generate` makes. `load` is arrivals over what the triples can take; 0 lets all jobs wait at once."""

    jobs: int = 200
    triples: int = 30
    seed: int = 0
    family: str = "mixed"
    groups: int = 30
    load: float = 0.0
    weights: Weights = field(default_factory=Weights)

    def check(self) -> None:
        """Raises ProblemError where a number is out of range."""
        if self.family not in FAMILIES:
            raise ProblemError(f"family is {self.family!r}, must be one of {', '.join(FAMILIES)}")
        if self.jobs < 1 or self.triples < 3 or not 1 <= self.groups <= 30 or not 0 <= self.load < 1000:
            raise ProblemError(
                "a recipe needs at least 1 job and 3 triples, 1 to 30 groups, and a load not below 0"
            )


def generate(recipe: Recipe) -> Workload:
    """A random workload; the same recipe gives the same. At load 0 all jobs wait at `now_s` = 0."""
    recipe.check()
    random = np.random.default_rng(recipe.seed)
    home, tied = FAMILIES[recipe.family]
    links = tuple(
        Link(
            (a, b),
            rtt,
            (0.15 if rtt > 0.02 else 0.6) * 1e9,
            (0.25 if rtt > 0.02 else 8.0) * 1e9 * recipe.triples / 16,
            usd,
        )
        for a, b, rtt, usd in LINKS
    )
    groups, shares = _groups(recipe.groups)
    triples = tuple(_triple(random, t, home) for t in range(recipe.triples))
    jobs = _jobs(random, recipe, groups, shares, triples, tied)
    now = 0.0 if recipe.load == 0 else max(job.arrival_s for job in jobs)
    return Workload(jobs, triples, links, groups, weights=recipe.weights, now_s=now)


def _groups(count: int) -> tuple[tuple[Group, ...], Array]:
    """The `count` groups that most jobs belong to, and their shares."""
    found, shares = [], []
    for model, rounds, megabytes, work, memory, of_model in MODELS:
        for tokens, of_bucket in BUCKETS:
            for checks in (False, True):
                size, k = tokens / 128, (1.5, 3.0, 2.0) if checks else (1.0, 1.0, 1.0)
                few = Variant("few rounds", rounds * k[0], megabytes * 1e6 * size * k[1])
                lean = Variant("few bytes", rounds * 1.9 * k[0], megabytes / 1.5 * 1e6 * size * k[1])
                name = f"{model}/{tokens}{'/checked' if checks else ''}"
                found.append(Group(name, model, work * size * k[2], (few, lean), memory))
                shares.append(of_model * of_bucket * (MALICIOUS if checks else 1 - MALICIOUS))
    kept = sorted(np.argsort(-np.array(shares), kind="stable")[:count])
    chosen = np.array(shares)[kept]
    return tuple(found[i] for i in kept), chosen / chosen.sum()


def _triple(random: np.random.Generator, number: int, home: float) -> Triple:
    """The first three stand in one region each and hold every model, so that every job fits somewhere."""
    rtt = {frozenset((a, b)): seconds for a, b, seconds, _ in LINKS}
    if number < 6 or random.random() < home:
        places = [REGIONS[number % 3]] * 3
    elif random.random() < 0.4:
        places = list(random.permutation(REGIONS))
    else:
        one, two = random.permutation(REGIONS)[:2]
        places = list(random.permutation([one, one, two]))
    memory = 16.0 if number < 3 else float(random.choice([4.0, 8.0, 16.0], p=[0.3, 0.4, 0.3]))
    held = [m[0] for m in MODELS if number < 3 or (random.random() < 0.8 and m[4] <= memory)]
    rate = random.uniform(0.5, 2.0)
    workers = tuple(
        Worker(f"w{number}{'abc'[i]}", str(place), f"operator-{i}", rate, memory, frozenset(held))
        for i, place in enumerate(places)
    )
    worst = max(rtt[frozenset((a, b))] for a, b in zip(places, places[1:] + places[:1], strict=True))
    measured = worst * random.uniform(0.8, 1.5)
    speed = (random.uniform(0.05, 0.3) if worst > 0.02 else random.uniform(0.3, 1.2)) * 1e9
    return Triple(f"t{number}", (workers[0], workers[1], workers[2]), rtt_s=measured, bandwidth=speed)


def _jobs(
    random: np.random.Generator,
    recipe: Recipe,
    groups: tuple[Group, ...],
    shares: Array,
    triples: tuple[Triple, ...],
    tied: float,
) -> tuple[Job, ...]:
    group = random.choice(len(groups), recipe.jobs, p=shares)
    pinned = random.random(recipe.jobs) < tied
    where = random.choice(3, recipe.jobs, p=[2 / 3, 1 / 3, 0.0])
    if recipe.load == 0:
        arrival = np.zeros(recipe.jobs)
        due = random.uniform(5, 60, recipe.jobs) * (recipe.jobs / recipe.triples / 6 + 0.3)
    else:
        alone = np.array([_alone(groups[g], triples) for g in group])
        arrival = np.cumsum(random.exponential(alone.mean() / recipe.triples / recipe.load, recipe.jobs))
        due = arrival + alone * random.uniform(2, 6, recipe.jobs) + 1
    return tuple(
        Job(
            f"j{j}",
            groups[group[j]].name,
            float(arrival[j]),
            float(due[j]),
            frozenset({REGIONS[where[j]]}) if pinned[j] else None,
        )
        for j in range(recipe.jobs)
    )


def _alone(group: Group, triples: tuple[Triple, ...]) -> float:
    """Median over the quicker half of the triples of the seconds that one job takes alone."""
    times = sorted(
        min(v.rounds * (t.rtt_s or 0.0) + v.nbytes / (t.bandwidth or 1.0) for v in group.variants)
        + group.work_s / t.workers[0].rate
        for t in triples
    )
    half = times[: max(1, len(times) // 2)]
    return half[len(half) // 2]
