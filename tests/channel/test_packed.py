"""Messages as bytes: the same form as on a link, and every limit before memory is taken."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mpc_ray.channel import Message, local_link, pack, unpack
from mpc_ray.channel.packed import DTYPES, HEAD_BYTES, finite, unpack_from
from mpc_ray.errors import BadFrame, InputError

ARRAYS = hnp.arrays(
    dtype=st.sampled_from([np.dtype(name) for name in DTYPES]),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
HEADER = st.dictionaries(
    st.text(), st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)
)
MESSAGE = Message(
    {"v": 1, "deep": {"a": [1, None]}}, {"x": np.arange(6).reshape(2, 3), "b": np.ones(3, bool)}
)


def same(a: Message, b: Message) -> bool:
    return (
        a.header == b.header
        and list(a.tensors) == list(b.tensors)
        and all(
            x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
            for x, y in zip(a.tensors.values(), b.tensors.values(), strict=True)
        )
    )


def source(data: bytes) -> Any:
    rest = memoryview(data)

    def fill(into: memoryview) -> None:
        nonlocal rest
        if len(rest) < len(into):
            raise EOFError
        into[:], rest = rest[: len(into)], rest[len(into) :]

    return fill


@given(HEADER, st.dictionaries(st.text(), ARRAYS, max_size=4))
def test_round_trip_of_anything(header: dict[str, Any], tensors: dict[str, Any]) -> None:
    message = Message(header, tensors)
    data = pack(message)
    assert same(unpack(data, 1 << 20), message)
    assert same(unpack_from(source(data + b"more"), 1 << 20, "file"), message)


def test_the_bytes_are_those_of_a_link() -> None:
    client, party = local_link(0)
    client.send(MESSAGE)
    sent = memoryview(bytearray(len(pack(MESSAGE))))
    party._incoming.receive(sent, float("inf"))
    assert bytes(sent) == pack(MESSAGE)


def test_what_is_unpacked_is_a_copy() -> None:
    data = bytearray(pack(MESSAGE))
    got = unpack(data, 1 << 20)
    data[-1] ^= 1
    got.tensors["x"][:] = 0
    assert same(unpack(pack(MESSAGE), 1 << 20), MESSAGE)
    assert got.tensors["b"].all()


def raw(described: Any, *, nbytes: int, header: Any = None) -> bytes:
    text = json.dumps({"header": {} if header is None else header, "tensors": described}).encode()
    return struct.pack("<4sB3xI4xQ", b"MPCM", 1, len(text), nbytes) + text


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "0 bytes are no message"),
        (pack(MESSAGE)[:-1], "the message announces"),
        (pack(MESSAGE) + b"\x00", "the message announces"),
        (pack(MESSAGE)[: HEAD_BYTES - 1], "are no message"),
        (raw([["x", "int8", [1 << 21]]], nbytes=1 << 21), "above the limit"),
        (struct.pack("<4sB3xI4xQ", b"MPCM", 1, 1 << 31, 0), "above the limit"),
        (raw([["x", "int64", [1 << 40]]], nbytes=8) + bytes(8), "describes 8,796,093,022,208 bytes"),
        (raw([["x", "object", [1]]], nbytes=8) + bytes(8), "unknown dtype"),
        (raw([["x", "int64", [True]]], nbytes=8) + bytes(8), "malformed"),
        (raw([["x", "int64", [1]], ["x", "int64", [1]]], nbytes=16) + bytes(16), "malformed"),
        (raw([["x", "bool", [1]]], nbytes=1) + b"\x02", "bool"),
        (raw([], nbytes=0, header=[]), "malformed"),
        (struct.pack("<4sB3xI4xQ", b"MPCM", 2, 0, 0), "version 1"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "not a message"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if word != "bool":
        monkeypatch.setattr(np, "empty", lambda *a, **k: pytest.fail("memory was taken"))
    with pytest.raises(BadFrame, match=word) as caught:
        unpack(data, 1 << 20, "envelope 1")
    assert str(caught.value).startswith("envelope 1: ")


def test_every_cut_of_a_message_is_refused() -> None:
    data = pack(MESSAGE)
    for end in range(len(data)):
        with pytest.raises(BadFrame):
            unpack(data[:end], 1 << 20)
        with pytest.raises((BadFrame, EOFError)):
            unpack_from(source(data[:end]), 1 << 20, "file")


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (Message({}, {"x": np.zeros(27, np.float32)}), "108 bytes is above the limit of 100"),
        (Message({}, {"x": np.zeros(3, "complex64")}), "tensor 'x' has dtype complex64"),
        (Message({"x": "y" * (1 << 20)}), "header may have"),
        (Message({}, {str(i): np.zeros(0) for i in range(4097)}), "4,096 tensors"),
    ],
)
def test_what_cannot_be_packed_is_refused(message: Message, word: str) -> None:
    with pytest.raises(InputError, match=word):
        pack(message, 100)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf"), True, "1", None, [1]])
def test_what_is_no_number_counts_as_none(value: object) -> None:
    assert finite(value) == 0.0 and finite(value, -1.0) == -1.0
    assert finite(3) == 3.0 and finite(-0.5) == -0.5
