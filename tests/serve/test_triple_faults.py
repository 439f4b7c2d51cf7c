"""Parties that die, stay silent, send garbage and come back: what callers see, and that nothing runs a third time."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import pytest
from fake_fronts import FakeSet, check, job
from leading import led, play, until

from mpc_ray.errors import (
    UNEQUAL_COPIES,
    BadFrame,
    CheatingDetected,
    MpcError,
    PeerLost,
    RangeExceeded,
    Unavailable,
)
from mpc_ray.serve.batching import BatchLimits
from mpc_ray.serve.one_triple import _judged
from mpc_ray.serve.triple import TripleLeader


def test_a_lost_slot_costs_a_second_attempt_on_a_fresh_triple() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        jobs = [job() for _ in range(3)]
        asked = [asyncio.create_task(leader.infer(one)) for one in jobs]
        await until(lambda: all(party.runs for party in whole.parties))
        whole.parties[2].lose_slot()
        answers = await asyncio.gather(*asked)
        assert check(jobs[0], answers[0]) == 1
        assert leader.counts["reruns"] == 1 and leader.counts["aborts"] == 1

    whole = play(test, seconds=1.0)  # long enough to lose it in the middle, whatever else runs
    triples = [triple for triple, _, attempt in whole.parties[0].runs]
    assert len(set(triples)) >= 2


def test_an_interrupted_batch_does_not_wait_for_a_fresh_triple_while_another_is_open() -> None:
    """Also where that one is at work just then."""

    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        await until(lambda: len(leader._runner.open) == 2)
        for party in whole.parties:
            party.fail_open = Unavailable("no triple for now")
        whole.parties[0].fail_runs += [PeerLost("party 1", "lost, as party 0 reports")]
        jobs = [job() for _ in range(2)]
        asked = [asyncio.create_task(leader.infer(one)) for one in jobs]
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*asked)
        assert sorted(check(one, answer) for one, answer in zip(jobs, answers, strict=True)) == [0, 1]
        assert leader.counts["reruns"] == 1 and not leader._runner.running

    whole = FakeSet(0.2)
    for party in whole.parties:
        party.slots = 2

    async def main() -> None:
        async with led(whole, triples=2, batch=BatchLimits(max_tokens=16)) as leader:
            await test(whole, leader)

    asyncio.run(main())
    assert len({triple for triple, _, _ in whole.parties[0].runs}) == 2


def test_a_set_whose_protocol_forbids_it_runs_nothing_again() -> None:
    """One party's word is enough. The caller hears that it may come again, and the next triple is not spent on it."""

    async def main() -> None:
        whole = FakeSet()
        whole.parties[2].protocol = "malicious_3pc"
        async with led(whole) as leader:
            asked, again = job(), job()
            whole.parties[0].fail_runs.append(PeerLost("party 1", "lost, as party 0 reports"))
            with pytest.raises(Unavailable, match="lost") as unavailable:
                await leader.infer(asked)
            assert unavailable.value.retry_after_s and "new authorisation" in unavailable.value.remedy
            await until(lambda: leader.ready and not any(asked.id in party.jobs for party in whole.parties))
            assert check(again, await leader.infer(again)) == 0
            assert leader.counts["reruns"] == 0 and leader.counts["aborts"] == 1
        assert {attempt for party in whole.parties for _, _, attempt in party.runs} == {0}
        assert len({triple for triple, _, _ in whole.parties[0].runs}) == 2

    asyncio.run(main())


def test_a_failed_check_is_never_run_again() -> None:
    for fault in (
        BadFrame("a frame of another length"),
        RangeExceeded("outside"),
        MpcError("KeyError inside"),
    ):

        async def test(whole: FakeSet, leader: TripleLeader, fault: MpcError = fault) -> None:
            asked = job()
            whole.parties[1].fail_runs.append(fault)
            with pytest.raises(type(fault), match="party 1"):
                await leader.infer(asked)
            assert leader.counts["reruns"] == 0
            assert all(len(party.runs) <= 1 for party in whole.parties)
            await until(lambda: leader.ready)
            again = job()
            assert check(again, await leader.infer(again)) == 0
            await until(lambda: all(not party.jobs for party in whole.parties))

        whole = play(test)
        assert max(Counter(one for _, ids, _ in whole.parties[1].runs for one in ids).values()) == 1


