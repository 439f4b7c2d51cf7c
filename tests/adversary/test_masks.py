"""No mask is used twice, both holders of a seed draw alike, and every byte that is sent has a pad of its own.

Checked on the streams that whole runs really draw: two loads, two jobs, and a second attempt of one of them.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
from encoders import Parties, embedding_messages, loaded, small_model, start
from recording import assert_every_byte_is_padded, recording

from mpc_ray.channel.frame import HEADER_BYTES
from mpc_ray.correlation import prf
from mpc_ray.correlation.prf import PRIVATE, MaskReused
from mpc_ray.models.export import Visibility
from mpc_ray.sharing import parcel

Key = tuple[bytes, int, int]  # AES key, step, chunk: what a counter block begins with
EMBEDDING = "one word, repeated"


@pytest.fixture(scope="module")
def story() -> Iterator[tuple[Parties, list[tuple[int, Key, int]]]]:
    """Two models with one job each, the second in two attempts; and every key, nonce and length expanded, by party."""
    expanded: list[tuple[int, Key, int]] = []
    draw, expand = prf.Correlation.bytes, prf.expand
    whose: dict[int, int] = {}

    def noted(self: prf.Correlation, *name: Any) -> np.ndarray:
        whose[threading.get_ident()] = self.me
        return draw(self, *name)

    def counted(key: bytes, step: int, chunk: int, length: int, kind: prf.Prf = "aes128ctr") -> np.ndarray:
        expanded.append((whose[threading.get_ident()], (key[:16], step, chunk), length))
        return expand(key, step, chunk, length, kind)

    parties = start()
    parties.trace()
    export = small_model()[1]
    job = secrets.token_bytes(16)
    with mock.patch.object(prf.Correlation, "bytes", noted), mock.patch.object(prf, "expand", counted):
        parties.load(export, "first")
        parties.load(export, "second")
        parties.run(embedding_messages(EMBEDDING, name="first"))
        parties.run(embedding_messages(EMBEDDING, job, 0, name="second"))
        parties.run(embedding_messages(EMBEDDING, job, 1, name="second"))
    yield parties, expanded
    for channel in parties.channels:
        channel.close()


def test_no_name_is_drawn_twice(story: tuple[Parties, Any]) -> None:
    for names in story[0].traces:
        assert len(names) > 500
        assert {(name[0], name[1]) for name in names} == {(name[0], name[1]) for name in story[0].traces[0]}
        assert len({(name[0], name[1]) for name in names}) == 3
        assert max(Counter(name[:-1] for name in names).values()) == 1


def test_both_holders_of_a_seed_draw_the_same_names_and_lengths(story: tuple[Parties, Any]) -> None:
    """An asymmetry would put the two out of step, or leave one of them with a mask nobody takes away."""
    traces = story[0].traces
    for seed in range(3):
        held = [
            Counter(name for name in traces[party] if name[2] == seed) for party in ((seed - 1) % 3, seed)
        ]
        assert held[0] == held[1]
        assert held[0].total() > 200
        assert not any(name[2] == seed for name in traces[(seed + 1) % 3])


def test_no_key_meets_a_counter_twice(story: tuple[Parties, Any]) -> None:
    """The same below the names: (AES key, nonce), as the cipher gets them, over all jobs, attempts and seeds."""
    expanded = story[1]
    by_party: dict[int, Counter[Key]] = defaultdict(Counter)
    for me, key, _ in expanded:
        by_party[me][key] += 1
    for counts in by_party.values():
        assert max(counts.values()) == 1
    holders = Counter(key for counts in by_party.values() for key in counts)
    private = sum(name[2] == PRIVATE for names in story[0].traces for name in names)
    assert Counter(holders.values()) == {2: (len(expanded) - private) // 2, 1: private}
    assert max(length for _, _, length in expanded) < 1 << 36  # a nonce leaves 2^64 blocks


def test_a_second_start_of_an_attempt_is_refused(story: tuple[Parties, Any]) -> None:
    correlation = story[0].executors[0].runtime.correlation
    job = secrets.token_bytes(16)
    correlation.begin(job, 0)
    with pytest.raises(MaskReused, match="attempt 0"):
        correlation.begin(job, 0)
    correlation.begin(job, 1)


def test_a_job_sent_again_is_refused_by_the_parties() -> None:
    parties = loaded()
    messages = embedding_messages(EMBEDDING)
    parties.run(messages)
    with pytest.raises(MaskReused):
        parties.run(messages)


def test_shares_of_every_message_come_from_keys_of_their_own() -> None:
    """Pieces 0 and 1 are expanded from two seeds that no other message has, and no two tensors share a key."""
    keys: list[bytes] = []
    fill = parcel.fill

    def counted(into: memoryview, key: bytes, block: bytes) -> None:
        keys.append(key[:16])
        fill(into, key, block)

    secret = {name: parcel.Secret(np.zeros(3, np.int64), 4) for name in "ab"}
    with mock.patch.object(parcel, "fill", counted):
        parcels = [parcel.deal(secret) for _ in range(3)]
    assert len(keys) == len(set(keys)) == 3 * 2 * 2
    seeds = [seed for three in parcels for seed in three[0].header["seeds"].values()]
    assert len(set(seeds)) == 6


@pytest.mark.parametrize("weights", ["secret", "public"])
def test_every_message_has_a_pad_that_its_receiver_lacks(weights: Visibility) -> None:
    """Byte for byte, and nothing else is sent: the recorded parts are all of every frame's payload."""
    parties = loaded(weights)
    with recording() as found:
        parties.run(embedding_messages(EMBEDDING))
    kinds = assert_every_byte_is_padded(found)
    assert kinds >= {
        "open",
        "multiply",
        "reshare",
        "count",
        "rotated one-hot",
        "theta",
        "point function",
        "beta",
    }
    sent = sum(c.meter.bytes_sent - HEADER_BYTES * c.meter.frames_sent for c in parties.channels)
    assert sum(part.data.size for part in found.sent) == sent
