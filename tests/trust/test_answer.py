"""Sealed answers: for one job, one party, one reply key."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.errors import SealError
from mpc_ray.trust.answer import OVERHEAD, new_reply_key, open_answer, seal_answer
from mpc_ray.trust.secret import Secret

KEY, DIGEST = new_reply_key(), os.urandom(32)


@given(st.binary(max_size=500), st.integers(0, 2))
def test_round_trip(plaintext: bytes, index: int) -> None:
    sealed = seal_answer(plaintext, KEY, DIGEST, index)
    assert len(sealed) == len(plaintext) + OVERHEAD
    assert open_answer(sealed, KEY, DIGEST, index) == plaintext


def test_two_answers_under_one_key_have_nothing_in_common() -> None:
    a, b = (seal_answer(bytes(64), KEY, DIGEST, 0) for _ in range(2))
    assert a[:12] != b[:12] and a[12:] != b[12:]


@pytest.mark.parametrize(
    ("key", "digest", "index"),
    [(new_reply_key(), DIGEST, 0), (KEY, os.urandom(32), 0), (KEY, DIGEST, 1)],
    ids=["another key", "another job", "another party"],
)
def test_what_is_another_s(key: Secret, digest: bytes, index: int) -> None:
    sealed = seal_answer(b"canary", KEY, DIGEST, 0)
    with pytest.raises(SealError, match=f"party {index}") as caught:
        open_answer(sealed, key, digest, index)
    assert "canary" not in str(caught.value)


def test_no_bit_may_change_and_no_byte_be_missing() -> None:
    sealed = seal_answer(b"answer", KEY, DIGEST, 2)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 0x80
        with pytest.raises(SealError):
            open_answer(bytes(changed), KEY, DIGEST, 2)
        with pytest.raises(SealError):
            open_answer(sealed[:position], KEY, DIGEST, 2)


def test_sizes() -> None:
    for key, digest, index in ((Secret(bytes(16)), DIGEST, 0), (KEY, DIGEST[:31], 0), (KEY, DIGEST, 3)):
        with pytest.raises(SealError):
            seal_answer(b"", key, digest, index)
    assert len(new_reply_key()) == 32 and new_reply_key() != new_reply_key()
