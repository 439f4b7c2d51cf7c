"""The streams: published vectors of what they are made of, names, holders, reuse."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.correlation.prf import PRIVATE, Correlation, MaskReused, derive, expand, keystream

KEY = bytes(range(32))
JOB = bytes(range(16))


def correlation(me: int = 0, **settings: Any) -> Correlation:
    seeds = {i: bytes([i]) * 32 for i in (me, (me + 1) % 3)}
    made = Correlation(me, seeds, bytes([9]) * 32, **settings)
    made.begin(JOB, 0)
    return made


# -- published vectors ---------------------------------------------------------------------------------------


def test_aes_128_ctr_is_nist_sp_800_38a_f_5_1() -> None:
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plain = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    cipher = bytes.fromhex(
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )
    stream = keystream(key, counter, 64).tobytes()
    assert bytes(a ^ b for a, b in zip(plain, stream, strict=True)) == cipher


def test_aes_blocks_are_step_chunk_counter() -> None:
    """From the zero key and block on: the H and E(K, Y0) of the GCM specification's test case 1."""
    stream = expand(bytes(32), 0, 0, 32).tobytes()
    assert stream.hex() == "66e94bd4ef8a2c3b884cfa59ca342b2e58e2fccefa7e3061367f1d57a4e7455a"
    ecb = Cipher(algorithms.AES(KEY[:16]), modes.ECB()).encryptor()
    blocks = b"".join(struct.pack(">IIQ", 7, 11, i) for i in range(5))
    assert expand(KEY, 7, 11, 80).tobytes() == ecb.update(blocks)


def test_chacha20_is_rfc_8439() -> None:
    nonce = bytes.fromhex("000000090000004a00000000")
    block = keystream(KEY, struct.pack("<I", 1) + nonce, 64, "chacha20").tobytes()
    assert block.hex() == (  # section 2.3.2
        "10f1e7e4d13b5915500fdd1fa32071c4c7d1f4c733c068030422aa9ac3d46c4e"
        "d2826446079faa0914c2d705d98b02a2b5129cd1de164eb9cbd083e8a2503c4e"
    )
    nonce = bytes.fromhex("000000000000004a00000000")
    text = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    stream = keystream(KEY, struct.pack("<I", 1) + nonce, len(text), "chacha20").tobytes()
    assert bytes(a ^ b for a, b in zip(text, stream, strict=True)).hex() == (  # section 2.4.2
        "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0b"
        "f91b65c5524733ab8f593dabcd62b3571639d624e65152ab8f530c359f0861d8"
        "07ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736"
        "5af90bbf74a35be6b40b8eedf2785e42874d"
    )


def test_chacha20_streams_begin_at_block_0() -> None:
    """RFC 8439, appendix A.1, vectors 1 and 2: key, nonce 0; blocks 0 and 1."""
    assert expand(bytes(32), 0, 0, 128, "chacha20").tobytes().hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )
    nonce = struct.pack("<I", 0) + struct.pack(">IQ", 5, 6)
    assert np.array_equal(expand(KEY, 5, 6, 100, "chacha20"), keystream(KEY, nonce, 100, "chacha20"))


