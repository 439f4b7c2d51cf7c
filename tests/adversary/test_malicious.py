"""malicious_3pc under attack: whatever a corrupt party does to whatever message, the honest ones abort or are right.

Samples of what ``attacks.py`` does exhaustively (docs/security.md has the counts); every message of the proofs alone is
attacked exhaustively in tests/protocols/malicious.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from attacks import CHANGES, CorruptChannel, Spot, blames, cases, run, spots_of, survey
from encoders import DIGEST, Parties, embedding_messages, small_model, together

from mpc_ray.channel import local_channels
from mpc_ray.channel.packed import Message
from mpc_ray.errors import CheatingDetected, MpcError
from mpc_ray.execute_malicious import executor
from mpc_ray.models import query

LOUD = [change for change in CHANGES if change != "silence"]
CASES = {case.name: case for case in cases()}


@pytest.mark.parametrize("name", CASES)
def test_sub_protocols(name: str) -> None:
    """About one in 40 of all attacks on all messages; a right result only where the change is of no account."""
    seen: Counter[str] = Counter()
    for spot, change, outcome, differs in survey(CASES[name], LOUD, every=41, offset=len(name)):
        assert outcome.verdict != "wrong", (spot, change)
        assert outcome.blamed, (spot, change, outcome.errors)
        assert outcome.named, (spot, change, outcome.errors)
        assert outcome.seconds < 20
        seen[outcome.verdict] += differs
    assert seen["abort"] > 0


@pytest.mark.parametrize("name", ["product", "truncation", "AND"])
def test_every_message_of_the_body_itself(name: str) -> None:
    """The products' own messages, one flipped bit in each, and the same as a lie that the party goes on with."""
    case = CASES[name]
    body = [spot for spot in spots_of(case, proved=False) if spot.length]
    assert body
    for spot in body:
        for change in ("flip", "lie"):
            outcome, _ = run(case, spot, change)
            assert outcome.verdict == "abort", (spot, change)
            assert outcome.blamed


def test_silence_ends_within_the_time_out_and_is_named() -> None:
    case = CASES["product"]
    spots = spots_of(case)
    for spot in spots[:: len(spots) // 3]:
        outcome, _ = run(case, spot, "silence")
        assert outcome.verdict == "abort"
        assert outcome.blamed
        assert outcome.seconds < 10  # the time-out is half a second


@pytest.mark.parametrize("name", ["product", "truncation", "sign"])
def test_aby3_under_the_same_attacks_may_be_wrong_but_never_crashes(name: str) -> None:
    """Nothing is promised but a clear error or a wrong number."""
    verdicts = Counter(o.verdict for _, _, o, _ in survey(CASES[name], LOUD, every=7, proved=False))
    assert verdicts["wrong"] > 0
    assert set(verdicts) <= {"wrong", "right", "abort"}


# -- a whole encoder ------------------------------------------------------------------------------------------


def start(channels: list[Any]) -> Parties:
    """Three parties that hold the small model."""
    executors = together([lambda c=c: executor(c, digest=DIGEST) for c in channels])
    parties = Parties(executors, channels)
    parties.load(small_model()[1])
    return parties


def attacked(
    spot: Spot | None = None, change: str = "", seed: int = 0
) -> tuple[Parties, list[CorruptChannel]]:
    wrapped = [
        CorruptChannel(c, spot if spot is not None and spot.party == i else None, change, seed)
        for i, c in enumerate(local_channels(timeout=30.0))
    ]
    for channel in wrapped:
        channel.armed = False
    parties = start(wrapped)
    for channel in wrapped:
        channel.armed = True
    return parties, wrapped


_HONEST: dict[str, Any] = {}


def honest() -> tuple[np.ndarray, list[Spot], list[Message]]:
    """Embeddings of an honest run, every part of every frame of it, and the parties' answers."""
    if not _HONEST:
        parties, channels = attacked()
        answers = parties.run(embedding_messages("all different"))
        spots = [spot for channel in channels for spot in channel.spots]
        _HONEST.update(vectors=query.result(answers), spots=spots, answers=answers)
    return _HONEST["vectors"], _HONEST["spots"], _HONEST["answers"]


def test_an_honest_encoder_is_right() -> None:
    vectors, spots, answers = honest()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=0.01)
    assert len(spots) > 1000
    assert all(answer.header["copies"] for answer in answers)


def each(parties: Parties, messages: list[Message]) -> list[Message | BaseException]:
    """What each party answers, or how it fails."""

    def one(i: int) -> Message | BaseException:
        try:
            return parties.executors[i].run(messages[i])
        except MpcError as error:
            parties.channels[i].fail(error)
            return error

    return together([lambda i=i: one(i) for i in range(3)])  # type: ignore[misc]


