"""Sealing bytes to a party: HPKE of RFC 9180, one message a sealing, with what it belongs to bound in.

    version 1 · suite 1 · key id 8 · enc · ciphertext and tag

Suite 1, ``x25519``: DHKEM(X25519, HKDF-SHA256). Suite 2, ``mlkem768-x25519``: the hybrid of ML-KEM-768 and X25519,
safe while either is, so that what is recorded today stays closed to a quantum computer. Both with HKDF-SHA256 and
ChaCha20-Poly1305. The head, a purpose and the bound parts go into HPKE's ``info``, each with its length: bytes sealed
for one purpose, job or party do not open as another's. HPKE's base mode says nothing about who sealed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from mpc_ray.errors import ConfigError, SealError
from mpc_ray.trust import canonical, files
from mpc_ray.trust.canonical import Malformed
from mpc_ray.trust.secret import Secret

HYBRID = "mlkem768-x25519"
CLASSIC = "x25519"
_VERSION = 1
_HEAD = 10
_X25519 = 32
_MLKEM_PUBLIC, _MLKEM_SEED, _MLKEM_ENC = 1184, 64, 1088
_TAG = 16
OVERLAP_S = 7 * 24 * 3600
"""How long keys that the directory no longer names still open what was sealed to them, unless told otherwise."""
FILE = "mpc-ray hpke keys v1"
_STATES = ("pending", "current", "retiring")


@dataclass(frozen=True)
class _Suite:
    code: int
    kem: Callable[[], Any]
    public_bytes: int
    private_bytes: int
    enc_bytes: int

    @property
    def hpke(self) -> hpke.Suite:
        return hpke.Suite(self.kem(), hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


_SUITES = {
    HYBRID: _Suite(
        2,
        lambda: hpke.KEM.MLKEM768_X25519,
        _MLKEM_PUBLIC + _X25519,
        _MLKEM_SEED + _X25519,
        _MLKEM_ENC + _X25519,
    ),
    CLASSIC: _Suite(1, lambda: hpke.KEM.X25519, _X25519, _X25519, _X25519),
}


@lru_cache(1)
def supported() -> tuple[str, ...]:
    """The suites that this machine's OpenSSL can do, best first."""
    try:
        mlkem.MLKEM768PrivateKey.generate()
    except UnsupportedAlgorithm:
        return (CLASSIC,)
    return (HYBRID, CLASSIC)


@dataclass(frozen=True)
class PublicKey:
    """A key to seal to. ``id``: 16 hexadecimal digits that follow from the rest."""

    suite: str
    public: bytes

    @cached_property
    def id(self) -> str:
        """Names the key in what is sealed to it."""
        bound = canonical.bind("mpc-ray hpke key v1", self.suite.encode(), self.public)
        return hashlib.sha256(bound).hexdigest()[:16]

    def to_json(self) -> dict[str, str]:
        """What ``from_json`` reads."""
        return {"id": self.id, "suite": self.suite, "public": self.public.hex()}

    @staticmethod
    def from_json(value: Any) -> PublicKey:
        """A key of another's making. ``Malformed`` if the suite is unknown, or length or id do not fit."""
        known = canonical.take(value, {"id": str, "suite": str, "public": str})
        if known["suite"] not in _SUITES:
            raise Malformed("suite is unknown")
        size = _SUITES[known["suite"]].public_bytes
        key = PublicKey(known["suite"], canonical.unhex(known["public"], size, "public"))
        if key.id != known["id"]:
            raise Malformed("id is not that of the key")
        return key

    def _object(self) -> Any:
        if self.suite == CLASSIC:
            return x25519.X25519PublicKey.from_public_bytes(self.public)
        return hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(self.public[:_MLKEM_PUBLIC]),
            x25519.X25519PublicKey.from_public_bytes(self.public[_MLKEM_PUBLIC:]),
        )


@dataclass(frozen=True)
class PrivateKey:
    """One key of a party. ``state``: pending (not yet in a directory), current, or retiring until ``retires`` (Unix
    seconds); all three open.
    """

    suite: str
    private: Secret
    state: str = "pending"
    retires: int | None = None

    @staticmethod
    def generate(suite: str) -> PrivateKey:
        """A fresh key."""
        x = x25519.X25519PrivateKey.generate().private_bytes_raw()
        if suite == CLASSIC:
            return PrivateKey(suite, Secret(x))
        return PrivateKey(suite, Secret(mlkem.MLKEM768PrivateKey.generate().private_bytes_raw() + x))

    @cached_property
    def public(self) -> PublicKey:
        """The key to give away."""
        value = self.private.reveal()
        x = x25519.X25519PrivateKey.from_private_bytes(value[-_X25519:]).public_key().public_bytes_raw()
        if self.suite == CLASSIC:
            return PublicKey(self.suite, x)
        lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(value[:_MLKEM_SEED]).public_key()
        return PublicKey(self.suite, lattice.public_bytes_raw() + x)

    @cached_property
    def _object(self) -> Any:
        value = self.private.reveal()
        x = x25519.X25519PrivateKey.from_private_bytes(value[-_X25519:])
        if self.suite == CLASSIC:
            return x
        return hpke.MLKEM768X25519PrivateKey(mlkem.MLKEM768PrivateKey.from_seed_bytes(value[:_MLKEM_SEED]), x)