def test_a_party_that_cheated_computes_for_nobody_again() -> None:
    """And the caller learns whom it may be."""

    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        whole.parties[2].fail_runs.append(CheatingDetected("party 1: a false claim, in a proof", (1,)))
        with pytest.raises(CheatingDetected, match="a false claim") as caught:
            await leader.infer(job())
        assert caught.value.culprits == (1,) and not caught.value.second_hand
        assert not leader.ready and leader.counts["reruns"] == 0
        opened = len(whole.parties[0].runs)
        with pytest.raises(Unavailable, match="a check of these parties failed"):
            await leader.infer(job())
        await asyncio.sleep(0.3)  # longer than it takes to open a triple here
        assert not leader.ready and not leader._runner.open and len(whole.parties[0].runs) == opened

    play(test)


def test_unequal_copies_are_no_reason_to_distrust_parties() -> None:
    """A client may have dealt them: its run ends, and whoever shared it may ask again."""

    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        unequal = CheatingDetected("party 1 and party 2 hold different copies", (2,))
        unequal.code = UNEQUAL_COPIES
        whole.parties[1].fail_runs.append(unequal)
        with pytest.raises(Unavailable, match="was dealt unequally"):
            await leader.infer(job())
        await until(lambda: leader.ready)
        again = job()
        assert check(again, await leader.infer(again)) == 0
        assert leader.counts["reruns"] == 0

    play(test)
    unequal = CheatingDetected("different copies", (2,))
    unequal.code = UNEQUAL_COPIES
    proof = CheatingDetected("a false claim", (1,))
    assert _judged({0: unequal, 1: proof, 2: unequal}).error is proof


def test_a_failed_check_is_told_before_all_else() -> None:
    """What a party found itself before what another told it, and whatever the third one says."""
    told = CheatingDetected("a check failed, as party 1 reports", (1,), second_hand=True)
    found = CheatingDetected("a false claim", (1,))
    gone = MpcError("no such job")
    gone.code = "unknown_job"
    for failures in ({0: told, 1: gone, 2: found}, {0: BadFrame("short"), 1: told, 2: found}):
        judged = _judged(failures)
        assert judged.error is found and not judged.again and judged.reason == "cheatingdetected"
    assert _judged({0: gone, 1: PeerLost("party 2", "lost"), 2: told}).error is told


def test_two_losses_in_a_row_are_told_to_the_caller() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        lost = PeerLost("party 2", "lost, as party 0 reports")
        whole.parties[0].fail_runs += [lost, lost]
        with pytest.raises(Unavailable, match="lost") as unavailable:
            await leader.infer(job())
        assert "new authorisation" in unavailable.value.remedy
        assert unavailable.value.retry_after_s > 0

    whole = play(test)
    assert [attempt for _, _, attempt in whole.parties[0].runs] == [0, 1]


def test_a_party_that_dies_takes_its_jobs_with_it_and_is_waited_for() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        asked = asyncio.create_task(leader.infer(job()))
        await until(lambda: all(party.runs for party in whole.parties))
        whole.parties[1].kill()
        await until(lambda: not leader.ready)
        with pytest.raises(Unavailable) as down:
            await leader.infer(job())
        assert down.value.retry_after_s > 0 and "party 1" in down.value.cause
        whole.parties[1].start()
        with pytest.raises(Unavailable, match="party 1"):  # the job has gone with it: nobody can run it again
            await asked
        await until(lambda: leader.ready)
        assert leader.counts["aborts"] == 1  # and nobody tried: that would have cost the next triple
        await until(lambda: leader.ready)
        again = job()
        assert check(again, await leader.infer(again)) == 0

    play(test, seconds=0.3)


def test_a_party_that_dies_while_nothing_runs_is_noticed() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        whole.parties[0].kill()
        await until(lambda: not leader.ready, 2.0)
        status = await leader.status()
        assert not status["ready"] and "party 0" in status["why"]
        assert [party["ready"] for party in status["parties"]] == [False, True, True]
        await until(lambda: all(not party.triples for party in whole.parties))  # the other two are free again
        whole.parties[0].start()
        await until(lambda: leader.ready)

    play(test)


def test_a_party_started_again_between_two_looks_is_noticed() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        whole.parties[0].kill()
        whole.parties[0].start()
        await until(lambda: whole.parties[0].commands.count("open") == 2)
        await until(lambda: leader.ready)
        asked = job()
        check(asked, await leader.infer(asked))

    play(test)


