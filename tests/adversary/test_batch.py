"""Several clients' jobs in one run: each gets what it would get alone, and learns nothing of the others."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from encoders import LENGTH, TEXTS, Parties, loaded, small_model, start
from encoders import together as at_once
from recording import recording, unmasked
from three import runtimes
from uniform import uniform_p, view_tests

from mpc_ray import execute, parcels
from mpc_ray.channel import Message
from mpc_ray.channel.packed import MAX_TENSORS
from mpc_ray.errors import ConfigError, InputError, RangeExceeded
from mpc_ray.functions.plan import exp_plan
from mpc_ray.models import query
from mpc_ray.sharing.parcel import Secret, deal

ROWS = [row for rows in TEXTS.values() for row in rows]
SIZES = (1, 3, 2)
HEADER = {"cmd": "run", "model": "model", "attempt": 0, "output": "embedding", "range_check": True}


@pytest.fixture(scope="module")
def parties() -> Iterator[Parties]:
    made = loaded()
    yield made
    for channel in made.channels:
        channel.close()


def secrets_of(rows: Sequence[Sequence[int]], louder: int = 0) -> dict[str, Secret]:
    """One client's job; ``louder``: its embedded rows times 2^louder, which leaves every calibrated range."""
    shared = query.embedding_secrets(*small_model(), rows, LENGTH)
    return {**shared, "x": dataclasses.replace(shared["x"], value=shared["x"].value << louder)}


def dealt(*jobs: dict[str, Secret], entropy: bytes | None = None) -> list[list[Message]]:
    """For each job the three parties' parcels."""
    out = []
    for i, job in enumerate(jobs):
        seeds = None if entropy is None else (bytes([i, *entropy[1:]]), bytes([i + 100, *entropy[1:]]))
        out.append([Message(p.header, dict(p.tensors)) for p in deal(job, seeds)])
    return out


def batch(jobs: Sequence[Sequence[Message]], job: bytes | None = None, **header: Any) -> list[Message]:
    """One run of ``jobs`` (each three parcels) for the three parties."""
    name = (job or secrets.token_bytes(16)).hex()
    return [parcels.join({**HEADER, "job": name, **header}, [j[i] for j in jobs]) for i in range(3)]


def by_job(answers: Sequence[Message]) -> list[list[Message]]:
    """For each job the three parties' answers."""
    return [list(job) for job in zip(*(parcels.answers(a) for a in answers), strict=True)]


def split(rows: Sequence[Any], sizes: Sequence[int]) -> list[Sequence[Any]]:
    ends = np.cumsum(sizes)
    return [rows[end - size : end] for size, end in zip(sizes, ends, strict=True)]


# -- the result ------------------------------------------------------------------------------------------


def test_each_job_gets_what_it_gets_alone(parties: Parties) -> None:
    jobs = split(ROWS, SIZES)
    together = by_job(parties.run(batch(dealt(*map(secrets_of, jobs)))))
    assert len(together) == len(jobs)
    for rows, answers in zip(jobs, together, strict=True):
        messages = query.run_messages(secrets_of(rows), "model", secrets.token_bytes(16), 0, "embedding")
        alone = parties.run(messages)
        a, b = (query.embeddings(small_model()[0], rows, found) for found in (answers, alone))
        assert a.shape == b.shape == (len(rows), 32)
        assert float((1 - (a * b).sum(-1)).max()) < 1e-6
        assert answers[0].header["checks"] == alone[0].header["checks"]
        assert [t.shape for t in answers[0].tensors.values()] == [t.shape for t in alone[0].tensors.values()]


def test_a_batch_costs_what_one_job_of_as_many_texts_does(parties: Parties) -> None:
    rows = ROWS[: sum(SIZES)]
    together = parties.run(batch(dealt(*map(secrets_of, split(rows, SIZES)))))
    alone = parties.run(
        query.run_messages(secrets_of(rows), "model", secrets.token_bytes(16), 0, "embedding")
    )
    for one, other in zip(together, alone, strict=True):
        for key in ("rounds", "bytes_sent", "bytes_sent_offline", "unattributed"):
            assert one.header[key] == other.header[key]


def test_a_batch_of_one_job(parties: Parties) -> None:
    (answers,) = by_job(parties.run(batch(dealt(secrets_of(ROWS[:2])))))
    assert query.result(answers).shape == (2, 32)


def test_hidden_rows_of_several_jobs(parties: Parties) -> None:
    jobs = [{"x": secrets_of(rows)["x"]} for rows in split(ROWS, SIZES)]
    found = by_job(parties.run(batch(dealt(*jobs), output="hidden")))
    assert [query.result(answers).shape for answers in found] == [(size, LENGTH, 32) for size in SIZES]


# -- what a job out of range does to the others ------------------------------------------------------------