@dataclass(frozen=True)
class PrivateKeys:
    """All keys that a party opens with, best and newest first."""

    keys: tuple[PrivateKey, ...]

    @staticmethod
    def generate(suites: Sequence[str] = ()) -> PrivateKeys:
        """Fresh pending keys, one a suite: all that this machine supports unless told otherwise."""
        return PrivateKeys(tuple(PrivateKey.generate(suite) for suite in suites or supported()))

    @property
    def publics(self) -> tuple[PublicKey, ...]:
        """What to put into the party's next record: the pending keys if there are any, else the current ones."""
        pending = tuple(key.public for key in self.keys if key.state == "pending")
        return pending or tuple(key.public for key in self.keys if key.state == "current")

    def rotated(self) -> PrivateKeys:
        """Fresh pending keys before these; pending ones from before are dropped."""
        kept = tuple(key for key in self.keys if key.state != "pending")
        return PrivateKeys(PrivateKeys.generate().keys + kept)

    def settled(self, published: Sequence[PublicKey], now: int, overlap_s: int = OVERLAP_S) -> PrivateKeys:
        """After a directory came in: keys that it names are current, earlier current ones retire after the overlap, and
        those whose time is over are gone.
        """
        ids = {key.id for key in published}
        kept: list[PrivateKey] = []
        for key in self.keys:
            if key.public.id in ids:
                kept.append(replace(key, state="current", retires=None))
            elif key.state == "current":
                kept.append(replace(key, state="retiring", retires=now + overlap_s))
            elif key.state == "pending" or (key.retires or 0) > now:
                kept.append(key)
        return PrivateKeys(tuple(kept))

    def find(self, key_id: str, now: float) -> PrivateKey | None:
        """The key of that id, unless its time is over."""
        for key in self.keys:
            if key.public.id == key_id and (key.retires is None or key.retires > now):
                return key
        return None

    def save(self, path: Path) -> None:
        """Write the keys (mode 0600)."""
        keys = [
            {
                "suite": k.suite,
                "private": k.private.reveal().hex(),
                "state": k.state,
                "retires": k.retires or 0,
            }
            for k in self.keys
        ]
        files.write_private(path, canonical.encode({"format": FILE, "keys": keys}) + b"\n")

    @staticmethod
    def load(path: Path) -> PrivateKeys:
        """What ``save`` wrote. ``ConfigError`` if it is missing, damaged, or others may read it."""
        data = files.read_private(path)
        try:
            content = canonical.take(canonical.parse(data, files.MAX_BYTES), {"format": str, "keys": list})
            if content["format"] != FILE or not content["keys"]:
                raise Malformed("is of another format")
            return PrivateKeys(tuple(_private(value) for value in content["keys"]))
        except Malformed as error:
            raise ConfigError(f"{path} {error}", remedy="put the party's own hpke.keys back") from None


def seal(plaintext: bytes, to: PublicKey, purpose: str, *bound: bytes) -> bytes:
    """``plaintext`` for the owner of ``to`` alone, bound to a purpose and to ``bound``.

    10 bytes of head, then 32 (x25519) or 1120 (hybrid), the plaintext's length, 16. ``SealError`` if the key is
    unusable.
    """
    suite = _SUITES[to.suite]
    head = bytes([_VERSION, suite.code]) + bytes.fromhex(to.id)
    try:
        return head + suite.hpke.encrypt(plaintext, to._object(), canonical.bind(purpose, head, *bound))
    except (ValueError, UnsupportedAlgorithm):
        raise SealError(
            f"nothing can be sealed to the {to.suite} key {to.id}", remedy="fetch the directory anew"
        ) from None


def open_sealed(
    sealed: bytes, keys: PrivateKeys, purpose: str, *bound: bytes, now: float | None = None
) -> bytes:
    """The plaintext of ``seal`` with the same purpose and bound parts. ``now``: Unix seconds, for retired keys.

    ``SealError`` if it was sealed to another key, for another purpose, job or party, or changed on the way.
    """
    sealed = bytes(sealed)
    suite = next((s for s in _SUITES.values() if sealed[:2] == bytes([_VERSION, s.code])), None)
    if suite is None or len(sealed) < _HEAD + suite.enc_bytes + _TAG:
        raise SealError(
            "sealed bytes are truncated or of an unknown form", remedy="use the same release everywhere"
        )
    head, key_id = sealed[:_HEAD], sealed[2:_HEAD].hex()
    key = keys.find(key_id, time.time() if now is None else now)
    if key is None or _SUITES[key.suite] is not suite:
        raise SealError(
            f"sealed to the key {key_id}, which is not one of ours now",
            remedy="fetch the directory anew: the party's keys were rotated, or it is another party's envelope",
        )
    try:
        return bytes(suite.hpke.decrypt(sealed[_HEAD:], key._object, canonical.bind(purpose, head, *bound)))
    except (InvalidTag, ValueError):
        raise SealError(
            "sealed bytes do not open: of another job, party or purpose, or changed on the way",
            remedy="send each envelope with its own authorisation to its own party",
        ) from None


def _private(value: Any) -> PrivateKey:
    known = canonical.take(value, {"suite": str, "private": str, "state": str, "retires": int})
    if known["suite"] not in _SUITES or known["state"] not in _STATES:
        raise Malformed("has a key of an unknown kind")
    size = _SUITES[known["suite"]].private_bytes
    raw = canonical.unhex(known["private"], size, "private")
    return PrivateKey(known["suite"], Secret(raw), known["state"], known["retires"] or None)
