"""Several clients' jobs in one run: each gets what it would get alone, and learns nothing of the others."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from batches import ROWS, batch, by_job, dealt, secrets_of, split
from encoders import LENGTH, TEXTS, Parties, loaded, small_model, start
from encoders import together as at_once
from recording import recording, unmasked
from three import runtimes
from uniform import uniform_p, view_tests

from mpc_ray import parcels
from mpc_ray.channel import Message
from mpc_ray.errors import RangeExceeded
from mpc_ray.functions.plan import exp_plan
from mpc_ray.models import query
from mpc_ray.sharing.parcel import Secret, deal

SIZES = (1, 3, 2)


@pytest.fixture(scope="module")
def parties() -> Iterator[Parties]:
    made = loaded()
    yield made
    for channel in made.channels:
        channel.close()


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
