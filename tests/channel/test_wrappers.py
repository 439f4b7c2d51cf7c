"""A channel made slow, cut off, or attacked."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mpc_ray.channel import Channel, CutOff, Delayed, Tampering
from mpc_ray.channel.wrappers import Reckoned
from mpc_ray.errors import BadFrame, PeerLost


def buffer(n: int) -> memoryview:
    return memoryview(bytearray(n))


def round_of(channel: Channel, step: int, n: int) -> None:
    peers = [p for p in range(3) if p != channel.me]
    for p in peers:
        channel.send(p, step, step, [memoryview(bytes([channel.me]) * n)])
    for p in peers:
        into = buffer(n)
        channel.receive(p, step, [into])
        assert bytes(into) == bytes([p]) * n
    channel.flush()


def test_delay_is_the_latency(parties: Any, kind: str) -> None:
    channels = [Delayed(channel, 0.05) for channel in parties.make(kind)]

    def run(channel: Delayed) -> float:
        start = time.monotonic()
        for step in range(4):
            round_of(channel, step, 100)
        took = time.monotonic() - start
        channel.close()
        return took

    for took in parties.together([lambda c=c: run(c) for c in channels]):
        assert 0.2 <= took < 0.6
    for channel in channels:
        counts = channel.meter.snapshot()
        assert counts["bytes_sent"] == 4 * 2 * 160
        assert counts["rounds"] == 3


def test_another_link_from_now_on(parties: Any, kind: str) -> None:
    channels = [Delayed(channel, 0.3) for channel in parties.make(kind)]

    def run(channel: Delayed) -> float:
        channel.change(0.0, None)
        start = time.monotonic()
        for step in range(4):
            round_of(channel, step, 100)
        took = time.monotonic() - start
        channel.close()
        return took

    assert max(parties.together([lambda c=c: run(c) for c in channels])) < 0.6


def test_delay_is_the_bandwidth(parties: Any, kind: str) -> None:
    """1 MB at 40 Mbit/s takes 0.2 s; frames of one pair follow one another, pairs do not share."""
    channels = [Delayed(channel, 0.0, 40e6) for channel in parties.make(kind)]

    def run(channel: Delayed) -> float:
        start = time.monotonic()
        round_of(channel, 0, 500_000)
        round_of(channel, 1, 500_000)
        took = time.monotonic() - start
        channel.close()
        return took

    for took in parties.together([lambda c=c: run(c) for c in channels]):
        assert 0.2 <= took < 0.6


def test_delayed_channel_fails_at_once(parties: Any, kind: str) -> None:
    a, b, _ = parties.make(kind)
    slow = Delayed(a, 30.0)
    slow.send(1, 0, 1, [buffer(10)])
    slow.fail(PeerLost("party 2", "gone"))
    start = time.monotonic()
    with pytest.raises(PeerLost, match="party 2"):
        b.receive(0, 0, [buffer(10)])
    with pytest.raises(PeerLost, match="party 2"):
        slow.flush()
    slow.close()
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(("when", "whole_steps"), [({"after_frames": 5}, 2), ({"at_step": 3}, 3)])
def test_cut_off(parties: Any, kind: str, when: dict[str, int], whole_steps: int) -> None:
    a, b, c = parties.make(kind)
    cut = CutOff(b, **when)
    done: dict[int, int] = {}

    def run(channel: Channel) -> None:
        for step in range(10):
            round_of(channel, step, 1000)
            done[channel.me] = step + 1

    start = time.monotonic()
    results = parties.together([lambda: run(a), lambda: run(cut), lambda: run(c)])
    assert time.monotonic() - start < 3
    for error in results:
        assert isinstance(error, PeerLost)
        assert error.peer == "party 1"
    assert done[1] == whole_steps


def test_tampering_changes_what_one_peer_gets(parties: Any, kind: str) -> None:
    a, b, c = parties.make(kind)
    seen = []

    def flip(step: int, peer: int, payload: bytes) -> bytes:
        seen.append((step, peer, payload))
        return bytes([payload[0] ^ 1]) + payload[1:] if (step, peer) == (1, 2) else payload

    bad = Tampering(a, flip)
    data = buffer(4)
    for step in range(2):
        for peer in (1, 2):
            bad.send(peer, step, 1, [data[:1], data[1:]])
    bad.flush()
    got = {}
    for channel in (b, c):
        for step in range(2):
            into = buffer(4)
            channel.receive(0, step, [into])
            got[channel.me, step] = bytes(into)
    assert got == {(1, 0): bytes(4), (1, 1): bytes(4), (2, 0): bytes(4), (2, 1): b"\x01\0\0\0"}
    assert seen == [(step, peer, bytes(4)) for step in range(2) for peer in (1, 2)]
    assert bytes(data) == bytes(4)


def test_tampering_with_the_length_is_a_bad_frame(parties: Any, kind: str) -> None:
    a, b, _ = parties.make(kind)
    Tampering(a, lambda step, peer, payload: payload + b"x").send(1, 0, 1, [buffer(4)])
    with pytest.raises(BadFrame, match="length 5 bytes, not 4"):
        b.receive(0, 0, [buffer(4)])


def test_a_reckoned_link_waits_for_nothing_and_says_what_it_would_have_been(parties: Any, kind: str) -> None:
    """Four rounds at 50 s one way, and 1 MB at 1 Mbit/s in both directions at once."""
    channels = [Reckoned(channel, 50.0) for channel in parties.make(kind)]

    def run(channel: Reckoned) -> tuple[float, float, float]:
        start = time.monotonic()
        channel.begin(bytes(16), 0)
        for step in range(4):
            round_of(channel, step, 100)
        far = channel.seconds
        channel.change(0.0, 1e6)
        channel.begin(bytes(16), 1)
        round_of(channel, 0, 1_000_000)
        narrow = channel.seconds
        took = time.monotonic() - start
        channel.close()
        return far, narrow, took

    for far, narrow, took in parties.together([lambda c=c: run(c) for c in channels]):
        assert 200.0 <= far < 201.0
        assert 8.0 <= narrow < 9.0
        assert took < 10.0
