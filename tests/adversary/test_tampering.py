"""A party or a wire that changes messages: the result is a clear error or a wrong answer, never a hang or a crash.

Nothing more is promised: semi_honest_3pc does not detect it (TLS keeps outsiders out; a corrupt party is another
protocol's business). What must hold is that no byte from a peer reaches memory outside its buffer, decides a length
or ends a process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from encoders import Parties, embedding_messages, small_model, start

from mpc_ray.channel import local_channels
from mpc_ray.channel.wrappers import Tampering
from mpc_ray.errors import BadFrame, HelloMismatch, MpcError, RangeExceeded
from mpc_ray.models import query

TEXT = "all different"
SAMPLES = 8
Hook = Callable[[int, int, bytes], bytes]


def tampered(culprit: int, hook: Hook) -> tuple[Parties, list[bool]]:
    """Three loaded parties, of whom ``culprit`` sends what ``hook`` makes of its frames once ``active`` is set."""
    active = [False]
    channels = list(local_channels(timeout=10.0))
    wrapped = [
        Tampering(c, lambda step, peer, data: hook(step, peer, data) if active[0] else data)
        if i == culprit
        else c
        for i, c in enumerate(channels)
    ]
    parties = start(wrapped)
    parties.load(small_model()[1])
    return parties, active


def outcome(parties: Parties) -> str:
    """What becomes of one job: "same", "different", or the name of the error. Fails if anything hangs or crashes."""
    started = time.monotonic()
    try:
        vectors = query.result(parties.run(embedding_messages(TEXT)))
    except MpcError as error:
        return type(error).__name__
    finally:
        assert time.monotonic() - started < 9.0
    assert vectors.shape == (8, 32)
    return "same" if np.abs(vectors - clean()).max() < 1e-3 else "different"


_CLEAN: list[np.ndarray] = []


def clean() -> np.ndarray:
    if not _CLEAN:
        parties = start()
        parties.load(small_model()[1])
        _CLEAN.append(query.result(parties.run(embedding_messages(TEXT))))
    return _CLEAN[0]


@dataclass
class Flip:
    """Flips one bit of a byte, or all of a stretch, of every frame of one step."""

    at: int = 0
    where: float = 0.0
    wide: bool = False
    bit: int = 0
    hits: int = 0

    def __call__(self, step: int, peer: int, data: bytes) -> bytes:
        if step != self.at or not data:
            return data
        self.hits += 1
        changed = np.frombuffer(data, np.uint8).copy()
        first = int(self.where * len(changed))
        if self.wide:
            changed[first : first + 4096] ^= np.uint8(255)
        else:
            changed[first] ^= np.uint8(1 << self.bit)
        return changed.tobytes()


@pytest.mark.parametrize("culprit", range(3))
def test_flipped_bits_never_hang_or_crash(culprit: int) -> None:
    """Samples over all steps. Lengths stay right, so no party can notice: a wrong answer or the range check."""
    rng = np.random.default_rng(culprit)
    flip = Flip()
    parties, active = tampered(culprit, flip)
    seen: list[str] = []
    active[0] = True
    for sample in range(SAMPLES):
        flip.at, flip.where = int(rng.integers(1, 30)), float(rng.random())
        flip.wide, flip.bit, flip.hits = bool(sample % 2), int(rng.integers(0, 8)), 0
        result = outcome(parties)
        seen += [result] if flip.hits else []
    assert set(seen) <= {"same", "different", "RangeExceeded"}
    assert len(seen) > SAMPLES // 2
    assert set(seen) & {"different", "RangeExceeded"}
    active[0] = False
    assert outcome(parties) == "same"  # nothing of it stays


@pytest.mark.parametrize(
    "change",
    [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""],
    ids=["short", "long", "empty"],
)
@pytest.mark.parametrize("at", [1, 8, 20])
def test_a_frame_of_another_length_is_an_error_that_names_the_party(
    change: Callable[[bytes], bytes], at: int
) -> None:
    parties, active = tampered(1, lambda step, peer, data: change(data) if step == at else data)
    active[0] = True
    with pytest.raises(BadFrame, match=rf"party 1, step {at}: frame with length"):
        parties.run(embedding_messages(TEXT))


RECORD_BYTES = 64  # what the parties compare of a public record: its digest, and that of the exp tables


def test_another_public_record_is_refused() -> None:
    """A model whose record differs at one party is an error at load: never another function."""

    def hook(step: int, peer: int, data: bytes) -> bytes:
        return bytes([data[0] ^ 1]) + data[1:] if len(data) == RECORD_BYTES and active else data

    active: list[int] = []
    channels = list(local_channels(timeout=10.0))
    parties = start([Tampering(channels[0], hook), *channels[1:]])
    active.append(1)
    with pytest.raises(HelloMismatch, match="party 0 was given another public record"):
        parties.load(small_model()[1])


def test_a_random_answer_is_no_valid_one() -> None:
    """A party that answers the client with noise spoils the checks too: the client sees an error, not a vector."""
    parties = start()
    parties.load(small_model()[1])
    answers = parties.run(embedding_messages(TEXT))
    noise = np.random.default_rng(5)
    for name, value in answers[2].tensors.items():
        answers[2].tensors[name] = noise.integers(-(2**63), 2**63, value.shape, dtype=np.int64)
    with pytest.raises(RangeExceeded):
        query.result(answers)
