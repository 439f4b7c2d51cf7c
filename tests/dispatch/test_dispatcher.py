"""The plan while jobs come and go: where they are placed, what moves, what is refused, and how it is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mpc_ray.dispatch.dispatcher import KINDS, Dispatcher
from mpc_ray.dispatch.kinds import group_of
from mpc_ray.dispatch.measured import LEAST, Probe
from mpc_ray.errors import ConfigError, InputError, PlacementError
from mpc_ray.planner import plan_jobs
from mpc_ray.planner.jobs import Group, Job, Link, Triple, Variant, Worker, warm

SHORT = Group("short", "m", 0.1, (Variant("bytes", 100, 1e6),))
LONG = Group("long", "m", 1.0, (Variant("bytes", 100, 1e7),))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module", autouse=True)
def _loops() -> None:
    warm()


def triple(name: str, region: str = "eu", rtt_s: float = 1e-3) -> Triple:
    workers = tuple(Worker(f"{name}{i}", region, f"op{i}") for i in range(3))
    return Triple(name, (workers[0], workers[1], workers[2]), rtt_s=rtt_s, bandwidth=1e8)


def made(clock: Clock, *names: str, **options: Any) -> Dispatcher:
    found = Dispatcher((SHORT, LONG), clock=clock, links=(Link(("eu", "eu"), 1e-3, 1e8),), **options)
    for name in names:
        found.join(triple(name))
    return found


def job(clock: Clock, name: str, group: str = "short", **more: Any) -> Job:
    return Job(name, group, arrival_s=clock.now, **more)


def test_jobs_of_a_kind_share_a_triple_and_a_busy_one_is_passed_by() -> None:
    clock = Clock()
    plan = made(clock, "a", "b", batch=4)
    first = plan.arrive(job(clock, "0", "long"))
    plan.begin(first, ["0"])
    assert plan.where("0") == first and plan.status()["waiting"] == 0
    other = plan.arrive(job(clock, "1"))
    assert other != first, "the first computes for a second"
    assert plan.arrive(job(clock, "2")) == other
    assert {plan.where("1"), plan.where("2")} == {other}


def test_an_arrival_moves_nobody() -> None:
    clock = Clock()
    plan = made(clock, "a", "b", "c")
    placed = {}
    for i in range(30):
        placed[str(i)] = plan.arrive(job(clock, str(i), ("short", "long")[i % 2]))
        assert {name: plan.where(name) for name in placed} == placed


def test_a_lost_triple_takes_its_batch_along_and_its_waiting_jobs_go_elsewhere() -> None:
    clock = Clock()
    plan = made(clock, "a", "b", "c")
    placed = {str(i): plan.arrive(job(clock, str(i), ("short", "long")[i % 2])) for i in range(24)}
    victim = placed["0"]
    plan.begin(victim, ["0"])
    orphans = {name for name, place in placed.items() if place == victim} - {"0"}
    moved = plan.leave(victim)
    assert orphans <= moved.keys() and len(moved.keys() - orphans) <= 5
    assert victim not in {plan.where(name) for name in placed}
    assert plan.where("0") is None and victim not in plan.status()["running"]
    plan.arrive(job(clock, "0"))  # whoever waited for it asks again


def test_the_last_triple_may_go_and_come_back() -> None:
    clock = Clock()
    plan = made(clock, "a")
    plan.arrive(job(clock, "0"))
    assert plan.leave("a") == {} and plan.where("0") is None
    with pytest.raises(PlacementError, match="there is no triple"):
        plan.arrive(job(clock, "1"))
    assert plan.tick() == {}
    plan.join(triple("a"))
    plan.tick()
    assert plan.where("0") == "a" and plan.where("1") is None


def test_what_fits_nowhere_is_refused_with_the_reason_and_the_rest_is_planned() -> None:
    clock = Clock()
    plan = made(clock, "a")
    with pytest.raises(PlacementError, match=r"job 0 fits no triple: .*mars"):
        plan.arrive(job(clock, "0", regions=frozenset(("mars",))))
    assert plan.arrive(job(clock, "1")) == "a" and plan.status()["waiting"] == 1
    with pytest.raises(ConfigError, match="group strange"):
        plan.arrive(job(clock, "2", "strange"))
    with pytest.raises(InputError, match="here already"):
        plan.arrive(job(clock, "1"))
    with pytest.raises(PlacementError, match="due_s"):
        plan.arrive(job(clock, "3", due_s=float("nan")))
    with pytest.raises(InputError, match="does not wait"):
        plan.begin("a", ["9"])
    assert plan.status()["waiting"] == 1


def test_residency_is_kept_when_things_break() -> None:
    clock = Clock()
    plan = made(clock, "a", "b")
    plan.join(triple("us", "us"))
    for i in range(9):
        plan.arrive(job(clock, str(i), regions=frozenset(("eu",))))
    plan.leave("a")
    plan.tick()
    assert {plan.where(str(i)) for i in range(9)} == {"b"}
    plan.leave("b")
    assert {plan.where(str(i)) for i in range(9)} == {None}, "never in us"


def test_a_pinned_job_stays_and_counts() -> None:
    clock = Clock()
    plan = made(clock, "a", "b")
    for i in range(8):
        plan.arrive(job(clock, str(i), "long"))
        plan.pin(str(i), "a")
    assert plan.arrive(job(clock, "new", "long")) == "b"
    plan.tick()
    assert {plan.where(str(i)) for i in range(8)} == {"a"}
    plan.withdraw("0")
    assert plan.where("0") is None
    plan.leave("a")
    assert plan.status()["waiting"] == 1, "they were handed over, and are lost with it"


def test_a_slow_triple_is_found_and_gets_no_more() -> None:
    clock = Clock()
    plan = made(clock, "a", "b")
    place = plan.arrive(job(clock, "0"))
    plan.begin(place, ["0"])
    assert plan.late() == []
    clock.now += 60.0
    assert plan.late() == [place]
    assert plan.arrive(job(clock, "1")) != place


def test_batches_that_ran_correct_the_predictions() -> None:
    clock = Clock()
    plan = made(clock, "a")
    errors = []
    for i in range(LEAST + 11):
        plan.arrive(job(clock, str(i), ("short", "long")[i % 2]))
        plan.begin("a", [str(i)])
        clock.now += 3.0 if i % 2 else 0.6  # this machine is slower than the model says
        plan.end("a")
        errors.append(plan.status()["prediction_error"])
    assert errors[LEAST - 2] > 0.4 and errors[-1] < 0.1
    plan.arrive(job(clock, "failed"))
    plan.begin("a", ["failed"])
    plan.end("a", done=False)
    assert plan.status()["prediction_error"] == errors[-1], "a failure says nothing about speed"


def test_kinds_that_clients_made_up_are_forgotten() -> None:
    clock = Clock()
    plan = made(clock, "a")
    for i in range(3 * KINDS):
        plan.know(group_of(f"model {i}", 64))
        if i == 5:
            plan.arrive(job(clock, "waits", group_of("model 5", 64).name))
    assert len(plan.status()["kinds"]) <= KINDS + 2
    assert {"short", "long", group_of("model 5", 64).name} <= set(plan.status()["kinds"])
    plan.arrive(job(clock, "last", group_of(f"model {3 * KINDS - 1}", 64).name))


def test_a_triple_with_a_queue_of_its_own_says_what_it_computes() -> None:
    clock = Clock()
    plan = made(clock, "a", "b")
    for name in ("0", "1"):
        plan.arrive(job(clock, name, "long"))
        plan.pin(name, "a")
    plan.computes("a", ["0", "stranger"], 0.5)
    assert plan.status()["running"] == {"a": ["0"]} and plan.status()["waiting"] == 1
    plan.computes("a", ["0"], 1.0)
    assert plan.status()["running"] == {"a": ["0"]}
    plan.computes("a", ["1"], 0.0)
    assert plan.status()["running"] == {"a": ["1"]} and plan.where("0") is None
    plan.computes("a", [], 0.0)
    plan.computes("gone", ["1"], 0.0)
    assert plan.status()["running"] == {}


def test_what_was_counted_of_runs_becomes_the_cost_of_their_kind() -> None:
    clock = Clock()
    plan = made(clock, "a", "b")
    said = [plan.ran("a", "short", 2, rounds=200, nbytes=4e6, took_s=3.0) for _ in range(LEAST + 11)]
    assert said[0] == pytest.approx(0.1 + 2 * (0.1 + 0.01)), "the guess"
    assert said[-1] == pytest.approx(3.0, rel=0.05) and plan.status()["prediction_error"] < 0.3
    assert plan.ran("gone", "short", 1, rounds=1, nbytes=1, took_s=1.0) is None
    assert plan.ran("a", "gone", 1, rounds=1, nbytes=1, took_s=1.0) is None
    with pytest.raises(InputError, match="nan seconds"):
        plan.ran("a", "short", 1, rounds=1, nbytes=1, took_s=float("nan"))


def test_probes_move_jobs_to_the_near_triple() -> None:
    clock = Clock()
    plan = made(clock, "a", "b")
    plan.probed("a", Probe(0.5, 1e8))
    assert plan.arrive(job(clock, "0")) == "b"
    for _ in range(20):
        plan.probed("a", Probe(1e-4, 1e9))
        plan.probed("b", Probe(0.5, 1e8))
    plan.tick()
    assert plan.where("0") == "a"
    with pytest.raises(InputError, match="round trip of nan"):
        plan.probed("a", Probe(float("nan"), 1e8))


def test_a_missed_deadline_is_said(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()

    def slow(workload: Any, **options: Any) -> Any:
        answer = plan_jobs(workload, solver="earliest", **options)
        return replace(answer, notes=("the deadline was missed",))

    plan = made(clock, "a", planner=slow)
    plan.arrive(job(clock, "0"))
    plan.arrive(job(clock, "1"))
    assert plan.status()["fallbacks"] == 2
    assert caplog.text.count("batch-aware earliest completion: the deadline was missed") == 1
