"""Headers and HELLO: known bytes, round trips, every difference named."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.channel import frame, hello
from mpc_ray.channel.hello import Answer, Digests, Direction, Greeting, Hello, Kind
from mpc_ray.errors import BadFrame, HelloMismatch

NAME = st.binary(min_size=16, max_size=16)
HEADERS = st.builds(
    frame.Header,
    session=NAME,
    job=NAME,
    attempt=st.integers(0, 2**16 - 1),
    step=st.integers(0, 2**32 - 1),
    clock=st.integers(0, 2**64 - 1),
    length=st.integers(0, 2**64 - 1),
    flags=st.sampled_from([0, frame.FAULT]),
)
PLAIN = frame.Header(bytes(16), bytes(range(16)), 1, 2, 3, 4)


@given(HEADERS)
def test_header_round_trip(header: frame.Header) -> None:
    data = frame.pack(header)
    assert len(data) == frame.HEADER_BYTES == 60
    assert frame.unpack(data, "party 1") == header


def test_header_known_bytes() -> None:
    assert frame.pack(PLAIN).hex() == (
        "4d50434601000100" + "00" * 16 + "000102030405060708090a0b0c0d0e0f"
        "02000000" + "0300000000000000" + "0400000000000000"
    )


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("session", b"x" * 16, "session"),
        ("job", b"x" * 16, "job"),
        ("attempt", 9, "attempt 9, not 1"),
        ("step", 9, "step 9, not 2"),
        ("length", 9, "length 9 bytes, not 4 bytes"),
    ],
)
def test_each_difference_is_named(field: str, value: object, word: str) -> None:
    frame.compare(replace(PLAIN, clock=99), PLAIN, "party 1")
    with pytest.raises(BadFrame, match=word) as caught:
        frame.compare(replace(PLAIN, **{field: value}), PLAIN, "party 1")  # type: ignore[arg-type]
    assert "party 1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("at", "word"), [(0, "magic"), (4, "version"), (5, "flags")])
def test_not_a_frame(at: int, word: str) -> None:
    data = bytearray(frame.pack(PLAIN))
    data[at] ^= 0x80
    with pytest.raises(BadFrame, match=word):
        frame.unpack(data, "party 1")


@pytest.mark.parametrize("wrong", [{"attempt": 2**16}, {"step": -1}, {"session": b"short"}])
def test_header_that_does_not_fit(wrong: dict[str, object]) -> None:
    with pytest.raises(BadFrame):
        frame.pack(replace(PLAIN, **wrong))  # type: ignore[arg-type]


@given(
    st.sampled_from(Kind),
    st.integers(0, 255),
    st.sampled_from(Direction),
    st.sampled_from(Answer),
    NAME,
    NAME,
    st.lists(st.binary(min_size=32, max_size=32), min_size=5, max_size=5),
)
def test_hello_round_trip(
    kind: Kind, index: int, way: Direction, answer: Answer, token: bytes, session: bytes, digests: list[bytes]
) -> None:
    greeting = Greeting(Hello(session, Digests(*digests)), kind, index, way, token, answer)
    data = hello.pack(greeting)
    assert len(data) == hello.HELLO_BYTES
    assert hello.unpack(data, "party 1") == greeting


def test_hello_of_someone_else() -> None:
    plain = Greeting(Hello(bytes(16)), Kind.PARTY, 0, Direction.DIALLER_SENDS, bytes(16))
    for at, word in ((0, "HELLO"), (4, "format"), (5, "unknown")):
        wrong = bytearray(hello.pack(plain))
        wrong[at] = 99
        with pytest.raises(HelloMismatch, match=word):
            hello.unpack(wrong, "party 1")


@pytest.mark.parametrize("name", [field.name for field in fields(Digests)])
def test_each_digest_is_named(name: str) -> None:
    ours = Hello(bytes(16), Digests(**{name: b"a" * 32}))
    theirs = Hello(bytes(16), Digests(**{name: b"b" * 32}))
    hello.compare(ours, ours, "party 1")
    with pytest.raises(HelloMismatch) as caught:
        hello.compare(ours, theirs, "party 1")
    others = {field.name for field in fields(Digests)} - {name}
    assert f"differs in {name} (ours 616161616161, theirs 626262626262)" in caught.value.cause
    assert not any(f" {other} (" in caught.value.cause for other in others)
    assert caught.value.remedy


def test_unstated_is_a_difference_between_parties_only() -> None:
    ours, theirs = Hello(bytes(16), Digests(model=b"a" * 32)), Hello(bytes(16))
    hello.compare(ours, theirs, "client", with_client=True)
    with pytest.raises(HelloMismatch, match="unstated"):
        hello.compare(ours, theirs, "party 1")
    with pytest.raises(HelloMismatch, match="model"):
        hello.compare(ours, Hello(bytes(16), Digests(model=b"b" * 32)), "client", with_client=True)


def test_digest_separates_its_parts() -> None:
    assert hello.digest(b"ab", b"c") != hello.digest(b"a", b"bc")
    assert hello.digest(b"ab") == hashlib.sha256((2).to_bytes(8, "little") + b"ab").digest()
