"""What a client allows for one job, signed, and the three envelopes that belong to it.

An authorisation says which model may run under which protocol, on what shapes, for what purpose, in which
jurisdictions, and until when. It holds no text, no share, and no subject. Its digest is bound into every envelope, and
it holds a hash of each envelope's content: whoever forwards them can neither move an envelope to another job or party
nor put another in its place. The hash hides the content, which begins with a random key of 32 bytes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mpc_ray.errors import AuthorisationError, ConfigError, SealError
from mpc_ray.trust import canonical, files
from mpc_ray.trust.canonical import Malformed
from mpc_ray.trust.hpke import PrivateKeys, PublicKey, open_sealed, seal
from mpc_ray.trust.secret import Secret

MAX_LIFETIME_MS = 60_000
MAX_BYTES = 8192
"""An authorisation as JSON is shorter; more is refused before it is read."""
PURPOSE = "mpc-ray authorisation v1"
ENVELOPE = "mpc-ray envelope v1"
OUTPUTS = ("embedding", "hidden")
_KEY_FILE = "mpc-ray signing key v1"
_TOO_LATE = 1 << 53  # the largest time in ms that every JSON reader keeps exactly


@dataclass(frozen=True)
class Authorisation:
    """One job's permission. All texts are names of ``canonical``'s patterns; times are Unix milliseconds.

    ``job``: 32 hexadecimal digits, drawn at random by the client. ``client``: id of the signing key. ``model_digest``:
    64 digits, of the model's public record. ``jurisdictions``: empty allows any. ``retention``: class of what may be
    kept afterwards (``job``: nothing). ``inputs``: SHA-256 of each party's envelope content, 64 digits each.
    Making one with values out of form raises ``AuthorisationError`` (code ``malformed`` or ``lifetime``).
    """

    job: str
    federation: str
    set: str
    client: str
    model: str
    model_digest: str
    protocol: str
    batch: int
    length: int
    output: str
    range_check: bool
    purpose: str
    jurisdictions: tuple[str, ...]
    retention: str
    issued_ms: int
    expires_ms: int
    inputs: tuple[str, str, str]

    def __post_init__(self) -> None:
        try:
            _check(self)
        except Malformed as error:
            raise AuthorisationError(
                f"the authorisation is malformed: {error}",
                remedy="make it with mpc_ray.client",
                code="malformed",
            ) from None
        if not 0 < self.expires_ms - self.issued_ms <= MAX_LIFETIME_MS:
            raise AuthorisationError(
                f"the authorisation is not valid for 1 to {MAX_LIFETIME_MS // 1000} seconds",
                remedy="sign one job at a time, just before it is sent",
                code="lifetime",
            )

    def to_json(self) -> dict[str, Any]:
        """Lists, texts, whole numbers and one boolean: what ``from_json`` reads."""
        return asdict(self) | {"jurisdictions": list(self.jurisdictions), "inputs": list(self.inputs)}

    @staticmethod
    def from_json(value: Any) -> Authorisation:
        """Read one of another's making: a dict, or JSON of at most ``MAX_BYTES``.

        ``AuthorisationError`` (``malformed``, ``lifetime``) if a field is missing, unknown or of another type.
        """
        try:
            if isinstance(value, bytes | str):
                value = canonical.parse(value, MAX_BYTES)
            known = canonical.take(value, _KINDS)
            if len(known["jurisdictions"]) > 64 or len(known["inputs"]) != 3:
                raise Malformed("has a list of the wrong length")
        except Malformed as error:
            raise AuthorisationError(
                f"the authorisation is malformed: {error}",
                remedy="make it with mpc_ray.client",
                code="malformed",
            ) from None
        lists = {"jurisdictions": tuple(known["jurisdictions"]), "inputs": tuple(known["inputs"])}
        return Authorisation(**(known | lists))

    def canonical(self) -> bytes:
        """Canonical JSON: the one byte string of this authorisation."""
        return canonical.encode(self.to_json())

    @cached_property
    def _bound(self) -> bytes:
        return canonical.bind(PURPOSE, self.canonical())

    def digest(self) -> bytes:
        """32 bytes that stand for it: SHA-256 of the canonical form under its own purpose."""
        return hashlib.sha256(self._bound).digest()


@dataclass(frozen=True)
class SigningKey:
    """A client's Ed25519 key. Parties know its public half under ``id``, 32 hexadecimal digits."""

    private: Secret

    @staticmethod
    def generate() -> SigningKey:
        """A fresh key."""
        return SigningKey(Secret(Ed25519PrivateKey.generate().private_bytes_raw()))

    @cached_property
    def _object(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private.reveal())

    @cached_property
    def public(self) -> bytes:
        """32 bytes to enrol with each operator."""
        return self._object.public_key().public_bytes_raw()

    @property
    def id(self) -> str:
        """Names the key in an authorisation."""
        return key_id(self.public)

    def sign(self, authorisation: Authorisation) -> bytes:
        """64 bytes. ``AuthorisationError`` (``wrong_key``) if it names another key than this."""
        if authorisation.client != self.id:
            raise AuthorisationError(
                "the authorisation names another signing key",
                remedy="set client to the key's id",
                code="wrong_key",
            )
        return self._object.sign(authorisation._bound)

    def save(self, path: Path) -> None:
        """Write it to a file that must not exist yet (mode 0600). ``ConfigError`` if it cannot be written."""
        if path.exists():
            raise ConfigError(f"{path} exists", remedy="name a new file: a key that is overwritten is lost")
        content = {"format": _KEY_FILE, "private": self.private.reveal().hex(), "public": self.public.hex()}
        files.write_private(path, canonical.encode(content) + b"\n")

    @staticmethod
    def load(path: Path) -> SigningKey:
        """What ``save`` wrote. ``ConfigError`` if it is missing, damaged, or others may read it."""
        data = files.read_private(path)
        try:
            content = canonical.take(
                canonical.parse(data, MAX_BYTES), {"format": str, "private": str, "public": str}
            )
            key = SigningKey(Secret(canonical.unhex(content["private"], 32, "private")))
            if content["format"] != _KEY_FILE or key.public.hex() != content["public"]:
                raise Malformed("is of another format, or its halves do not belong together")
        except Malformed as error:
            raise ConfigError(f"{path} {error}", remedy="make a key with mpc-ray keys signing") from None
        return key