@pytest.mark.parametrize("bad", range(3))
def test_a_job_out_of_range_strikes_itself_alone(parties: Parties, bad: int) -> None:
    """Its rows are garbage at every later function too, under all three roles: nearly every check strikes."""
    jobs = [secrets_of(rows, louder=9 * (i == bad)) for i, rows in enumerate(split(ROWS, SIZES))]
    found = by_job(parties.run(batch(dealt(*jobs))))
    struck = [query.outside(answers) for answers in found]
    assert [bool(places) for places in struck] == [i == bad for i in range(3)]
    assert len(struck[bad]) >= 4
    with pytest.raises(RangeExceeded):
        query.result(found[bad])
    rows = split(ROWS, SIZES)[(bad + 1) % 3]
    assert np.linalg.norm(query.result(found[(bad + 1) % 3]), axis=-1) == pytest.approx(
        np.ones(len(rows)), abs=1e-3
    )


def test_without_range_checks_nothing_is_said(parties: Parties) -> None:
    found = parties.run(
        batch(dealt(secrets_of(ROWS[:1], louder=9), secrets_of(ROWS[1:2])), range_check=False)
    )
    assert [answers[0].header["checks"] for answers in by_job(found)] == [[], []]


# -- what a client learns, and what a party does -------------------------------------------------------------


def fixed_run(jobs: Sequence[dict[str, Secret]]) -> list[list[Message]]:
    """A run all of whose randomness is fixed: what differs between two, differs by the texts."""
    parties = start()
    for executor, runtime in zip(parties.executors, runtimes(channels=parties.channels), strict=True):
        executor.runtime.correlation = runtime.correlation
    export = small_model()[1]
    header = {"model": "model", "job": bytes(16).hex(), "record": export.record}
    tables = {f"public/{k}": v for k, v in export.tables.items()}
    loads = deal(export.secrets, (bytes([50] * 32), bytes([51] * 32)))
    messages = [Message({**header, **p.header}, {**tables, **p.tensors}) for p in loads]
    calls = [lambda e=e, m=m: e.load(m) for e, m in zip(parties.executors, messages, strict=True)]
    at_once(calls, parties)
    answers = parties.run(batch(dealt(*jobs, entropy=bytes(32)), job=bytes([1] * 16)))
    for channel in parties.channels:
        channel.close()
    return by_job(answers)


@pytest.mark.parametrize("place", [0, 1])
def test_an_answer_does_not_depend_on_the_others_texts(place: int) -> None:
    """Bit for bit, at every party, and even where the other's text leaves its range."""
    mine = secrets_of(ROWS[:2])
    others = [secrets_of(ROWS[2:5]), secrets_of(ROWS[9:12]), secrets_of(ROWS[2:5], louder=9)]
    runs = [fixed_run([mine, other] if place == 0 else [other, mine]) for other in others]
    for run in runs[1:]:
        for before, after in zip(runs[0][place], run[place], strict=True):
            assert before.header == after.header
            assert before.tensors.keys() == after.tensors.keys()
            assert all(np.array_equal(before.tensors[k], after.tensors[k]) for k in before.tensors)
    theirs = [run[1 - place][1].tensors["output"] for run in runs]
    assert not np.array_equal(theirs[0], theirs[1])  # the control: the other text did change


def test_jobs_are_blinded_by_zero_shares_of_their_own(parties: Parties) -> None:
    """One text twice: a party's two answers are unlike, and so is their difference."""
    same = secrets_of(ROWS[3:11])
    answers = parties.run(batch(dealt(same, same)))
    for first, second in (parcels.answers(answer) for answer in answers):
        difference = first.tensors["output"] - second.tensors["output"]
        assert uniform_p(difference.reshape(-1).view(np.uint8), 256) > 1e-9
        wide = [k for k, (_, bits) in enumerate(first.header["checks"]) if bits == 16]  # type: ignore[misc,union-attr,arg-type]
        assert wide
        for k in wide:
            assert not np.array_equal(first.tensors[f"check {k}"], second.tensors[f"check {k}"])
    with unmasked("output"):
        bare = parties.run(batch(dealt(same, same)))
    for answer in bare:
        whole = np.concatenate([job.tensors["output"] for job in parcels.answers(answer)])
        assert uniform_p(whole.reshape(-1).view(np.uint8), 256) < 1e-12


def test_views_of_a_batch_are_uniform_and_of_one_shape(parties: Parties) -> None:
    plan = small_model()[1].plan.layers[0]
    (buckets,) = set(plan.masked_buckets)
    turns = buckets << max(0, 1 - exp_plan(buckets, 1).cell_log)
    shapes = []
    for rows in TEXTS.values():
        with recording() as found:
            parties.run(batch(dealt(secrets_of(rows[:3]), secrets_of(rows[3:]))))
        tests = [p for i in range(3) for p in view_tests(found, i, turns, buckets).values()]
        assert min(tests) * 2 * len(tests) > 1e-6
        shapes.append(
            [
                [
                    (s.peer, s.role, s.layer, s.function, s.what, s.data.shape)
                    for s in found.sent
                    if s.source == i
                ]
                for i in range(3)
            ]
        )
    with recording() as found:
        rows = TEXTS["all different"]
        parties.run(query.run_messages(secrets_of(rows), "model", secrets.token_bytes(16), 0, "embedding"))
    alone = [
        [(s.peer, s.role, s.layer, s.function, s.what, s.data.shape) for s in found.sent if s.source == i]
        for i in range(3)
    ]
    assert shapes[0] == shapes[1] == alone


# -- what is refused, before any round ------------------------------------------------------------------------


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
