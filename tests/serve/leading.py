"""A leader over three fake fronts, for the length of a test."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fake_fronts import FakeSet

from mpc_ray.serve.interface import Answers
from mpc_ray.serve.triple import TripleLeader
from mpc_ray.serve.triple_settings import TripleSettings

QUICK = {"status_every_s": 0.1, "run_timeout_s": 5.0, "patience_s": 2.0}
Test = Callable[[FakeSet, TripleLeader], Coroutine[Any, Any, None]]


@asynccontextmanager
async def led(whole: FakeSet, **settings: Any) -> AsyncIterator[TripleLeader]:
    leader = TripleLeader("eu", whole.fronts(), settings=TripleSettings(**(QUICK | settings)))
    await leader.start()
    try:
        yield leader
    finally:
        await leader.stop(1.0)


def play(test: Test, seconds: float = 0.02, **settings: Any) -> FakeSet:
    whole = FakeSet(seconds)

    async def main() -> None:
        async with asyncio.timeout(30):
            async with led(whole, **settings) as leader:
                await test(whole, leader)

        await until(lambda: all(not party.triples for party in whole.parties))  # none is left open

    asyncio.run(main())
    return whole


async def until(condition: Callable[[], bool], limit: float = 5.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        await asyncio.sleep(0.01)


async def together(leader: TripleLeader, jobs: list[Any]) -> list[Answers | BaseException]:
    return await asyncio.gather(*(leader.infer(one) for one in jobs), return_exceptions=True)