def test_hkdf_is_rfc_5869() -> None:
    """Appendix A.3: SHA-256, no salt, no info."""
    assert derive(b"\x0b" * 22, b"", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_a_streams_bytes_are_fixed() -> None:
    """Our own vectors: key schedule, info and nonce. Another implementation must give the same."""
    assert correlation().bytes(0, "mask", 1, 2, 3, 16).tobytes().hex() == STREAM["aes128ctr"]
    assert correlation(prf="chacha20").bytes(0, "mask", 1, 2, 3, 16).tobytes().hex() == STREAM["chacha20"]
    key = derive(bytes(32), b"mpc-ray stream|" + JOB + b"|0|mask|1")
    assert expand(key, 2, 3, 16).tobytes().hex() == STREAM["aes128ctr"]


STREAM = {"aes128ctr": "4c0436075a0b8824c0960382d5a3b3fb", "chacha20": "33690908d3a8592c6c4780065f2268b2"}


# -- properties ----------------------------------------------------------------------------------------------


@given(
    length=st.one_of(st.integers(0, 100), st.integers((1 << 18) - 20, (1 << 18) + 20)),
    kind=st.sampled_from(["aes128ctr", "chacha20"]),
)
def test_a_longer_draw_begins_with_the_shorter(length: int, kind: Any) -> None:
    """So pieces of 2^18 bytes meet without a gap or an overlap."""
    assert np.array_equal(expand(KEY, 1, 2, length + 50, kind)[:length], expand(KEY, 1, 2, length, kind))


def test_an_unknown_prf_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown PRF 'rc4'"):
        expand(KEY, 0, 0, 1, "rc4")  # type: ignore[arg-type]


NAME = st.tuples(
    st.sampled_from([0, 1, PRIVATE]), st.sampled_from(["mask", "mask|1", "reshare"]), st.integers(0, 12),
    st.integers(0, 12), st.integers(0, 3),
)  # fmt: skip


@given(names=st.lists(NAME, min_size=2, max_size=12, unique=True))
def test_different_names_give_unrelated_streams(names: list[tuple[int, str, int, int, int]]) -> None:
    made = correlation()
    streams = [made.bytes(*name, 64).tobytes() for name in names]
    blocks = {s[i : i + 16] for s in streams for i in range(0, 64, 16)}
    assert len(blocks) == 4 * len(names)


def test_another_job_attempt_or_seed_gives_another_stream() -> None:
    seen = set()
    for job, attempt in [(JOB, 0), (JOB, 1), (JOB[::-1], 0), (JOB, 11)]:
        made = correlation(1)
        if (job, attempt) != (JOB, 0):
            made.begin(job, attempt)
        seen |= {made.bytes(seed, "mask", 1, 1, 0, 16).tobytes() for seed in (1, 2, PRIVATE)}
    assert len(seen) == 4 * 3


def test_both_holders_draw_the_same() -> None:
    seeds = [bytes([i]) * 32 for i in range(3)]
    for i in range(3):
        common, private = [], []
        for p in ((i - 1) % 3, i):
            party = Correlation(p, {j: seeds[j] for j in (p, (p + 1) % 3)}, bytes([p]) * 32)
            party.begin(JOB, 3)
            common.append(party.int64(i, "mask", 2, 1, 0, (4, 5)).numpy().tobytes())
            private.append(party.bytes(PRIVATE, "eta", 0, 1, 0, 9).tobytes())
        assert common[0] == common[1]
        assert private[0] != private[1]


def test_a_name_asked_for_twice_raises() -> None:
    made = correlation()
    made.bytes(0, "mask", 0, 1, 0, 8)
    with pytest.raises(MaskReused, match=r"\(0, 'mask', 0, 1, 0\) was drawn twice"):
        made.bytes(0, "mask", 0, 1, 0, 8)
    with pytest.raises(MaskReused):
        made.bytes(0, "mask", 0, 1, 0, 4)  # a shorter one is a part of it
    made.begin(JOB, 1)
    made.bytes(0, "mask", 0, 1, 0, 8)
    with pytest.raises(MaskReused, match="attempt 0 was started before"):
        made.begin(JOB, 0)


def test_nothing_is_drawn_outside_a_job() -> None:
    made = Correlation(0, {0: KEY, 1: KEY}, KEY)
    with pytest.raises(ValueError, match="before its job began"):
        made.bytes(0, "mask", 0, 1, 0, 8)


@pytest.mark.parametrize(("job", "attempt"), [(b"", 0), (JOB + b"|", 0), (JOB, -1)])
def test_a_job_has_16_bytes_and_an_attempt_from_0(job: bytes, attempt: int) -> None:
    """A job of any length could be read as another job, attempt and purpose in a key's info."""
    with pytest.raises(ValueError, match="16 bytes"):
        correlation().begin(job, attempt)


def test_a_party_holds_two_seeds() -> None:
    for held in ({0, 1, 2}, {0}, {0, 2}):
        with pytest.raises(ValueError, match="no others"):
            Correlation(0, dict.fromkeys(held, KEY), KEY)
    with pytest.raises(KeyError):
        correlation(0).bytes(2, "mask", 0, 1, 0, 8)


def test_the_trace_names_every_draw() -> None:
    made = correlation(trace=[])
    made.int64(1, "mask", 2, 3, 4, (5,))
    made.bytes(PRIVATE, "eta", 0, 1, 0, 7)
    assert made.trace == [(JOB, 0, 1, "mask", 2, 3, 4, 40), (JOB, 0, PRIVATE, "eta", 0, 1, 0, 7)]
    assert made.expanded == 47


def test_a_stream_again_is_the_same_in_its_own_attempt_alone() -> None:
    """``again`` repeats what was drawn, from any multiple of 64 bytes on; in another attempt it is another stream."""
    for prf in ("aes128ctr", "chacha20"):
        own = Correlation(0, {0: bytes(32), 1: bytes(range(32))}, bytes(32), prf)  # type: ignore[arg-type]
        own.begin(bytes(16), 0)
        with pytest.raises(ValueError, match="only after it was drawn"):
            own.again(0, "mask", 0, 1, 0, 16)
        drawn = own.bytes(0, "mask", 0, 1, 0, 1000)
        for _ in range(2):
            assert np.array_equal(own.again(0, "mask", 0, 1, 0, 1000), drawn)
            assert np.array_equal(own.again(0, "mask", 0, 1, 0, 100, 640), drawn[640:740])
        with pytest.raises(ValueError, match="multiple of 64"):
            own.again(0, "mask", 0, 1, 0, 100, 16)
        own.begin(bytes(16), 1)
        other = own.bytes(0, "mask", 0, 1, 0, 1000)
        assert np.array_equal(own.again(0, "mask", 0, 1, 0, 1000), other)
        assert not np.array_equal(other, drawn)


def test_a_wiped_correlation_draws_nothing() -> None:
    own = Correlation(0, {0: bytes(32), 1: bytes(range(32))}, bytes(32))
    own.begin(bytes(16), 0)
    own.bytes(0, "mask", 0, 1, 0, 16)
    own.wipe()
    assert not own.seeds
    with pytest.raises(KeyError):
        own.bytes(0, "mask", 0, 2, 0, 16)
    with pytest.raises(KeyError):
        own.again(0, "mask", 0, 1, 0, 16)