def test_who_waits_too_long_for_a_triple_is_told() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        first = asyncio.create_task(leader.infer(job()))
        await until(lambda: all(party.runs for party in whole.parties))
        waiting = asyncio.create_task(leader.infer(job()))
        await until(lambda: all(len(party.jobs) == 2 for party in whole.parties))
        whole.parties[1].fail_open = Unavailable("no slot will ever be free")
        whole.parties[1].lose_slot()
        began = time.monotonic()
        answers = await asyncio.gather(first, waiting, return_exceptions=True)
        assert [type(one) for one in answers] == [Unavailable] * 2
        assert all("no slot will ever be free" in str(one) for one in answers)
        assert 0.3 < time.monotonic() - began < 3
        await until(lambda: all(not party.jobs for party in whole.parties))

    play(test, seconds=0.3, patience_s=0.5)


def test_a_silent_party_is_given_up_at_the_time_out_and_the_others_are_stopped() -> None:
    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        whole.parties[2].silent_runs = 1
        asked = job()
        began = time.monotonic()
        assert check(asked, await leader.infer(asked)) == 1
        assert time.monotonic() - began < 4
        assert whole.parties[0].commands.count("abort") + whole.parties[1].commands.count("abort") >= 1

    play(test, run_timeout_s=0.5)


def test_parties_that_come_later_are_waited_for() -> None:
    whole = FakeSet()
    whole.parties[1].down = True
    whole.parties[2].ready = False

    async def main() -> None:
        async with led(whole) as leader:
            status = await leader.status()
            assert not status["ready"] and "party 1" in status["why"]
            with pytest.raises(Unavailable, match="party 1"):
                await leader.infer(job())
            whole.parties[1].down = False
            await until(lambda: "store is being opened" in leader._runner.why)
            whole.parties[2].ready = True
            await until(lambda: leader.ready)

    asyncio.run(main())


@pytest.mark.parametrize("seed", range(6))
def test_under_random_faults_every_answer_is_right_and_nothing_runs_a_third_time(seed: int) -> None:
    rng = random.Random(seed)

    async def chaos(whole: FakeSet) -> None:
        while True:
            await asyncio.sleep(rng.uniform(0.02, 0.2))
            party = rng.choice(whole.parties)
            match rng.randrange(4):
                case 0:
                    party.kill()
                    await asyncio.sleep(rng.uniform(0.0, 0.3))
                    party.start()
                case 1:
                    party.lose_slot()
                case 2:
                    party.fail_runs.append(PeerLost("party 1", "lost"))
                case 3:
                    party.fail_runs.append(BadFrame("garbage"))

    async def caller(leader: TripleLeader, outcomes: list[object]) -> None:
        for _ in range(6):
            asked = job(timeout_s=5.0, length=rng.choice([16, 32]))
            try:
                if rng.random() < 0.1:
                    async with asyncio.timeout(rng.uniform(0, 0.1)):
                        check(asked, await leader.infer(asked))
                else:
                    check(asked, await leader.infer(asked))
                outcomes.append("answered")
            except (MpcError, TimeoutError) as error:
                outcomes.append(type(error).__name__)
                await asyncio.sleep(0.1)

    async def test(whole: FakeSet, leader: TripleLeader) -> None:
        outcomes: list[object] = []
        breaking = asyncio.create_task(chaos(whole))
        await asyncio.gather(*(caller(leader, outcomes) for _ in range(6)))
        breaking.cancel()
        for party in whole.parties:
            party.down = False
            party.fail_runs.clear()
        allowed = {"answered", "Unavailable", "BadFrame", "ChannelError", "TimeoutError", "PeerLost"}
        assert set(outcomes) <= allowed, Counter(outcomes)
        for _ in range(40):  # the last fault may not have been met yet
            last = job()
            try:
                check(last, await leader.infer(last))
                break
            except Unavailable:
                await asyncio.sleep(0.2)
        else:
            raise AssertionError("it did not come back")
        for party in whole.parties:
            runs = Counter(one for _, ids, _ in party.runs for one in ids)
            assert max(runs.values()) <= 2
        # Not that every job was dropped: a party that could not be reached then forgets it at its expiry.

    play(test, seconds=0.02)
