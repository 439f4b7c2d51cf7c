"""What holds for every channel, in one process and over TLS."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc_ray.channel import FramedChannel, byte_view
from mpc_ray.errors import BadFrame, ChannelError, PeerLost

JOB = b"a job's 16 bytes"


def buffer(n: int) -> memoryview:
    return memoryview(bytearray(n))


def peers(channel: FramedChannel) -> list[int]:
    return [p for p in range(3) if p != channel.me]


def exchange(channel: FramedChannel, step: int, n: int) -> None:
    """One lock-step round: send to both, receive from both, compare."""
    for p in peers(channel):
        data = np.full(n, 16 * channel.me + p + step, np.uint8)
        channel.send(p, step, step, [byte_view(data)])
    for p in peers(channel):
        into = np.empty(n, np.uint8)
        assert channel.receive(p, step, [byte_view(into)]) == step
        assert (into == 16 * p + channel.me + step).all()


def test_rounds_and_counts(parties: Any, kind: str) -> None:
    channels = parties.make(kind)
    sizes = [0, 1, 16_324, 16_325, 65_475, 65_477, 1_000_003]

    def run(channel: FramedChannel) -> None:
        channel.begin(JOB, 3)
        for step, n in enumerate(sizes):
            exchange(channel, step, n)
        channel.flush()

    results = parties.together([lambda c=c: run(c) for c in channels])
    assert results == [None] * 3
    for channel in channels:
        counts = channel.meter.snapshot()
        assert counts["bytes_sent"] == counts["bytes_received"] == 2 * (sum(sizes) + 60 * len(sizes))
        assert counts["frames_sent"] == 2 * len(sizes)
        assert counts["rounds"] == len(sizes) - 1
        assert counts["unattributed"] == 2 * sum(sizes)


def test_several_parts(parties: Any, kind: str) -> None:
    a, b, _ = parties.make(kind)
    parts = [np.arange(5, dtype=np.int64), np.zeros(0, np.int32), np.array(7, np.int16)]
    a.send(1, 0, 9, [byte_view(part) for part in parts])
    into = [np.empty_like(part) for part in parts]
    assert b.receive(0, 0, [byte_view(part) for part in into]) == 9
    assert all((x == y).all() for x, y in zip(parts, into, strict=True))


def test_64_mb_to_both_at_once_does_not_deadlock(parties: Any, kind: str) -> None:
    channels = parties.make(kind)
    n = 64 << 20
    out = np.zeros(n, np.uint8)
    out[::4097] = 1

    def run(channel: FramedChannel) -> None:
        for p in peers(channel):
            channel.send(p, 0, 1, [byte_view(out)])
        into = np.empty(n, np.uint8)
        for p in peers(channel):
            into[:] = 2
            channel.receive(p, 0, [byte_view(into)])
            assert (into == out).all()
        channel.flush()

    assert parties.together([lambda c=c: run(c) for c in channels], limit=60) == [None] * 3


@pytest.mark.parametrize(
    ("send", "word"),
    [
        (lambda c: c.send(0, 1, 1, [buffer(99)]), "length 99 bytes, not 100 bytes"),
        (lambda c: c.send(0, 2, 1, [buffer(100)]), "step 2, not 1"),
        (lambda c: (c.begin(JOB, 1), c.send(0, 1, 1, [buffer(100)])), "attempt 1, not 0"),
        (lambda c: (c.begin(b"x" * 16, 0), c.send(0, 1, 1, [buffer(100)])), "job 7878"),
        (lambda c: (setattr(c, "_session", b"s" * 16), c.send(0, 1, 1, [buffer(100)])), "session 7373"),
    ],
)
def test_wrong_frames_are_refused_before_their_payload(
    parties: Any, kind: str, send: Callable[[FramedChannel], object], word: str
) -> None:
    a, b, c = parties.make(kind)
    for channel in (a, b, c):
        channel.begin(JOB, 0)
    send(b)
    b.flush()
    into = buffer(100)
    into[:] = b"\xaa" * 100
    with pytest.raises(BadFrame, match=word) as caught:
        a.receive(1, 1, [into])
    assert "party 1" in str(caught.value)
    assert bytes(into) == b"\xaa" * 100, "the payload was read"
    with pytest.raises(BadFrame, match=word):  # the first error stays
        a.send(2, 1, 1, [buffer(1)])
    with pytest.raises(PeerLost, match=r"party 1: lost, before step \d+, as party 0 reports"):
        c.receive(0, 1, [buffer(1)])


def test_silent_peer_meets_the_deadline(parties: Any, kind: str) -> None:
    a, _, c = parties.make(kind, timeout=0.4)
    start = time.monotonic()
    with pytest.raises(PeerLost, match="party 1: silent") as caught:
        a.receive(1, 0, [buffer(10)])
    assert 0.3 < time.monotonic() - start < 2.0
    assert caught.value.peer == "party 1"
    with pytest.raises(PeerLost, match=r"party 1: lost, before step \d+, as party 0 reports"):
        c.receive(0, 0, [buffer(10)])


def test_peer_that_does_not_read_meets_the_deadline(parties: Any, kind: str) -> None:
    a, _, _ = parties.make(kind, timeout=0.5)
    frames = 200 if kind == "local" else 8
    size = 10 if kind == "local" else 4 << 20
    data = buffer(size)
    start = time.monotonic()

    def flood() -> None:
        for step in range(frames):
            a.send(1, step, 1, [data])
        a.flush()

    with pytest.raises(PeerLost, match="party 1: silent"):
        flood()
    assert time.monotonic() - start < 20


def test_failure_wakes_both_peers_and_names_the_cause(parties: Any, kind: str) -> None:
    a, b, c = parties.make(kind)

    def fails() -> None:
        time.sleep(0.2)
        b.fail(ValueError("a secret value"))

    start = time.monotonic()
    results = parties.together(
        [lambda: a.receive(1, 0, [buffer(10)]), fails, lambda: c.receive(1, 0, [buffer(10)])]
    )
    assert time.monotonic() - start < 2
    for error in (results[0], results[2]):
        assert isinstance(error, PeerLost)
        assert error.peer == "party 1"
    with pytest.raises(ChannelError, match="ValueError") as caught:
        b.receive(0, 0, [buffer(1)])
    assert "secret" not in str(caught.value)


def test_the_cause_is_passed_on(parties: Any, kind: str) -> None:
    """Party 0 waits for party 2, which waits for party 1, which dies: party 0 blames party 1."""
    a, b, c = parties.make(kind)
    results = parties.together(
        [
            lambda: a.receive(2, 0, [buffer(10)]),
            lambda: (time.sleep(0.2), b.close()),
            lambda: c.receive(1, 0, [buffer(10)]),
        ]
    )
    assert isinstance(results[2], PeerLost)
    assert results[2].peer == "party 1"
    assert isinstance(results[0], PeerLost)
    assert results[0].peer == "party 1"


def test_a_sender_learns_the_cause_too(parties: Any, kind: str) -> None:
    a, _, c = parties.make(kind)
    c.fail(PeerLost("party 1", "gone"))
    big = buffer(8 << 20)

    def sends() -> None:
        for step in range(20):
            a.send(2, step, 1, [big])
        a.flush()

    with pytest.raises(PeerLost, match=r"party 1: lost, before step \d+, as party 2 reports"):
        sends()


def test_close_delivers_what_was_sent(parties: Any, kind: str) -> None:
    a, b, _ = parties.make(kind)
    data = np.arange(300_000, dtype=np.int64)
    results = parties.together(
        [
            lambda: (a.send(1, 0, 1, [byte_view(data)]), a.close()),
            lambda: (time.sleep(0.2), receive_array(b, data.size)),
        ]
    )
    assert (results[1][1] == data).all()
    a.close()  # twice is allowed
    with pytest.raises(ChannelError, match="closed"):
        a.send(1, 1, 1, [buffer(1)])
    with pytest.raises(PeerLost, match="party 0: closed its connection"):
        b.receive(0, 1, [buffer(1)])


def receive_array(channel: FramedChannel, size: int) -> Any:
    into = np.empty(size, np.int64)
    channel.receive(0, 0, [byte_view(into)])
    return into


def test_begin_refuses_bad_names(parties: Any) -> None:
    a, _, _ = parties.make("local")
    with pytest.raises(ChannelError, match="16 bytes"):
        a.begin(b"short", 0)
    with pytest.raises(ChannelError, match="attempt"):
        a.begin(JOB, 1 << 16)


def test_byte_view_shares_memory() -> None:
    array = np.zeros((2, 3), np.int64)
    byte_view(array)[8] = 1
    assert array[0, 1] == 1
    with pytest.raises(ValueError, match="contiguous"):
        byte_view(array.T)
