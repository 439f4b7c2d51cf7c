"""Parcels that do not fit a run of several jobs are refused by each party alone, before any round."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from batches import HEADER, ROWS, batch, by_job, dealt, secrets_of
from encoders import LENGTH, Parties, loaded, small_model

from mpc_ray import execute, parcels
from mpc_ray.channel import Message
from mpc_ray.channel.packed import MAX_TENSORS
from mpc_ray.errors import ConfigError, InputError
from mpc_ray.models import query
from mpc_ray.sharing.parcel import Secret


@pytest.fixture(scope="module")
def parties() -> Iterator[Parties]:
    made = loaded()
    yield made
    for channel in made.channels:
        channel.close()


def without(parcel: Message, name: str) -> Message:
    shares = {k: v for k, v in dict(parcel.header["shares"]).items() if k != name}  # type: ignore[arg-type]
    tensors = {k: v for k, v in parcel.tensors.items() if k != name}
    return Message({**parcel.header, "shares": shares}, tensors)


def short(parcel: Message) -> Message:
    del parcel
    shared = query.embedding_secrets(*small_model(), ROWS[:1], LENGTH)
    cut = {
        name: Secret(s.value[..., :8] if name != "x" else s.value[:, :8], s.scale)
        for name, s in shared.items()
    }
    return dealt(cut)[0][1]


def scaled(parcel: Message) -> Message:
    shares = {k: {**v, "scale": v["scale"] + 1} for k, v in dict(parcel.header["shares"]).items()}  # type: ignore[arg-type,index,call-overload]
    return Message({**parcel.header, "shares": shares}, parcel.tensors)


def vast(parcel: Message) -> Message:
    shares = {k: {**v, "shape": [1 << 28, *v["shape"][1:]]} for k, v in dict(parcel.header["shares"]).items()}  # type: ignore[arg-type,index,call-overload]
    return Message({**parcel.header, "shares": shares}, parcel.tensors)


WRONG: dict[str, tuple[Callable[[Message], Message], str]] = {
    "another length": (short, "padded length"),
    "no mask": (lambda p: without(p, "mask"), "with shares of pooling, x"),
    "no pooling": (lambda p: without(p, "pooling"), "pooling"),
    "no rows": (lambda p: without(p, "x"), "embedded rows"),
    "another scale": (scaled, "does not fit"),
    "another party's": (lambda p: Message({**p.header, "seeds": {}}, p.tensors), "not party 1's"),
    "no shares": (lambda p: Message({"seeds": p.header["seeds"]}, p.tensors), "without shares"),
    "32-bit": (
        lambda p: Message(p.header, {k: v.astype(np.int32) for k, v in p.tensors.items()}),
        "int32",
    ),
    "no data": (lambda p: Message(p.header, {}), "missing"),
    "something more": (lambda p: Message(p.header, {**p.tensors, "y": np.zeros(1)}), "no shares"),
    "more than memory": (vast, "at most"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_parcel_that_does_not_fit_is_refused_before_any_round(parties: Parties, what: str) -> None:
    """By one party alone: nobody else runs. And it goes on to the next run as if nothing had been."""
    change, message = WRONG[what]
    good, bad = dealt(secrets_of(ROWS[:1]), secrets_of(ROWS[1:2]))
    job = secrets.token_bytes(16)
    before = parties.channels[1].meter.snapshot()
    with pytest.raises(InputError, match=message):
        parties.executors[1].run(batch([good, [change(p) for p in bad]], job)[1])
    assert parties.channels[1].meter.snapshot() == before
    assert len(by_job(parties.run(batch([good, bad], job)))) == 2  # the job's name was not even used


def test_a_batch_that_is_none_is_refused(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    (message, *_), run = batch(dealt(secrets_of(ROWS[:1]))), parties.executors[0].run
    for wrong in ([], {}, "x", [1], None):
        with pytest.raises(InputError):
            run(Message({**message.header, "batch": wrong}, message.tensors))  # type: ignore[dict-item]
    for name in ("x", "1/x", "-1/x", "0/", "a/x"):
        with pytest.raises(InputError, match="no job's"):
            run(Message(message.header, {name: np.zeros(1)}))
    monkeypatch.setattr(parties.executors[0], "allow_trace", True)
    with pytest.raises(ConfigError, match="every layer"):
        run(Message({**message.header, "trace": True}, message.tensors))


def test_jobs_of_two_lengths_are_not_one_run() -> None:
    plan = small_model()[1].plan
    both = dataclasses.replace(plan, reciprocals={**plan.reciprocals, 8: plan.reciprocals[LENGTH]})
    long = dealt(secrets_of(ROWS[:1]))[0][1]
    program = execute.bert.Program(1, True, "embedding")
    with pytest.raises(InputError, match="differ in length"):
        parcels.take(1, both, program, batch([[long] * 3, [short(long)] * 3])[1], 1 << 30)


def test_memory_is_bounded_for_all_jobs_together(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = dealt(secrets_of(ROWS[:2]), secrets_of(ROWS[2:4]))
    each = 8 * (2 * LENGTH * 32 + 2 * LENGTH + 2 * LENGTH)
    monkeypatch.setattr(execute, "JOB_BYTES", 2 * each)
    parties.run(batch(jobs))
    monkeypatch.setattr(execute, "JOB_BYTES", 2 * each - 1)
    with pytest.raises(InputError, match=f"shares of {2 * each} bytes"):
        parties.executors[0].run(batch(jobs)[0])


def test_an_answer_must_fit_a_message(parties: Parties) -> None:
    job = dealt(secrets_of(ROWS[:1]))[0]
    most = MAX_TENSORS // (1 + 2 * parcels.LABELS)
    with pytest.raises(InputError, match="too many for one run"):
        parties.executors[0].run(batch([job] * (most + 1))[0])
    answers = parties.run(batch([job] * 3))
    assert all(len(a.tensors) <= 3 * (1 + 2 * parcels.LABELS) for a in answers)


def test_join_takes_nothing_of_a_clients_header_but_its_shares() -> None:
    parcel = dealt(secrets_of(ROWS[:1]))[0][0]
    sly = Message({**parcel.header, "attempt": 7, "range_check": False, "normalised": True}, {})
    joined = parcels.join({**HEADER, "job": "00"}, [sly])
    assert joined.header.keys() == {*HEADER, "job", "batch"}
    assert joined.header["batch"] == [dict(parcel.header)]