def key_id(public: bytes) -> str:
    """32 hexadecimal digits that name an Ed25519 public key."""
    return hashlib.sha256(canonical.bind("mpc-ray signing key v1", public)).hexdigest()[:32]


def verify(authorisation: Authorisation, signature: bytes, public: bytes) -> None:
    """``AuthorisationError`` (``wrong_key``, ``bad_signature``) unless the owner of ``public`` signed exactly this.

    It does not look at the clock: that is the policy's.
    """
    if not hmac.compare_digest(key_id(public), authorisation.client):
        raise AuthorisationError(
            "the authorisation names another signing key", remedy="enrol the key it names", code="wrong_key"
        )
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, authorisation._bound)
    except (InvalidSignature, ValueError):
        raise AuthorisationError(
            "the authorisation is not signed by the key it names, or was changed on the way",
            remedy="send it as it was signed, with its own signature",
            code="bad_signature",
        ) from None


def input_digest(plaintext: bytes) -> str:
    """What ``inputs`` holds for an envelope's content."""
    return hashlib.sha256(plaintext).hexdigest()


def seal_envelopes(
    authorisation: Authorisation, plaintexts: Sequence[bytes], to: Sequence[PublicKey]
) -> tuple[bytes, bytes, bytes]:
    """The three envelopes of a job. ``SealError`` if the contents are not those that the authorisation hashes."""
    if len(plaintexts) != 3 or len(to) != 3:
        raise SealError("a job has three envelopes", remedy="give three contents and three keys")
    if tuple(map(input_digest, plaintexts)) != authorisation.inputs:
        raise SealError("the contents are not those that were authorised", remedy="sign after sharing")
    digest = authorisation.digest()
    a, b, c = (
        seal(plaintext, key, ENVELOPE, digest, bytes([index]))
        for index, (plaintext, key) in enumerate(zip(plaintexts, to, strict=True))
    )
    return a, b, c


def open_envelope(
    authorisation: Authorisation, index: int, envelope: bytes, keys: PrivateKeys, now: float | None = None
) -> bytes:
    """Party ``index``'s content. ``SealError`` if it belongs to another job or party, or is not what was authorised."""
    plaintext = open_sealed(envelope, keys, ENVELOPE, authorisation.digest(), bytes([index]), now=now)
    if not hmac.compare_digest(input_digest(plaintext), authorisation.inputs[index]):
        raise SealError(
            "the envelope's content is not the one that was authorised",
            remedy="send each envelope with its own authorisation",
        )
    return plaintext


def _check(a: Authorisation) -> None:
    canonical.unhex(a.job, 16, "job")
    canonical.unhex(a.client, 16, "client")
    canonical.unhex(a.model_digest, 32, "model_digest")
    canonical.matching(a.model, canonical.MODEL, "model")
    for field in ("federation", "set", "purpose", "retention"):
        canonical.matching(getattr(a, field), canonical.NAME, field)
    canonical.matching(a.protocol, canonical.MODEL, "protocol")
    canonical.within(a.batch, 1, 1 << 16, "batch")
    canonical.within(a.length, 1, 1 << 16, "length")
    canonical.within(a.issued_ms, 1, _TOO_LATE, "issued_ms")
    canonical.within(a.expires_ms, 1, _TOO_LATE, "expires_ms")
    if a.output not in OUTPUTS:
        raise Malformed(f"output is none of {', '.join(OUTPUTS)}")
    if type(a.range_check) is not bool:
        raise Malformed("range_check is not a bool")
    if type(a.jurisdictions) is not tuple or type(a.inputs) is not tuple or len(a.inputs) != 3:
        raise Malformed("has a list of the wrong length")
    for jurisdiction in a.jurisdictions:
        canonical.matching(jurisdiction, canonical.JURISDICTION, "jurisdictions")
    for digest in a.inputs:
        canonical.unhex(digest, 32, "inputs")


_KINDS: dict[str, type] = {
    **dict.fromkeys(("job", "federation", "set", "client", "model", "model_digest", "protocol"), str),
    **dict.fromkeys(("output", "purpose", "retention"), str),
    **dict.fromkeys(("batch", "length", "issued_ms", "expires_ms"), int),
    **dict.fromkeys(("jurisdictions", "inputs"), list),
    "range_check": bool,
}
