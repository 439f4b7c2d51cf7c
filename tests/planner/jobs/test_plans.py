"""Plans of jobs over triples: no hard limit is broken, nothing is worse than the yardstick, numbers add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from mpc_ray.planner import ProblemError, plan
from mpc_ray.planner.jobs import (
    Group,
    Job,
    Link,
    Point,
    Recipe,
    Schedule,
    Triple,
    Variant,
    Weights,
    Worker,
    Workload,
    generate,
    plan_jobs,
    predicted_s,
    warm,
)
from mpc_ray.planner.jobs.arrays import compile_workload
from mpc_ray.planner.jobs.clock import Clock
from mpc_ray.planner.jobs.portfolio import SOLVERS
from mpc_ray.planner.jobs.search import Search

FAMILIES = ("mixed", "cross")


@pytest.fixture(scope="module", autouse=True)
def _loops() -> None:
    warm()


def allowed(workload: Workload, job: Job, triple: Triple) -> bool:
    """The hard limits, one by one, as docs/planner.md states them."""
    group = next(g for g in workload.groups if g.name == job.group)
    if len({worker.trust for worker in triple.workers}) < 3:
        return False
    for worker in triple.workers:
        if job.regions is not None and worker.region not in job.regions:
            return False
        if worker.region in job.forbidden_regions or worker.memory_gb < group.memory_gb:
            return False
        if worker.models is not None and group.model not in worker.models:
            return False
        if any(worker.labels.get(name) != value for name, value in job.labels.items()):
            return False
    return True


def check(workload: Workload, schedule: Schedule) -> None:
    """Every rule of a schedule, from its batches alone."""
    jobs = {job.name: job for job in workload.jobs}
    triples = {triple.name: triple for triple in workload.triples}
    seen: list[str] = []
    busy: dict[str, float] = {}
    for batch in schedule.batches:
        assert 1 <= len(batch.jobs) <= workload.batch
        assert batch.start_s >= max(busy.get(batch.triple, -np.inf), workload.now_s) - 1e-9
        assert batch.start_s >= triples[batch.triple].free_at_s - 1e-9
        busy[batch.triple] = batch.end_s
        for name in batch.jobs:
            assert jobs[name].group == batch.group
            assert allowed(workload, jobs[name], triples[batch.triple]), (name, batch.triple)
            assert schedule.placement[name] == batch.triple
            seen.append(name)
    assert sorted([*seen, *schedule.refused]) == sorted(jobs)
    ends = {name: batch.end_s for batch in schedule.batches for name in batch.jobs}
    latency = np.array([ends[name] - jobs[name].arrival_s for name in seen])
    assert schedule.measures.jobs == len(seen)
    assert schedule.measures.mean_s == pytest.approx(latency.mean())
    assert schedule.measures.p95_s == pytest.approx(np.quantile(latency, 0.95))
    assert schedule.measures.late == sum(ends[name] > jobs[name].due_s + 1e-9 for name in seen)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("jobs", "triples", "groups"), [(16, 16, 4), (60, 12, 30), (200, 30, 30)])
def test_limits_hold_and_nothing_is_worse_than_the_yardstick(
    family: str, jobs: int, triples: int, groups: int
) -> None:
    for seed in range(2):
        workload = generate(Recipe(jobs=jobs, triples=triples, seed=seed, family=family, groups=groups))
        schedule = plan_jobs(workload, moves=30_000, seed=seed)
        check(workload, schedule)
        mine, theirs = schedule.measures, schedule.yardstick
        assert schedule.guarded and mine.energy <= theirs.energy
        for worse, better in (
            (mine.makespan_s, theirs.makespan_s),
            (mine.mean_s, theirs.mean_s),
            (mine.p95_s, theirs.p95_s),
        ):
            assert worse <= better + 1e-9
        assert mine.late <= theirs.late
        check(workload, plan_jobs(workload, solver="earliest"))


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_each_solver_keeps_the_limits_and_its_seed(name: str) -> None:
    workload = generate(Recipe(jobs=40, triples=9, seed=3))
    one, two = (plan_jobs(workload, moves=5000, seed=4, solver=name) for _ in range(2))
    check(workload, one)
    assert one.placement == two.placement and one.measures == two.measures


def test_the_portfolio_finds_more_than_the_yardstick_and_tells_how() -> None:
    workload = generate(Recipe(jobs=200, triples=30, seed=1))
    told: list[Point] = []
    schedule = plan_jobs(workload, moves=200_000, seed=1, progress=told.append)
    assert schedule.measures.energy < 0.95 * schedule.yardstick.energy
    assert {point.solver for point in told} <= {point.solver for point in schedule.history}
    plain = schedule.to_json()
    assert plain["placement"] == schedule.placement and plain["guarded"]


def test_a_deadline_is_kept_and_a_short_one_still_gives_a_plan() -> None:
    workload = generate(Recipe(jobs=200, triples=30, seed=2))
    schedule = plan(workload, deadline_s=0.05)
    check(workload, schedule)
    assert schedule.seconds < 5, "generous: machines of CI are shared"
    check(workload, plan_jobs(workload, deadline_s=1e-6))


def without(workload: Workload, dead: str) -> Workload:
    return replace(workload, triples=tuple(t for t in workload.triples if t.name != dead))


def busiest(placement: Mapping[str, str]) -> str:
    places = list(placement.values())
    return max(sorted(set(places)), key=places.count)


@pytest.mark.parametrize("seed", range(3))
def test_after_a_death_few_move_besides_the_orphans(seed: int) -> None:
    workload = generate(Recipe(jobs=200, triples=30, seed=seed))
    before = plan_jobs(workload, moves=50_000, seed=seed).placement
    dead = busiest(before)
    left = without(workload, dead)
    after = plan_jobs(left, moves=20_000, seed=seed, previous=before, most_moves=5)
    check(left, after)
    kept = {name for name, place in before.items() if place != dead}
    assert sum(after.placement[name] != before[name] for name in kept) <= 5
    cold = plan_jobs(left, moves=1, seed=seed)
    assert after.measures.energy < cold.measures.energy, "better than planning from nothing in that time"


def test_nobody_moves_where_no_move_is_allowed() -> None:
    workload = generate(Recipe(jobs=60, triples=12, seed=9))
    before = plan_jobs(workload, solver="earliest").placement
    after = plan_jobs(workload, moves=20_000, previous=before, most_moves=0)
    assert after.placement == before and after.moved == 0


def small(**changes: object) -> Workload:
    workers = tuple(Worker(f"w{i}", "eu", f"op{i}", memory_gb=4.0) for i in range(3))
    made = Workload(
        jobs=(Job("a", "g"), Job("b", "g")),
        triples=(Triple("t", (workers[0], workers[1], workers[2])),),
        links=(Link(("eu", "eu"), 0.001, 1e8),),
        groups=(Group("g", "m", 0.1, (Variant("bytes", 100, 1e6), Variant("rounds", 40, 5e6))),),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def test_greedy_minds_what_waits_already() -> None:
    workers = [Worker(f"w{i}", "eu", f"op{i % 3}") for i in range(9)]
    triples = tuple(
        Triple(f"t{k}", (workers[3 * k], workers[3 * k + 1], workers[3 * k + 2])) for k in range(3)
    )
    jobs = tuple(Job(name, "g") for name in "abc")
    search = Search(compile_workload(small(jobs=jobs, triples=triples, batch=1)), Clock(None))
    place = search.filled(np.full(3, -1, np.int64), np.arange(3), 0, 3)
    assert sorted(place.tolist()) == [0, 1, 2]


def test_a_batch_takes_what_the_cost_model_says() -> None:
    schedule = plan_jobs(small(), moves=100)
    (batch,) = schedule.batches
    group = small().groups[0]
    expected = {
        v.name: predicted_s(group, v, 2, rtt_s=0.001, rate=1.0, bandwidth=1e8, c=small().calibration)
        for v in group.variants
    }
    assert batch.end_s - batch.start_s == pytest.approx(min(expected.values()))
    assert batch.variant == min(expected, key=lambda name: expected[name])
    assert expected["bytes"] == pytest.approx(0.1 + 2 * (0.1 + 0.01))


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (Job("x", "g", regions=frozenset(("us",))), "names region us, where no worker stands"),
        (Job("x", "g", regions=frozenset()), "allows no region"),
        (
            Job("x", "g", regions=frozenset(("eu",)), forbidden_regions=frozenset(("eu",))),
            "eu allowed and forbidden",
        ),
        (Job("x", "g", labels={"gpu": "yes"}), "gpu"),
        (Job("x", "none"), "none"),
        (Job("x", "g", due_s=float("nan")), "due_s is nan"),
        (Job("x", "g", arrival_s=float("inf")), "arrival_s is inf"),
    ],
)
def test_a_job_that_fits_nowhere_is_refused_by_name_and_the_rest_is_planned(job: Job, said: str) -> None:
    schedule = plan_jobs(small(jobs=(Job("a", "g"), job)), moves=100)
    assert list(schedule.refused) == ["x"] and said in schedule.refused["x"]
    assert schedule.placement == {"a": "t"}


@pytest.mark.parametrize(
    "group",
    [
        Group("g", "m", -0.1, (Variant("v", 1, 1),)),
        Group("g", "m", float("nan"), (Variant("v", 1, 1),)),
        Group("g", "m", 0.1, (Variant("v", float("inf"), 1),)),
        Group("g", "m", 0.1, (Variant("v", 1, -1),)),
        Group("g", "m", 1e308, (Variant("v", 1, 1),)),
        Group("g", "m", 0.1, ()),
        Group("g", "m", 0.1, (Variant("v", 1, 1),), memory_gb=99.0),
    ],
)
def test_costs_that_are_none_and_memory_that_is_missing(group: Group) -> None:
    schedule = plan_jobs(small(groups=(group,)), moves=100)
    assert set(schedule.refused) == {"a", "b"} and not schedule.placement


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"triples": ()}, "the cluster is empty"),
        ({"jobs": (Job("a", "g"), Job("a", "g"))}, "job a is given twice"),
        ({"batch": 0}, "batch is 0"),
        ({"now_s": float("nan")}, "now_s is nan"),
        ({"weights": Weights(mean=1e300)}, "mean is 1e\\+300"),
        ({"links": (Link(("eu", "eu"), 1, 1), Link(("eu", "eu"), 1, 1))}, "given twice"),
    ],
)
def test_a_workload_that_contradicts_itself(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ProblemError, match=said):
        plan_jobs(small(**changes), moves=100)


def test_a_batch_is_no_larger_than_there_are_jobs() -> None:
    schedule = plan_jobs(small(batch=10**12), moves=100)
    assert len(schedule.batches) == 1 and schedule.compiled.batch == 2


@pytest.mark.parametrize("changes", [{"rtt_s": 1e300}, {"bandwidth": 1e-300}, {"free_at_s": float("inf")}])
def test_a_triple_that_is_beyond_measure_is_left_out(changes: dict[str, float]) -> None:
    (good,) = small().triples
    workload = small(triples=(good, replace(good, name="bad", **changes)))
    assert set(plan_jobs(workload, moves=100).placement.values()) == {"t"}
    refused = plan_jobs(small(triples=(replace(good, name="bad", **changes),)), moves=100).refused
    assert "bad" in refused["a"]


def test_trust_is_asked_for_unless_it_is_waived() -> None:
    same = tuple(Worker(f"w{i}", "eu", "one") for i in range(3))
    triple = Triple("t", (same[0], same[1], same[2]))
    refused = plan_jobs(small(triples=(triple,)), moves=100).refused
    assert "share trust domain one" in refused["a"]
    assert not plan_jobs(small(triples=(triple,), distinct_trust=False), moves=100).refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"moves": 1, "deadline_s": 1.0}, "not both"),
        ({"moves": -1}, "moves is -1"),
        ({"deadline_s": 0.0}, "deadline_s is 0"),
        ({"moves": 1, "solver": "magic"}, "there is no solver magic"),
    ],
)
def test_what_is_no_budget(options: dict[str, object], said: str) -> None:
    with pytest.raises(ProblemError, match=said):
        plan_jobs(small(), **options)  # type: ignore[arg-type]
