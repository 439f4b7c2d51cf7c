"""Messages between client and party, in one process and over TLS."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mpc_ray.channel import Hello, Link, Message, dial_party, local_link
from mpc_ray.channel.link import DTYPES
from mpc_ray.errors import BadFrame, ChannelError, InputError, PeerLost

LIMIT = 200 << 20
HELLO = Hello(bytes(16))


@pytest.fixture
def ends(parties: Any, kind: str) -> Iterator[tuple[Link, Link]]:
    """The client's end and party 1's."""
    if kind == "local":
        made = local_link(1, max_bytes=LIMIT)
    else:
        listener = parties.listener(1)
        client = parties.certificates["client"]
        made = tuple(
            parties.together(
                [
                    lambda: dial_party(1, listener.address, client, HELLO, max_bytes=LIMIT),
                    lambda: listener.accept_client(HELLO, max_bytes=LIMIT),
                ]
            )
        )
    yield made
    for end in made:
        end.close()


def same(a: Message, b: Message) -> bool:
    return (
        a.header == b.header
        and list(a.tensors) == list(b.tensors)
        and all(
            x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
            for x, y in zip(a.tensors.values(), b.tensors.values(), strict=True)
        )
    )


ARRAYS = hnp.arrays(
    dtype=st.sampled_from([np.dtype(name) for name in DTYPES]),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
HEADER = st.dictionaries(
    st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
)


@given(HEADER, st.dictionaries(st.text(), ARRAYS, max_size=4))
def test_round_trip_of_anything(header: dict[str, Any], tensors: dict[str, Any]) -> None:
    client, party = local_link(0)
    message = Message(header, tensors)
    client.send(message)
    assert same(party.receive(1.0), message)


def test_round_trip_both_ways(ends: tuple[Link, Link]) -> None:
    client, party = ends
    tensors = {"x": np.arange(12).reshape(3, 4).T, "e": np.zeros((0, 5))}
    request = Message({"do": "run", "n": [1, {"x": None}]}, tensors)
    client.send(request)
    got = party.receive(5.0)
    assert same(got, request)
    assert got.tensors["x"].flags.writeable
    party.send(Message({"done": True}))
    assert client.receive(5.0) == Message({"done": True})


def test_big_tensors(ends: tuple[Link, Link], parties: Any) -> None:
    client, party = ends
    big = np.arange(20_000_000, dtype=np.int64)
    flags = np.array([True, False])
    message = Message({"do": "load"}, {"a": big, "b": big[:1000].astype(np.float32), "c": flags})
    results = parties.together([lambda: client.send(message), lambda: party.receive(5.0)])
    assert results[0] is None
    assert same(results[1], message)


def test_both_ends_send_big_messages_at_once(ends: tuple[Link, Link], parties: Any) -> None:
    message = Message({}, {"a": np.zeros(4_000_000, np.int64)})
    client, party = ends
    results = parties.together(
        [
            lambda: client.send(message),
            lambda: party.send(message),
            lambda: client.receive(9),
            lambda: party.receive(9),
        ]
    )
    assert results[:2] == [None, None]
    assert all(same(result, message) for result in results[2:])


@pytest.mark.parametrize("dtype", ["complex128", "object", "U3", "M8[s]"])
def test_refused_dtype(ends: tuple[Link, Link], dtype: str) -> None:
    client, party = ends
    with pytest.raises(InputError, match="tensor 'x' has dtype"):
        client.send(Message({}, {"x": np.zeros(3, dtype)}))
    client.send(Message({"still": "open"}))  # nothing was sent
    assert party.receive(5.0).header == {"still": "open"}


def test_above_the_limit_is_refused_by_the_sender() -> None:
    client, _ = local_link(0, max_bytes=100)
    with pytest.raises(InputError, match="108 bytes is above the limit of 100"):
        client.send(Message({}, {"x": np.zeros(27, np.float32)}))


def raw(described: Any, *, nbytes: int, header: Any = None) -> bytes:
    """The beginning of a message that describes whatever the test wants."""
    text = json.dumps({"header": {} if header is None else header, "tensors": described}).encode()
    return struct.pack("<4sB3xI4xQ", b"MPCM", 1, len(text), nbytes) + text


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (raw([["x", "int64", [1 << 37]]], nbytes=1 << 40), "above the limit"),
        (struct.pack("<4sB3xI4xQ", b"MPCM", 1, 1 << 31, 0), "above the limit"),
        (raw([["x", "int64", [1 << 40]]], nbytes=8), "describes 8,796,093,022,208 bytes and announces 8"),
        (raw([["x", "object", [1]]], nbytes=8), "unknown dtype"),
        (raw([["x", "int64", [-1]]], nbytes=8), "malformed"),
        (raw([["x", "int64", [True]]], nbytes=8), "malformed"),
        (raw([["x", "int64", [1] * 9]], nbytes=8), "malformed"),
        (raw([["x", "int64", [1]], ["x", "int64", [1]]], nbytes=16), "malformed"),
        (raw([["x", ["int64"], [1]]], nbytes=8), "malformed"),
        (raw([["x", "int64", [1 << 47, 1 << 47, 0]]], nbytes=0), "malformed"),
        (raw([], nbytes=0, header=[]), "malformed"),
        (raw("xyz", nbytes=0), "malformed"),
        (raw([["x", "bool", [1]]], nbytes=1) + b"\x02", "bool"),
        (struct.pack("<4sB3xI4xQ", b"MPCM", 1, 3, 0) + b"{{{", "malformed"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not a message"),
    ],
)
def test_malformed_messages_are_refused(ends: tuple[Link, Link], data: bytes, word: str) -> None:
    client, party = ends
    client._outgoing.send([memoryview(data)], time.monotonic() + 5)
    with pytest.raises(BadFrame, match=word) as caught:
        party.receive(5.0)
    assert str(caught.value).startswith("client: ")
    with pytest.raises(PeerLost, match="party 1: closed"):
        client.receive(5.0)


def test_no_memory_is_taken_for_a_lie(ends: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch) -> None:
    client, party = ends
    monkeypatch.setattr(np, "empty", lambda *a, **k: pytest.fail("allocated"))
    lie = raw([["x", "int8", [LIMIT + 1]]], nbytes=LIMIT + 1)
    client._outgoing.send([memoryview(lie)], time.monotonic() + 5)
    with pytest.raises(BadFrame, match="above the limit"):
        party.receive(5.0)


def test_deadline(ends: tuple[Link, Link]) -> None:
    client, _ = ends
    start = time.monotonic()
    with pytest.raises(PeerLost, match=r"party 1: silent for 0.2 s"):
        client.receive(0.2)
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_an_end_that_closes_ends_the_wait(ends: tuple[Link, Link], timeout: float | None) -> None:
    client, party = ends
    threading.Timer(0.2, party.close).start()
    start = time.monotonic()
    with pytest.raises(PeerLost, match="party 1: closed its connection") as caught:
        client.receive(timeout)
    assert caught.value.peer == "party 1"
    assert time.monotonic() - start < 1
    with pytest.raises(ChannelError, match="closed"):
        client.send(Message({}))


def test_closing_ends_ones_own_wait(ends: tuple[Link, Link]) -> None:
    client, _ = ends
    threading.Timer(0.2, client.close).start()
    with pytest.raises(ChannelError, match="this link is closed"):
        client.receive(None)
    client.close()


def test_last_message_arrives_after_close(ends: tuple[Link, Link]) -> None:
    client, party = ends
    party.send(Message({"bye": 1}, {"x": np.zeros(50_000)}))
    party.close()
    assert client.receive(5.0).header == {"bye": 1}
