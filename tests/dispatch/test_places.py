"""What a router remembers: requests that are never routed leave nothing; measurements are passed on once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from mpc_ray.dispatch.router import KEPT_S, TELL_S, PlanRouter


class Remote:
    """A method of an actor."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        self.answer = answer
        self.calls: list[Any] = []

    def remote(self, *arguments: Any) -> asyncio.Future[Any]:
        self.calls.append(arguments)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result(self.answer(*arguments))
        return future


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> PlanRouter:
    made: PlanRouter = object.__new__(PlanRouter)
    made.initialize_state(set_name="eu")
    made._plan = SimpleNamespace(
        arrive=Remote(lambda group, job: {"triple": "a"}),
        triples=Remote(lambda triples: None),
        measured=Remote(lambda name, told: [(1.0, 2.0)]),
    )
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    made.__dict__["now"] = now
    return made


def test_requests_that_are_cancelled_leave_nothing_behind(router: PlanRouter) -> None:
    async def ask() -> None:
        for i in range(100):
            assert await router._place((f"job {i}", "m", 32), frozenset({"a", "b"})) == "a"
            assert await router._place((f"job {i}", "m", 32), frozenset({"a", "b"})) == "a"
            router.__dict__["now"][0] += KEPT_S / 4
            assert len(router._places) <= 5

    asyncio.run(ask())
    assert len(router._plan.arrive.calls) == 100, "a place is kept for a moment"
    assert len(router._plan.triples.calls) == 1


def test_what_a_leader_measured_is_passed_on_at_most_once_a_second(router: PlanRouter) -> None:
    replicas: Any = {
        "a": SimpleNamespace(routing_stats={"running": [], "for_s": 0.0, "runs": []}),
        "b": SimpleNamespace(routing_stats={}),
    }

    async def route() -> None:
        for _ in range(5):
            router._pass_on(replicas)
            await asyncio.sleep(0)
        router.__dict__["now"][0] += TELL_S
        router._pass_on(replicas)
        await asyncio.gather(*router._tasks)

    asyncio.run(route())
    assert [call[0] for call in router._plan.measured.calls] == ["a", "a"]
