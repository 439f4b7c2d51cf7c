"""The leader of a triple against three fronts: batches, refusals, deadlines, cancellation, renewal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fake_fronts import MODEL, FakeSet, check, job
from leading import led, play, together, until

from mpc_ray.errors import (
    AuthorisationError,
    ConfigError,
    DeadlineExceeded,
    PeerLost,
    Refused,
    Unavailable,
)
from mpc_ray.serve.batching import BatchLimits
from mpc_ray.serve.interface import Answers
from mpc_ray.serve.triple import TripleLeader
from mpc_ray.serve.triple_settings import TripleSettings


def test_one_job() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        asked = job()
        answers = await leader.infer(asked)
        assert check(asked, answers) == 0
        assert answers.set == "eu"
        assert answers.timing["batch"] == 1
        assert answers.timing["rounds"] == 7
        assert all(answers.timing[name] >= 0 for name in ("submit_s", "queue_s", "run_s"))
        status = await leader.status()
        assert status["ready"] and status["triples"] == 1 and status["queue"] == 0
        assert status["models"] == [MODEL]
        assert [party["ready"] for party in status["parties"]] == [True] * 3
        assert status["counts"]["jobs"] == 1

    play(test)


def test_jobs_that_wait_run_together_and_in_one_order_everywhere() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        jobs = [job() for _ in range(9)]
        for asked, answers in zip(jobs, await together(leader, jobs), strict=True):
            assert isinstance(answers, Answers), answers
            assert check(asked, answers) == 0

    whole = play(test, seconds=0.2)
    first, *others = [party.runs for party in whole.parties]
    assert others == [first, first]
    assert len(first) <= 3  # not nine


def test_only_jobs_of_one_kind_share_a_run() -> None:
    kinds: list[dict[str, Any]] = [{}, {"length": 32}, {"range_check": False}, {"output": "hidden"}]

    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        jobs = [job(**kinds[i % 4]) for i in range(12)]
        kind_of = {one.id: i % 4 for i, one in enumerate(jobs)}
        for asked, answers in zip(jobs, await together(leader, jobs), strict=True):
            assert isinstance(answers, Answers), answers
            check(asked, answers)
        for _, ids, _ in whole.parties[0].runs:
            assert len({kind_of[one] for one in ids}) == 1

    play(test)


def test_a_party_that_refuses_a_job_stops_it_alone() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        jobs = [job() for _ in range(4)]
        whole.parties[1].refuse[jobs[2].id] = Refused("not for this purpose", code="purpose")
        answers = await together(leader, jobs)
        refused = answers[2]
        assert isinstance(refused, Refused) and refused.code == "purpose"
        assert "party 1" in refused.cause
        for i in (0, 1, 3):
            one = answers[i]
            assert isinstance(one, Answers)
            check(jobs[i], one)
        await until(lambda: all(not party.jobs for party in whole.parties))
        assert [jobs[2].id in party.dropped for party in whole.parties] == [True, False, True]
        assert leader.ready

    whole = play(test)
    assert all(party.commands.count("open") == 1 for party in whole.parties)  # the triple was not touched


def test_a_refusal_counts_before_another_partys_silence() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        asked = job()
        whole.parties[2].refuse[asked.id] = AuthorisationError("not enrolled", code="unknown_key")
        whole.parties[0].refuse[asked.id] = PeerLost("client", "a broken link")
        with pytest.raises(AuthorisationError) as refused:
            await leader.infer(asked)
        assert refused.value.code == "unknown_key"

    play(test)


def test_a_cancelled_job_is_taken_back() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        first = asyncio.create_task(leader.infer(job()))
        await until(lambda: all(party.runs for party in whole.parties))
        waiting = job()
        second = asyncio.create_task(leader.infer(waiting))
        await until(lambda: all(waiting.id in party.jobs for party in whole.parties))
        second.cancel()
        await until(lambda: all(waiting.id in party.dropped for party in whole.parties))
        await first
        assert all(len(party.runs) == 1 for party in whole.parties)

    play(test, seconds=0.3)


def test_a_job_cancelled_while_it_is_submitted_is_dropped_after_that_not_before() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        for party in whole.parties:
            party.slow_submit_s = 0.2
        asked = asyncio.create_task(leader.infer(job()))
        await asyncio.sleep(0.05)
        asked.cancel()
        await until(lambda: all(len(party.dropped) == 1 for party in whole.parties))
        assert all(not party.jobs and not party.runs for party in whole.parties)

    play(test)


def test_a_job_whose_time_is_up_is_not_run() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        first = asyncio.create_task(leader.infer(job()))
        await until(lambda: all(party.runs for party in whole.parties))
        with pytest.raises(DeadlineExceeded):
            await leader.infer(job(timeout_s=0.05))
        await first
        await until(lambda: all(not party.jobs for party in whole.parties))
        assert all(len(party.runs) == 1 for party in whole.parties)

    play(test, seconds=0.3)


def test_a_job_is_under_way_once() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        asked = job()
        first = asyncio.create_task(leader.infer(asked))
        await asyncio.sleep(0.02)
        with pytest.raises(AuthorisationError) as replayed:
            await leader.infer(asked)
        assert replayed.value.code == "replayed"
        check(asked, await first)  # the second did not drop it
        with pytest.raises(AuthorisationError, match="seen before"):  # and afterwards the parties say so
            await leader.infer(asked)

    play(test, seconds=0.2)


def test_what_nobody_could_run_is_refused_before_it_is_sent() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        wrong = [
            (job(set="us"), "wrong_set"),
            (job(model="other"), "unknown_model"),
            (job(model_digest="00" * 32), "unknown_model"),
        ]
        for asked, code in wrong:
            with pytest.raises(Refused) as refused:
                await leader.infer(asked)
            assert refused.value.code == code
        broken = job()
        with pytest.raises(AuthorisationError, match="malformed"):
            await leader.infer(type(broken)({"job": broken.id}, broken.signature, broken.envelopes))

    whole = play(test)
    assert all("submit" not in party.commands for party in whole.parties)


def test_a_triple_whose_keys_are_worn_is_replaced_without_a_failed_job() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        for party in whole.parties:
            party.worn = True
        for _ in range(3):
            asked = job()
            assert check(asked, await leader.infer(asked)) == 0

    whole = play(test)
    assert len({triple for triple, _, _ in whole.parties[0].runs}) == 3


def test_a_model_imported_by_all_three_comes_into_service_and_one_that_differs_does_not() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        new = dict(MODEL, name="new", digest="ef" * 32)
        for party in whole.parties:
            party.models = [dict(MODEL), dict(new), dict(MODEL, name="odd", digest=f"{party.index}" * 64)]
        await until(lambda: "new" in leader.fleet.models)
        asked = job(model="new", model_digest=new["digest"])
        check(asked, await leader.infer(asked))
        status = await leader.status()
        assert [model["name"] for model in status["models"]] == ["mini", "new"]
        assert status["differing"] == ["odd"]

    whole = play(test)
    assert whole.parties[0].commands.count("open") == 2


def test_stopping_finishes_what_was_taken() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        jobs = [job() for _ in range(4)]
        asked = [asyncio.create_task(leader.infer(one)) for one in jobs]
        await until(lambda: all(party.runs for party in whole.parties))
        stopping = asyncio.create_task(leader.stop(5.0))
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="shutting down"):
            await leader.infer(job())
        for one, answers in zip(jobs, await asyncio.gather(*asked), strict=True):
            check(one, answers)
        await stopping

    play(test, seconds=0.2, batch=BatchLimits(max_tokens=16))


def test_several_triples_share_one_queue() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        await until(lambda: len(whole.parties[0].triples) == 2)
        jobs = [job() for _ in range(6)]
        for one, answers in zip(jobs, await together(leader, jobs), strict=True):
            assert isinstance(answers, Answers), answers
            check(one, answers)

    whole = FakeSet(0.1)
    for party in whole.parties:
        party.slots = 2

    async def main() -> None:
        async with led(whole, triples=2, batch=BatchLimits(max_tokens=16)) as leader:
            await test(whole, leader)

    asyncio.run(main())
    assert len({triple for triple, _, _ in whole.parties[0].runs}) == 2


def test_settings_come_from_the_gateways_file() -> None:
    settings = TripleSettings.of({"delay_ms": 2, "max_tokens": 64, "max_queue": 9, "triples": 2})
    assert settings.batch == BatchLimits(64, 9, 0.002)
    assert settings.triples == 2
    with pytest.raises(ConfigError, match="delay_s"):
        TripleSettings.of({"delay_s": 2})
    with pytest.raises(ConfigError):
        TripleSettings(triples=0)
