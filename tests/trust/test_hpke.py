"""Sealing: RFC 9180's own vector, round trips of both suites, and everything that must not open."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import ConfigError, SealError
from mpc_ray.trust import hpke
from mpc_ray.trust.canonical import Malformed
from mpc_ray.trust.hpke import CLASSIC, HYBRID, PrivateKeys, PublicKey, open_sealed, seal

KEYS = PrivateKeys.generate()
OTHERS = PrivateKeys.generate()
BY_SUITE = {key.suite: key for key in KEYS.publics}
SUITES = pytest.mark.parametrize("suite", [HYBRID, CLASSIC])
OVERHEAD = {HYBRID: 10 + 1120 + 16, CLASSIC: 10 + 32 + 16}

# RFC 9180, appendix A.2.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305, base mode, sequence number 0.
SK_R = "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"
PK_R = "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a"
ENC = "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"
INFO = "4f6465206f6e2061204772656369616e2055726e"
AAD = "436f756e742d30"
CT = "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
PT = b"Beauty is truth, truth beauty"


def test_the_suite_is_that_of_rfc_9180() -> None:
    """The vector has associated data, which the public interface lacks: its test entry takes it."""
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(SK_R))
    assert private.public_key().public_bytes_raw().hex() == PK_R
    suite = hpke._SUITES[CLASSIC].hpke
    opened = openssl.hpke._decrypt_with_aad(
        suite, bytes.fromhex(ENC + CT), private, bytes.fromhex(INFO), bytes.fromhex(AAD)
    )
    assert opened == PT


@SUITES
@settings(max_examples=20)
@given(plaintext=st.binary(max_size=300), bound=st.lists(st.binary(max_size=40), max_size=3))
def test_round_trip(suite: str, plaintext: bytes, bound: list[bytes]) -> None:
    sealed = seal(plaintext, BY_SUITE[suite], "test", *bound)
    assert len(sealed) == len(plaintext) + OVERHEAD[suite]
    assert sealed[2:10].hex() == BY_SUITE[suite].id
    assert open_sealed(sealed, KEYS, "test", *bound) == plaintext


@SUITES
def test_equal_texts_do_not_look_equal(suite: str) -> None:
    a, b = (seal(b"x" * 64, BY_SUITE[suite], "test") for _ in range(2))
    assert a[:10] == b[:10] and a[10:42] != b[10:42] and a[-80:] != b[-80:]


@SUITES
@pytest.mark.parametrize(
    ("purpose", "bound"),
    [
        ("other", (b"a", b"b")),
        ("test", (b"a", b"c")),
        ("test", (b"ab", b"")),
        ("test", (b"a",)),
        ("test", (b"b", b"a")),
    ],
)
def test_bound_to_purpose_and_parts(suite: str, purpose: str, bound: tuple[bytes, ...]) -> None:
    sealed = seal(b"canary", BY_SUITE[suite], "test", b"a", b"b")
    with pytest.raises(SealError) as caught:
        open_sealed(sealed, KEYS, purpose, *bound)
    assert "canary" not in str(caught.value)


@SUITES
def test_no_bit_may_change_and_no_byte_be_missing(suite: str) -> None:
    sealed = seal(b"secret", BY_SUITE[suite], "test")
    for position in {*range(10), 10, 41, 42, len(sealed) // 2, len(sealed) - 16, len(sealed) - 1}:
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(SealError):
            open_sealed(bytes(changed), KEYS, "test")
    for length in (0, 1, 2, 9, 10, 41, 42, len(sealed) - 1):
        with pytest.raises(SealError):
            open_sealed(sealed[:length], KEYS, "test")
    with pytest.raises(SealError):
        open_sealed(sealed + b"\0", KEYS, "test")


@SUITES
def test_another_party_cannot_open_even_under_our_key_id(suite: str) -> None:
    sealed = seal(b"secret", BY_SUITE[suite], "test")
    with pytest.raises(SealError, match="not one of ours"):
        open_sealed(sealed, OTHERS, "test")
    theirs = next(key for key in OTHERS.publics if key.suite == suite)
    with pytest.raises(SealError, match="do not open"):
        open_sealed(sealed[:2] + bytes.fromhex(theirs.id) + sealed[10:], OTHERS, "test")


def test_a_head_of_another_suite_does_not_open() -> None:
    sealed = seal(b"x" * 2000, BY_SUITE[CLASSIC], "test")
    with pytest.raises(SealError):
        open_sealed(sealed[:1] + b"\x02" + sealed[2:], KEYS, "test")


def test_a_point_of_low_order_is_refused() -> None:
    with pytest.raises(SealError, match="nothing can be sealed"):
        seal(b"x", PublicKey(CLASSIC, bytes(32)), "test")
    sealed = seal(b"x", BY_SUITE[CLASSIC], "test")
    with pytest.raises(SealError):
        open_sealed(sealed[:10] + bytes(32) + sealed[42:], KEYS, "test")


@SUITES
def test_public_keys_as_json(suite: str) -> None:
    value = BY_SUITE[suite].to_json()
    assert PublicKey.from_json(value) == BY_SUITE[suite]
    for change in (
        {"id": "0" * 16}, {"suite": "p256"}, {"public": value["public"][:-2]}, {"public": value["public"].upper()},
        {"public": "00" + value["public"][2:]}, {"extra": "x"}, {"public": 3},
    ):  # fmt: skip
        with pytest.raises(Malformed):
            PublicKey.from_json(value | change)


def test_keys_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "hpke.keys"
    KEYS.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = PrivateKeys.load(path)
    assert [key.public for key in loaded.keys] == [key.public for key in KEYS.keys]
    assert open_sealed(seal(b"x", KEYS.publics[0], "test"), loaded, "test") == b"x"
    for damage in (b"", b"{}", path.read_bytes()[:-10], path.read_bytes().replace(b"x25519", b"x25518")):
        path.write_bytes(damage)
        with pytest.raises(ConfigError) as caught:
            PrivateKeys.load(path)
        assert KEYS.keys[0].private.reveal().hex() not in str(caught.value)


def test_private_keys_do_not_print() -> None:
    shown = repr(KEYS) + str(KEYS.keys[0])
    for key in KEYS.keys:
        assert key.private.reveal().hex() not in shown and repr(key.private.reveal()) not in shown


def test_rotation_opens_old_and_new_then_only_new() -> None:
    first = PrivateKeys.generate([CLASSIC])
    old = first.publics
    first = first.settled(old, now=0)
    assert [key.state for key in first.keys] == ["current"]
    both = first.rotated()
    new = both.publics
    assert not set(old) & set(new)
    assert both.settled(old, now=5).publics == new, (
        "a directory that does not know the new keys yet changes nothing"
    )
    sealed = [seal(b"x", key, "test") for key in (*old, *new)]
    for each in sealed:
        assert open_sealed(each, both, "test", now=5) == b"x"
    after = both.settled(new, now=10, overlap_s=100)
    assert after.publics == new
    for each in sealed:
        assert open_sealed(each, after, "test", now=109) == b"x"
    with pytest.raises(SealError, match="not one of ours now"):
        open_sealed(sealed[0], after, "test", now=110)
    assert open_sealed(sealed[-1], after, "test", now=10**6) == b"x"
    again = after.settled(new, now=110)
    assert {key.public for key in again.keys} == set(new), "the old key is gone from disk too"
    assert after.settled(new, now=50).find(old[0].id, 109) is not None, "the overlap does not begin anew"


def test_without_ml_kem_the_classic_suite_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hpke, "supported", lambda: (CLASSIC,))
    assert [key.suite for key in PrivateKeys.generate().keys] == [CLASSIC]
