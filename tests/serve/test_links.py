"""Lines to a front: in step whatever happens to callers, patient within bounds, and not a storm of dials."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from certificates import make_session_certificates

from mpc_ray.channel import Hello, Link, Listener, Message, dial_party, local_link
from mpc_ray.commands import error_of, failure
from mpc_ray.errors import AuthorisationError, ChannelError, MpcError, Overloaded, PeerLost, Unavailable
from mpc_ray.serve.links import Backoff, Front, Line, Reach

SESSION = Hello(bytes(16))


def echo(link: Link, handle: Callable[[Message], Message | None]) -> None:
    """Answer with what ``handle`` makes of each message; None hangs up."""
    try:
        while True:
            answer = handle(link.receive(None))
            if answer is None:
                link.close()
                return
            link.send(answer)
    except ChannelError:
        return


class Party:
    """Dials within this process. ``down`` raises what a dial would."""

    def __init__(self, handle: Callable[[Message], Message | None] | None = None) -> None:
        self.dials = 0
        self.down = False
        self.handle = handle or (lambda message: Message({"echo": message.header["n"]}))

    def dial(self, timeout: float) -> Link:
        self.dials += 1
        if self.down:
            raise PeerLost("party 1", "not reached: refused")
        ours, theirs = local_link(1)
        threading.Thread(target=echo, args=(theirs, self.handle), daemon=True).start()
        return ours


def play(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(main())


async def number(line: Line, n: int, timeout: float = 2.0) -> object:
    return (await line.ask({"n": n}, timeout=timeout)).header["echo"]


def test_a_line_is_dialled_when_it_is_needed_and_again_after_it_broke() -> None:
    hang_up = [False]

    def handle(message: Message) -> Message | None:
        if hang_up[0]:
            hang_up[0] = False
            return None
        return Message({"echo": message.header["n"]})

    async def test() -> None:
        party = Party(handle)
        line = Line(Reach(1, party.dial), "t")
        assert party.dials == 0 and not line.connected
        assert await number(line, 1) == 1
        assert await number(line, 2) == 2
        assert party.dials == 1
        hang_up[0] = True
        with pytest.raises(PeerLost, match="party 1"):
            await number(line, 3)
        assert await number(line, 4) == 4
        assert party.dials == 2
        line.close()
        with pytest.raises(ChannelError, match="closed"):
            await number(line, 5)

    play(test)


def test_a_cancelled_caller_does_not_put_the_line_out_of_step() -> None:
    def slowly(message: Message) -> Message:
        time.sleep(0.1)
        return Message({"echo": message.header["n"]})

    async def test() -> None:
        line = Line(Reach(1, Party(slowly).dial), "t")
        first = asyncio.create_task(number(line, 1))
        await asyncio.sleep(0.03)
        first.cancel()
        assert await number(line, 2) == 2
        assert await asyncio.gather(*(number(line, n) for n in range(3, 8))) == [3, 4, 5, 6, 7]
        line.close()

    play(test)


def test_silence_ends_at_the_deadline_and_the_next_question_gets_its_own_answer() -> None:
    silent = threading.Event()

    def handle(message: Message) -> Message:
        if message.header["n"] == 1:
            silent.wait(5)
        return Message({"echo": message.header["n"]})

    async def test() -> None:
        line = Line(Reach(1, Party(handle).dial), "t")
        began = time.monotonic()
        with pytest.raises(PeerLost, match="party 1"):
            await number(line, 1, 0.2)
        assert time.monotonic() - began < 1.0
        assert await number(line, 2) == 2
        silent.set()
        line.close()

    play(test)


def test_cutting_a_line_ends_what_is_under_way_at_once() -> None:
    silent = threading.Event()

    async def test() -> None:
        line = Line(Reach(1, Party(lambda message: Message({}) if silent.wait(5) else None).dial), "t")
        asked = asyncio.create_task(number(line, 1, 5.0))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        line.cut()
        with pytest.raises(ChannelError, match="party 1"):
            await asked
        assert time.monotonic() - began < 0.5
        silent.set()
        line.close()

    play(test)


def test_a_party_that_cannot_be_reached_is_not_dialled_again_at_once() -> None:
    async def test() -> None:
        party = Party()
        party.down = True
        front = Front(1, party.dial, submit_links=8)
        asked = [front.submit({"n": n}, timeout=1.0) for n in range(40)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(outcome, PeerLost) for outcome in outcomes)
        assert any("refused" in str(outcome) for outcome in outcomes)
        assert party.dials <= 8
        party.down = False
        front.cut()  # news of the party: the pause is over
        assert (await front.submit({"n": 1}, timeout=1.0)).header["echo"] == 1
        front.close()

    play(test)


def test_submissions_share_few_links() -> None:
    def slowly(message: Message) -> Message:
        time.sleep(0.05)
        return Message({"echo": message.header["n"]})

    async def test() -> None:
        party = Party(slowly)
        front = Front(1, party.dial, submit_links=3)
        began = time.monotonic()
        answers = await asyncio.gather(*(front.submit({"n": n}, timeout=2.0) for n in range(9)))
        assert [answer.header["echo"] for answer in answers] == list(range(9))
        assert party.dials == 3
        assert 0.15 <= time.monotonic() - began < 0.4
        front.close()

    play(test)


def test_pauses_grow_to_a_bound_with_a_random_part_and_begin_again() -> None:
    backoff = Backoff(0.1, 2.0)
    pauses = [backoff.failed() for _ in range(10)]
    assert all(0.5 * 0.1 * 2**i <= pause <= 1.5 * 0.1 * 2**i for i, pause in enumerate(pauses[:4]))
    assert all(1.0 <= pause <= 3.0 for pause in pauses[5:])
    assert len(set(pauses[5:])) > 1
    backoff.succeeded()
    assert backoff.failed() <= 0.15


def test_a_partys_error_keeps_its_class_and_code_and_names_the_party() -> None:
    error = error_of(2, failure(AuthorisationError("no", remedy="x", code="unknown_key")))
    assert isinstance(error, AuthorisationError) and error.code == "unknown_key"
    assert error.cause == "party 2: no"
    waits = error_of(0, failure(Overloaded("full", retry_after_s=7)))
    assert isinstance(waits, Unavailable) and waits.retry_after_s == 7
    for lie in (
        {"error": "SystemExit"},
        {"error": 3},
        {"error": "log", "code": "a b"},
        {"error": "Overloaded", "retry_after_s": 1e9},
    ):
        told = error_of(0, lie)
        assert isinstance(told, MpcError) and " " not in told.code
        assert getattr(told, "retry_after_s", 1.0) <= 3600


def test_over_mutual_tls_with_a_party_that_is_started_again(tmp_path: Path) -> None:
    identities = make_session_certificates(tmp_path)

    def accept(listener: Listener, times: int) -> None:
        for _ in range(times):
            link = listener.accept_client(SESSION, 5.0)
            links.append(link)
            threading.Thread(
                target=echo, args=(link, lambda message: Message({"echo": message.header["n"]})), daemon=True
            ).start()

    links: list[Link] = []
    listener = Listener(1, identities["party-1"])
    address = listener.address
    threading.Thread(target=accept, args=(listener, 1), daemon=True).start()

    def dial(timeout: float) -> Link:
        return dial_party(1, address, identities["client"], SESSION, timeout=timeout)

    async def test() -> None:
        line = Line(Reach(1, dial, Backoff(0.01, 0.01)), "t")
        assert await number(line, 1) == 1
        listener.close()
        links[0].close()
        with pytest.raises(PeerLost, match="party 1"):
            await number(line, 2, 0.5)
        with pytest.raises(PeerLost, match="party 1"):
            await number(line, 3, 0.2)
        again = Listener(1, identities["party-1"], port=address[1])
        threading.Thread(target=accept, args=(again, 1), daemon=True).start()
        await asyncio.sleep(0.05)
        assert await number(line, 4, 5.0) == 4
        line.close()
        again.close()

    play(test)
