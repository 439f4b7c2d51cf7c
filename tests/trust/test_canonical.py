"""Canonical JSON and bound lists: one value, one byte string, and strangers' JSON is read strictly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.trust import canonical
from mpc_ray.trust.canonical import Malformed

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES)
def test_what_is_encoded_is_read_back(value: object) -> None:
    try:
        data = canonical.encode(value)
    except Malformed:
        return  # nested too deeply
    assert canonical.parse(data, 1 << 20) == value
    assert canonical.encode(canonical.parse(data, 1 << 20)) == data


def test_one_form() -> None:
    assert canonical.encode({"b": [1, True, None], "a": "é"}) == b'{"a":"\\u00e9","b":[1,true,null]}'


@pytest.mark.parametrize("value", [1.0, {"a": 0.5}, {1: 2}, {"a": (1,)}, b"x", float("nan"), {"a": {2, 3}}])
def test_what_json_would_bend_is_refused(value: object) -> None:
    with pytest.raises(Malformed):
        canonical.encode(value)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}', '{"x":{"a":1,"a":1}}', "1.0", "1e3", "NaN", "[Infinity]", "{", "", "[1,]", "\ufeff{}",
        "[" * 100_000, '{"a":' * 20 + "1" + "}" * 20, "9" * 5000, b"\xff\xfe", b'"\xff"',
    ],
)  # fmt: skip
def test_what_two_readers_could_read_differently_is_refused(text: str | bytes) -> None:
    with pytest.raises(Malformed):
        canonical.parse(text, 1 << 20)


def test_size_is_checked_before_anything_is_read() -> None:
    with pytest.raises(Malformed, match="more than 10 bytes"):
        canonical.parse(b"[" * 11, 10)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "not an object"),
        ({"a": 1}, "lacks b"),
        ({"a": 1, "b": "x", "c": 0}, "1 unknown"),
        ({"a": True, "b": "x"}, "a is not a int"),
        ({"a": 1, "b": None}, "b is not a str"),
    ],
)
def test_exactly_these_fields_of_exactly_these_types(value: object, said: str) -> None:
    with pytest.raises(Malformed, match=said):
        canonical.take(value, {"a": int, "b": str})


def test_an_error_never_repeats_what_was_sent() -> None:
    for attempt in (
        lambda: canonical.take({"a": "canary"}, {"a": int}),
        lambda: canonical.take({"a": 1, "canary": 1}, {"a": int}),
        lambda: canonical.matching("canary!", canonical.NAME, "name"),
        lambda: canonical.parse('{"canary":', 100),
        lambda: canonical.unhex("canary", 3, "key"),
    ):
        with pytest.raises(Malformed) as caught:
            attempt()
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize("good", ["a", "eu-west-1", "a.b_c", "0", "a" * 63])
def test_names(good: str) -> None:
    assert canonical.matching(good, canonical.NAME, "name") == good


@pytest.mark.parametrize("bad", ["", "A", "-a", "a-", "a/b", "a\n", "a" * 64, "é", "..", None, 3])
def test_what_is_no_name(bad: object) -> None:
    with pytest.raises(Malformed):
        canonical.matching(bad, canonical.NAME, "name")


@pytest.mark.parametrize("good", ["h:1", "10.0.0.1:50051", "a.example:65535", "[::1]:443"])
def test_addresses(good: str) -> None:
    assert canonical.address(good, "peer") == good


@pytest.mark.parametrize(
    "bad", ["h", "h:0", "h:65536", "h:01", ":1", "h:1/x", "u@h:1", "h:1\n", "[h]:1", "::1:1"]
)
def test_what_is_no_address(bad: str) -> None:
    with pytest.raises(Malformed):
        canonical.address(bad, "peer")


PARTS = st.lists(st.binary(max_size=12), max_size=5)


@given(PARTS, PARTS)
def test_two_lists_never_bind_to_the_same_bytes(a: list[bytes], b: list[bytes]) -> None:
    assert (canonical.bind("p", *a) == canonical.bind("p", *b)) == (a == b)
    joined = b"".join(a)
    assert canonical.bind("p", joined) != canonical.bind("q", joined)


def test_the_encoding_of_a_bound_list() -> None:
    """Fixed: signatures and sealings of other releases depend on it."""
    assert canonical.bind("ab", b"", b"c").hex() == "02000000000000006162" + "00" * 8 + "010000000000000063"


def test_json_agrees() -> None:
    value = {"z": [{"y": "\u2028", "x": -1}], "a": {}}
    assert json.loads(canonical.encode(value)) == value
