"""A leader over three real endpoints, in processes of their own: right numbers, and back by itself after kills."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "endpoint"))

from cluster import Three, three_endpoints  # type: ignore[import-not-found]

from mpc_ray.errors import ConfigError, Refused, Unavailable
from mpc_ray.models.bert_float import embed
from mpc_ray.serve.interface import Answers, Job
from mpc_ray.serve.triple import TripleLeader, leader
from mpc_ray.trust.directory import Directory

TEXTS = ("hello world", "a quick fox", "two dogs", "hello dogs", "a fox", "quick quick", "the world", "dogs!")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    with three_endpoints(tmp_path_factory.mktemp("three")) as endpoints:
        yield endpoints


def leading(three: Three, **settings: Any) -> TripleLeader:
    directory = Directory.load(three.gateway / "directory.json")
    return leader(three.gateway, directory, "eu", settings=settings)


async def ask(
    triples: TripleLeader, three: Three, text: str, timeout_s: float = 20.0, **changes: Any
) -> Answers:
    """One text through the leader; its answers, after the numbers in them were compared with the clear model's."""
    made = await asyncio.to_thread(three.job, (text,), **changes)
    job = Job(made.authorisation.to_json(), made.signature, made.envelopes, timeout_s)
    answers = await triples.infer(job)
    got = made.read(answers.sealed)
    assert np.abs(got - embed(three.bert, [text])).max() < 2e-3
    return answers


async def until_ready(triples: TripleLeader, limit: float = 30.0) -> float:
    began = time.monotonic()
    while not triples.ready:
        assert time.monotonic() - began < limit, (await triples.status())["why"]
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def play(three: Three, test: Any, **settings: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(120):
            triples = leading(three, **settings)
            try:
                await triples.start()
                await until_ready(triples)
                await test(triples)
            finally:
                await triples.stop(2.0)

    asyncio.run(main())


def test_clients_jobs_share_runs_and_each_gets_its_own_numbers(three: Three) -> None:
    async def test(triples: TripleLeader) -> None:
        answers = await asyncio.gather(*(ask(triples, three, text) for text in TEXTS * 2))
        assert max(one.timing["batch"] for one in answers) >= 4
        assert len({one.job for one in answers}) == 16
        assert triples.counts["batches"] < 8
        status = await triples.status()
        assert [model["name"] for model in status["models"]] == ["tiny"]
        assert all(one["ready"] and one["certificate_not_after"] > time.time() for one in status["parties"])

    play(three, test)


def test_a_party_refuses_for_itself_and_others_go_on(three: Three) -> None:
    async def test(triples: TripleLeader) -> None:
        asked = [ask(triples, three, text) for text in TEXTS[:3]]
        wrong = ask(triples, three, "refused", jurisdictions=("JP",))
        outcomes = await asyncio.gather(*asked, wrong, return_exceptions=True)
        assert all(isinstance(one, Answers) for one in outcomes[:3]), outcomes
        refused = outcomes[3]
        assert isinstance(refused, Refused) and refused.code == "jurisdiction" and "party" in refused.cause
        assert triples.counts["aborts"] == 0

    play(three, test)


def test_killed_slots_and_fronts_cost_no_wrong_answer_and_it_is_back_by_itself(three: Three) -> None:
    async def test(triples: TripleLeader) -> None:
        outcomes: list[object] = []
        over = asyncio.Event()

        async def client(turn: int) -> None:
            while not over.is_set():
                try:
                    await ask(triples, three, TEXTS[turn % len(TEXTS)])
                    outcomes.append("answered")
                except Unavailable as error:  # sealed again, it is a new job
                    outcomes.append(error.cause)
                    await asyncio.sleep(0.2)

        async def answered_more(limit: float) -> None:
            """Wait for two more answers; raises what a client met besides Unavailable."""
            before, began = outcomes.count("answered"), time.monotonic()
            while outcomes.count("answered") < before + 2:
                assert time.monotonic() - began < limit, (await triples.status())["why"]
                for one in clients:
                    assert not one.done() or one.result()
                await asyncio.sleep(0.05)

        clients = [asyncio.create_task(client(turn)) for turn in range(4)]
        await answered_more(20.0)
        os.kill(three.slot_pids("eu", 2)[0], signal.SIGKILL)
        await answered_more(30.0)
        await asyncio.to_thread(three.kill, "eu", 1)
        await asyncio.sleep(1.0)
        three.start("eu", 1)
        await answered_more(30.0)
        over.set()
        await asyncio.gather(*clients)

    play(three, test)


def test_a_slot_that_dies_while_nothing_runs_costs_a_second_attempt_and_no_error(three: Three) -> None:
    async def test(triples: TripleLeader) -> None:
        await ask(triples, three, "warm")
        os.kill(three.slot_pids("eu", 0)[0], signal.SIGKILL)
        await asyncio.sleep(0.2)
        answers = await ask(triples, three, "after", 90.0)
        assert answers.timing["attempt"] == 1

    play(three, test, patience_s=60.0)  # a slot starts in 5 to 20 s, by what else the machine does


def test_a_set_that_the_directory_lacks_is_named(three: Three) -> None:
    with pytest.raises(ConfigError, match="no whole set us"):
        leader(three.gateway, Directory.load(three.gateway / "directory.json"), "us")