@pytest.mark.parametrize("sample", range(2))
def test_samples_over_an_encoder(sample: int) -> None:
    """One wrong thing at a random place of a whole encoder: the honest parties name who did it, or it had no effect.

    The corrupt party's own error counts for nothing: it may accuse anybody.
    """
    vectors, spots, _ = honest()
    rng = np.random.default_rng(sample)
    spot = spots[int(rng.integers(len(spots)))]
    parties, channels = attacked(spot, LOUD[sample], seed=sample)
    outcomes = each(parties, embedding_messages("all different"))
    assert channels[spot.party].hit
    errors = [o for i, o in enumerate(outcomes) if i != spot.party and isinstance(o, BaseException)]
    assert all(blames(error, spot.party) for error in errors), (spot, errors)
    if not errors and not isinstance(outcomes[spot.party], BaseException):
        assert np.abs(query.result(outcomes) - vectors).max() < 1e-2  # type: ignore[arg-type]


# -- what was dealt -------------------------------------------------------------------------------------------


def bent(messages: list[Message], party: int, name: str) -> list[Message]:
    """The data piece of ``name`` differs at one party: P1 and P2 both hold it."""
    tensors = messages[party].tensors
    tensors[name] = tensors[name].copy()
    tensors[name].reshape(-1)[0] += 1
    return messages


def test_unequal_copies_of_an_input_stop_before_the_first_coin(caplog: pytest.LogCaptureFixture) -> None:
    """Both holders say so; nobody proves anything; the failure is recorded; models and seeds are gone; and the same
    parties never compute again."""
    parties, channels = attacked()
    outcomes = each(parties, bent(embedding_messages("all different"), 1, "x"))
    for party, other in ((1, 2), (2, 1)):
        error = outcomes[party]
        assert isinstance(error, CheatingDetected)
        assert "different copies of their common piece" in str(error)
        assert error.culprits == (other,)
    assert isinstance(outcomes[0], MpcError)
    kinds = {entry["label"] for channel in channels for entry in channel.meter.snapshot()["split"]}
    assert "proof/copies" in kinds
    assert not any(kind.startswith(("proof/coin", "proof/quotients", "proof/words")) for kind in kinds)
    said = [record.getMessage() for record in caplog.records if record.name == "mpc_ray.audit"]
    assert any("cheating detected: party 1 and party 2 hold different copies" in line for line in said)
    for one in parties.executors:
        assert not one.runtime.correlation.seeds
        assert not one._models
    with pytest.raises(MpcError):
        parties.run(embedding_messages("all different"))


def test_unequal_copies_of_weights_are_refused_at_load() -> None:
    channels = list(local_channels(timeout=30.0))
    parties = Parties(together([lambda c=c: executor(c, digest=DIGEST) for c in channels]), channels)
    messages = query.load_messages(small_model()[1], "model", bytes(16))
    bent(messages, 2, "layer 0/up")
    with pytest.raises(CheatingDetected, match="the model's weights"):
        together(
            [lambda e=e, m=m: e.load(m) for e, m in zip(parties.executors, messages, strict=True)], parties
        )
    with pytest.raises(MpcError):
        parties.run(embedding_messages("all different"))


# -- what is answered, and what an abort leaves ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["output", "output copy", "check 0", "check 0 copy"])
@pytest.mark.parametrize("party", range(3))
def test_a_false_answer_is_seen_by_the_client(name: str, party: int) -> None:
    _, _, answers = honest()
    copied = [Message(dict(a.header), dict(a.tensors)) for a in answers]
    tensor = copied[party].tensors[name].copy()
    tensor.reshape(-1)[0] ^= 1
    copied[party].tensors[name] = tensor
    with pytest.raises(CheatingDetected, match="different copies of a piece") as caught:
        query.result(copied)
    assert party in caught.value.culprits
    assert len(caught.value.culprits) == 2


def test_a_party_cannot_talk_the_client_out_of_comparing() -> None:
    _, _, answers = honest()
    for party in range(3):
        copied = [Message(dict(a.header), dict(a.tensors)) for a in answers]
        del copied[party].header["copies"]
        with pytest.raises(MpcError, match="disagree on the answer's copies"):
            query.result(copied)


def test_a_job_runs_once_and_shows_no_rows() -> None:
    parties, _ = attacked()
    with pytest.raises(MpcError, match="runs a job once"):
        parties.executors[0].run(embedding_messages("all different", attempt=1)[0])
    message = embedding_messages("all different")[0]
    message.header["trace"] = True
    with pytest.raises(MpcError, match="shows nobody"):
        parties.executors[0].run(message)
