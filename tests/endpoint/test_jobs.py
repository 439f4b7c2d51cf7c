"""The jobs that a party holds: bounded memory, expiry, one run at a time, each for the gateway that brought it."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import Federation  # type: ignore[import-not-found]

from mpc_ray.channel import Message, pack
from mpc_ray.endpoint import jobs as jobs_module
from mpc_ray.endpoint.jobs import OVERHEAD_BYTES, Bounds, Held, Jobs
from mpc_ray.endpoint.models import Known
from mpc_ray.endpoint.standing import read
from mpc_ray.endpoint.store import ModelInfo
from mpc_ray.errors import (
    AuthorisationError,
    InputError,
    ModelError,
    MpcError,
    Overloaded,
    Refused,
    SealError,
)
from mpc_ray.trust.policy import Policy
from mpc_ray.trust.replay import ReplayJournal, time_ms

ENVELOPE = 1 << 20
KEY = os.urandom(32).hex()


@dataclass
class Plan:
    """What ``Jobs`` reads of a plan here; shapes are judged by ``fits``."""

    layers: tuple[int, ...] = (1,)
    embedding_norm: object = None


@dataclass
class World:
    federation: Federation
    jobs: Jobs
    size: tuple[int, int] = (2, 16)

    def content(self, nbytes: int = 64) -> list[bytes]:
        header = {"v": 1, "reply_key": KEY, "shares": {}, "seeds": {}}
        return [pack(Message(header, {"x": np.zeros(nbytes, np.uint8)})) for _ in range(3)]

    def made(self, nbytes: int = 64, **changes: Any) -> tuple[dict[str, Any], np.ndarray, str]:
        contents = self.content(nbytes)
        authorisation = self.federation.authorise(contents, **changes)
        signature = base64.b64encode(self.federation.client.sign(authorisation)).decode()
        envelope = np.frombuffer(self.federation.seal(authorisation, contents)[0], np.uint8)
        header = {"authorisation": authorisation.to_json(), "signature": signature}
        return header, envelope, authorisation.job

    def submit(self, nbytes: int = 64, gateway: str = "gateway/gw", **changes: Any) -> str:
        header, envelope, _ = self.made(nbytes, **changes)
        return self.jobs.submit(header, envelope, gateway)


@pytest.fixture
def make(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    folder = federation.parties[0]
    journal = ReplayJournal(folder.path / "journal.sqlite")
    standing = read(folder.path)

    def model(name: str) -> Known:
        if name != "tiny":
            raise ModelError("no such model")
        return Known(ModelInfo("tiny", federation.authorise().model_digest, (16,), 8, 1, "secret"), Plan())  # type: ignore[arg-type]

    def made(held: int = 64 << 20, *, protocol: str = "semi_honest_3pc", **policy: Any) -> World:
        jobs = Jobs(
            0,
            lambda: standing,
            folder.clients(),
            journal,
            Policy(**policy),
            protocol,
            model,
            Bounds(held, ENVELOPE),
        )
        world = World(federation, jobs)
        monkeypatch.setattr(jobs_module, "check_parcel", lambda *given, whole: world.size)
        return world

    yield made
    journal.close()


def code(error: pytest.ExceptionInfo[MpcError]) -> str:
    return str(getattr(error.value, "code", ""))


def test_memory_is_bounded(make: Callable[..., World]) -> None:
    world = make(held=8 * (100_000 + OVERHEAD_BYTES))
    taken = [world.submit(98_000) for _ in range(8)]
    with pytest.raises(Overloaded) as caught:
        world.submit(98_000)
    assert code(caught) == "memory"
    assert caught.value.retry_after_s > 0  # type: ignore[attr-defined]
    before = world.jobs.held_bytes
    assert 8 * 98_000 < before <= 8 * (100_000 + OVERHEAD_BYTES)
    assert world.jobs.drop(taken[:1], "gateway/gw") == 1
    taken.append(world.submit(98_000))
    assert world.jobs.drop(taken, "gateway/gw") == 8
    assert world.jobs.held_bytes == 0 and len(world.jobs) == 0


def test_many_small_jobs_are_not_free(make: Callable[..., World]) -> None:
    world = make(held=10 * OVERHEAD_BYTES)
    for _ in range(8):
        world.submit(1)
    with pytest.raises(Overloaded):
        [world.submit(1) for _ in range(2)]


def test_whatever_is_refused_gives_its_memory_back(make: Callable[..., World]) -> None:
    world = make()
    header, envelope, _ = world.made()
    world.jobs.submit(header, envelope, "gateway/gw")
    held = world.jobs.held_bytes
    with pytest.raises(AuthorisationError, match="accepted before"):
        world.jobs.submit(header, envelope, "gateway/gw")
    other, _, _ = world.made()
    with pytest.raises(SealError):
        world.jobs.submit(other, envelope, "gateway/gw")
    world.size = (3, 16)
    with pytest.raises(InputError):
        world.submit()
    assert world.jobs.held_bytes == held


def test_an_envelope_that_is_too_large_is_not_opened(make: Callable[..., World]) -> None:
    world = make()
    with pytest.raises(InputError) as caught:
        world.submit(ENVELOPE + 1)
    assert code(caught) == "too_large"


def test_jobs_expire(make: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    world = make(clock_skew_s=1)
    now = time_ms()
    short = world.submit(issued_ms=now, expires_ms=now + 1000)
    long = world.submit(issued_ms=now, expires_ms=now + 40_000)
    running = world.submit(issued_ms=now, expires_ms=now + 1000)
    world.jobs.take([running], 0, "gateway/gw")
    monkeypatch.setattr(jobs_module, "time_ms", lambda: now + 3000)
    world.jobs.sweep()
    with pytest.raises(InputError) as caught:
        world.jobs.take([short], 0, "gateway/gw")
    assert code(caught) == "unknown_job"
    assert len(world.jobs) == 2  # what runs is not taken away under the run
    world.jobs.finished([running], done=False)
    world.jobs.sweep()
    assert len(world.jobs) == 1 and world.jobs.take([long], 0, "gateway/gw")


def test_a_job_runs_at_most_twice_and_never_again_once_answered(make: Callable[..., World]) -> None:
    world = make()
    one, two = world.submit(), world.submit()
    world.jobs.take([one], 0, "gateway/gw")
    with pytest.raises(InputError) as caught:
        world.jobs.take([one, two], 0, "gateway/gw")
    assert code(caught) == "already_running"
    assert world.jobs.drop([one], "gateway/gw") == 0
    world.jobs.finished([one], done=False)
    with pytest.raises(InputError) as caught:
        world.jobs.take([one], 0, "gateway/gw")
    assert code(caught) == "attempt"
    held = world.jobs.take(
        [one, two], 1, "gateway/gw"
    )  # the other one was never reached by the first attempt
    assert [job.authorisation.job for job in held] == [one, two]
    world.jobs.finished([one, two], done=False)
    for attempt in (0, 1, 2):
        with pytest.raises(InputError) as caught:
            world.jobs.take([one], attempt, "gateway/gw")
        assert code(caught) == "unknown_job"
    assert world.jobs.held_bytes == 0


def test_a_job_whose_protocol_forbids_it_runs_once(make: Callable[..., World]) -> None:
    world = make(protocol="malicious_3pc", protocols=("*",))
    one, two = (world.submit(protocol="malicious_3pc") for _ in range(2))
    world.jobs.take([one], 0, "gateway/gw")
    world.jobs.finished([one], done=False)
    assert len(world.jobs) == 1  # it is let go of, though its run was lost
    with pytest.raises(InputError) as caught:
        world.jobs.take([two], 1, "gateway/gw")
    assert code(caught) == "attempt"
    assert world.jobs.take([two], 0, "gateway/gw")


def test_nothing_changes_when_a_job_does_not_fit_the_triple(make: Callable[..., World]) -> None:
    world = make()
    one = world.submit()

    def never(job: Held) -> None:
        raise ModelError("not loaded")

    with pytest.raises(ModelError):
        world.jobs.take([one], 0, "gateway/gw", never)
    assert world.jobs.take([one], 0, "gateway/gw")[0].runs == 1


def test_another_gateways_jobs_are_not_there(make: Callable[..., World]) -> None:
    world = make()
    one = world.submit(gateway="gateway/gw")
    assert world.jobs.drop([one], "gateway/other") == 0
    with pytest.raises(InputError) as caught:
        world.jobs.take([one], 0, "gateway/other")
    assert code(caught) == "unknown_job"
    assert world.jobs.drop([one, one], "gateway/gw") == 1


def test_jobs_of_several_kinds_do_not_run_together(make: Callable[..., World]) -> None:
    world = make()
    first = world.submit()
    world.size = (2, 32)
    second = world.submit(length=32)
    with pytest.raises(InputError) as caught:
        world.jobs.take([first, second], 0, "gateway/gw")
    assert code(caught) == "batch"


def test_the_protocol_must_be_the_one_that_runs(make: Callable[..., World]) -> None:
    world = make(protocols=("*",))
    with pytest.raises(Refused) as caught:
        world.submit(protocol="malicious_3pc")
    assert code(caught) == "protocol"


def test_public_weights_need_a_protocol_that_has_them(
    federation: Federation, make: Callable[..., World]
) -> None:
    world = make(protocols=("*",))
    world.jobs._protocol = "aby3"
    world.jobs._model = lambda name: Known(
        ModelInfo("tiny", federation.authorise().model_digest, (16,), 8, 1, "public"),
        Plan(),  # type: ignore[arg-type]
    )
    with pytest.raises(ModelError, match="public") as caught:
        world.submit(protocol="aby3")
    assert code(caught) == "wrong_model" and len(world.jobs) == 0


def test_one_job_is_taken_once_by_many_threads(make: Callable[..., World]) -> None:
    world = make()
    header, envelope, _ = world.made()
    outcomes: list[str] = []

    def submit() -> None:
        try:
            outcomes.append(world.jobs.submit(header, envelope, "gateway/gw"))
        except AuthorisationError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[-7:] == ["replayed"] * 7 and len(world.jobs) == 1
    assert world.jobs.held_bytes == envelope.nbytes + OVERHEAD_BYTES


def test_what_is_printed_of_a_job_holds_no_key_and_no_share(
    make: Callable[..., World], tmp_path: Path
) -> None:
    world = make()
    held = world.jobs.take([world.submit()], 0, "gateway/gw")
    text = repr(held)
    assert KEY not in text and "seeds" not in text and "array" not in text
