"""The plan's actor, called as Ray calls it: from many threads, told of each run by several routers."""

from __future__ import annotations

import threading
import time

import pytest

from mpc_ray.dispatch.actor import ASKED_S, PlanActor
from mpc_ray.dispatch.kinds import group_of
from mpc_ray.dispatch.seen import Seen
from mpc_ray.planner.jobs import Job, Link, Triple, Worker

GROUP = group_of("m", 64)


def triple(name: str) -> Triple:
    one, two, three = (Worker(f"{name}{i}", "", f"op{i}") for i in range(3))
    return Triple(name, (one, two, three))


@pytest.fixture
def actor() -> PlanActor:
    made = PlanActor([Link(("", ""), 1e-3, 1e8)], 4)
    made.triples([triple("a"), triple("b")])
    return made


def test_a_run_counts_once_whoever_passes_it_on(actor: PlanActor) -> None:
    seen = Seen()
    for _ in range(3):
        seen.add(model="m", length=32, rows=4, jobs=2, rounds=100, nbytes=10**6, seconds=0.5)
    assert len(actor.measured("a", seen.told())) == 0, "nobody asked for a job of that kind yet"
    actor.arrive(GROUP, Job("0", GROUP.name))
    seen.add(model="m", length=32, rows=4, jobs=2, rounds=100, nbytes=10**6, seconds=0.5)
    (one,) = actor.measured("a", seen.told())
    assert one[1] == 0.5 and one[0] > 0
    assert actor.measured("a", seen.told()) == []
    fresh = Seen()  # the replica died, and another has its name
    fresh.add(model="m", length=32, rows=4, jobs=2, rounds=100, nbytes=10**6, seconds=0.5)
    assert len(actor.measured("a", fresh.told())) == 1


def test_what_a_leader_computes_is_no_longer_in_its_queue(actor: PlanActor) -> None:
    seen = Seen()
    place = actor.arrive(GROUP, Job("0", GROUP.name))["triple"]
    actor.pinned("0", place)
    seen.begins(["0"])
    actor.measured(place, seen.told())
    assert actor.status()["running"] == {place: ["0"]}
    seen.ends(["0"])
    actor.measured(place, seen.told())
    assert actor.status()["running"] == {} and actor.status()["waiting"] == 0


def test_jobs_that_nobody_waits_for_are_forgotten_from_many_threads(
    actor: PlanActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def come_and_go(thread: int) -> None:
        for i in range(20):
            name = f"{thread}-{i}"
            assert "triple" in actor.arrive(GROUP, Job(name, GROUP.name))
            if i % 2:
                actor.over(name)
                assert "is over" in actor.arrive(GROUP, Job(name, GROUP.name))["error"]

    threads = [threading.Thread(target=come_and_go, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + ASKED_S + 1)
    actor._once()
    assert actor.status()["waiting"] == 0


def test_the_tick_survives_what_nobody_thought_of(
    actor: PlanActor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ticked = threading.Event()

    def breaks() -> None:
        if caplog.records:
            ticked.set()
        raise ZeroDivisionError

    monkeypatch.setattr(actor, "_once", breaks)
    assert ticked.wait(20)
    assert "the plan could not be made anew" in caplog.text
