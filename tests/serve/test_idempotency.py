"""Idempotency keys: computed once, answered as often as asked."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mpc_ray.errors import AuthorisationError, DeadlineExceeded
from mpc_ray.serve.apikeys import KeyStore
from mpc_ray.serve.idempotency import Conflict, Idempotency
from mpc_ray.serve.state import Ask, LocalState
from mpc_ray.trust.folder import request_gateway

pytestmark = pytest.mark.anyio
KEY = ("api key", "idempotency key")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made(clock: Clock | None = None, max_bytes: int = 100) -> Idempotency:
    return Idempotency(600.0, max_bytes, clock or Clock())


async def soon() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_stored_after_success() -> None:
    keys = made()
    assert await keys.begin(KEY, b"d", "t1", 5) is None
    keys.finish("t1", b"answer")
    assert await keys.begin(KEY, b"d", "t2", 5) == b"answer"
    with pytest.raises(Conflict):
        await keys.begin(KEY, b"other", "t3", 5)
    assert await keys.begin(("another api key", KEY[1]), b"other", "t4", 5) is None


async def test_again_after_failure_with_any_body() -> None:
    keys = made()
    assert await keys.begin(KEY, b"d", "t1", 5) is None
    with pytest.raises(Conflict):
        await keys.begin(KEY, b"other", "t2", 5)
    keys.finish("t1", None)
    assert await keys.begin(KEY, b"other", "t3", 5) is None


async def test_waits_for_the_one_under_way() -> None:
    keys = made()
    assert await keys.begin(KEY, b"d", "t1", 5) is None
    waiting = [asyncio.create_task(keys.begin(KEY, b"d", f"w{i}", 5)) for i in range(3)]
    await soon()
    assert not any(task.done() for task in waiting)
    keys.finish("t1", b"answer")
    assert await asyncio.gather(*waiting) == [b"answer"] * 3


async def test_one_of_those_who_wait_takes_over_after_failure() -> None:
    keys = made()
    assert await keys.begin(KEY, b"d", "t1", 5) is None
    waiting = [asyncio.create_task(keys.begin(KEY, b"d", f"w{i}", 5)) for i in range(3)]
    await soon()
    keys.finish("t1", None)
    await soon()
    assert [task.done() for task in waiting].count(True) == 1
    taken = next(index for index, task in enumerate(waiting) if task.done())
    keys.finish(f"w{taken}", b"second")
    answers = await asyncio.gather(*waiting)
    assert sorted(map(str, answers)) == ["None", "b'second'", "b'second'"]


async def test_a_caller_that_left_takes_no_turn() -> None:
    keys = made()
    assert await keys.begin(KEY, b"d", "t1", 5) is None
    waiting = asyncio.create_task(keys.begin(KEY, b"d", "left", 5))
    await soon()
    keys.finish("left", None)
    keys.finish("t1", None)
    with pytest.raises(DeadlineExceeded):
        await waiting
    assert await keys.begin(KEY, b"d", "t2", 5) is None


async def test_waiting_has_an_end() -> None:
    keys = Idempotency(600.0, 100, asyncio.get_running_loop().time)
    assert await keys.begin(KEY, b"d", "t1", 5) is None
    with pytest.raises(DeadlineExceeded):
        await keys.begin(KEY, b"d", "t2", 0.02)


async def test_a_turn_whose_owner_died_is_lost_after_its_deadline() -> None:
    clock = Clock()
    keys = made(clock)
    assert await keys.begin(KEY, b"d", "t1", 5) is None
    clock.now += 6.1
    assert await keys.begin(KEY, b"d", "t2", 5) is None
    keys.finish("t1", b"too late")
    keys.finish("t2", b"in time")
    assert await keys.begin(KEY, b"d", "t3", 5) == b"in time"


async def test_bounded_in_bytes_and_time() -> None:
    clock = Clock()
    keys = made(clock, max_bytes=100)
    for index in range(5):
        where = ("a", str(index))
        assert await keys.begin(where, b"d", f"t{index}", 5) is None
        keys.finish(f"t{index}", bytes(40))
    assert keys.stored_bytes == 80
    assert await keys.begin(("a", "4"), b"d", "x", 5) == bytes(40)
    assert await keys.begin(("a", "0"), b"d", "y", 5) is None, "the oldest went"
    keys.finish("y", None)
    clock.now += 601
    assert await keys.begin(("a", "4"), b"d", "z", 5) is None
    assert keys.stored_bytes == 0
    keys.finish("z", bytes(101))
    assert keys.stored_bytes == 0, "one that is too large is not kept"


async def test_the_job_of_a_turn_that_was_lost_may_be_repeated(tmp_path: Path) -> None:
    clock = Clock()
    request_gateway(folder := tmp_path / "gw", name="one")
    state = LocalState(folder, clock=clock)
    key = KeyStore(folder).create("one").key
    expires = time.time_ns() // 1_000_000 + 30_000
    asks = [Ask(key, "a" * 32, expires, 16, f"t{i}", 5.0, idempotency="k", digest=b"d") for i in range(2)]
    assert await state.admit(asks[0]) is None
    clock.now += 6.1  # its replica died
    assert await state.admit(asks[1]) is None
    other = replace(asks[0], turn="t9", idempotency="another key")
    with pytest.raises(AuthorisationError, match="sent before"):
        await state.admit(other)
    await state.finish(asks[1], b"answer")
    assert await state.admit(replace(asks[0], turn="t3")) == b"answer"
    assert not state._turns
    state.close()
