"""What a party and a gateway say about themselves, signed by the key of their own certificate.

The federation's authority states who somebody is; where they are, who runs them and which keys open what is sealed to
them they state themselves. An authority that changes a record breaks its signature.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mpc_ray.errors import CertificateError
from mpc_ray.trust import canonical, certs
from mpc_ray.trust.canonical import Malformed
from mpc_ray.trust.hpke import PublicKey, supported

MAX_BYTES = 1 << 20
REQUEST = "mpc-ray request v1"
PARTY = "mpc-ray party record v1"
GATEWAY = "mpc-ray gateway record v1"
_LAST = 253402300799  # the end of the year 9999: what a certificate can state


@dataclass(frozen=True)
class PartyRecord:
    """One party of a set. ``peer`` and ``gateway``: host:port where the other parties and gateways dial.

    ``hpke``: keys to seal to it, best first. ``not_after``: Unix seconds when certificate and record end.
    """

    set: str
    index: int
    operator: str
    region: str
    jurisdiction: str
    peer: str
    gateway: str
    hpke: tuple[PublicKey, ...]
    not_after: int

    purpose = PARTY

    def __post_init__(self) -> None:
        for field in ("set", "operator", "region"):
            canonical.matching(getattr(self, field), canonical.NAME, field)
        canonical.matching(self.jurisdiction, canonical.JURISDICTION, "jurisdiction")
        canonical.within(self.index, 0, 2, "index")
        canonical.within(self.not_after, 0, _LAST, "not_after")
        canonical.address(self.peer, "peer")
        canonical.address(self.gateway, "gateway")
        if not 1 <= len(self.hpke) <= 8 or len({key.id for key in self.hpke}) != len(self.hpke):
            raise Malformed("hpke is not 1 to 8 different keys")

    @property
    def name(self) -> str:
        """The name in its certificate, as TLS and HELLO compare it."""
        return f"party-{self.index}"

    @property
    def place(self) -> str:
        """``eu/0``: which set, which party of it."""
        return f"{self.set}/{self.index}"

    def uri(self, federation: str) -> str:
        """Its identity in its certificate."""
        return f"spiffe://{federation}/{self.set}/party/{self.index}"

    def key(self) -> PublicKey:
        """The best of its keys that this machine can seal to. ``CertificateError`` if there is none."""
        for key in self.hpke:
            if key.suite in supported():
                return key
        raise CertificateError(
            f"party {self.place} has no key of a suite that this machine supports",
            remedy="ask its operator for an x25519 key, or install a newer cryptography",
        )

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        own = {field: getattr(self, field) for field in _PARTY if field != "hpke"}
        return own | {"hpke": [key.to_json() for key in self.hpke]}

    @staticmethod
    def from_json(value: Any) -> PartyRecord:
        """``Malformed`` if a field is missing, unknown, of another type or out of form."""
        known = canonical.take(value, _PARTY)
        if len(known["hpke"]) > 8:
            raise Malformed("hpke has too many keys")
        return PartyRecord(**(known | {"hpke": tuple(map(PublicKey.from_json, known["hpke"]))}))


@dataclass(frozen=True)
class GatewayRecord:
    """A gateway that parties may answer: a name of its own, and when its certificate ends."""

    gateway: str
    not_after: int

    purpose = GATEWAY

    def __post_init__(self) -> None:
        canonical.matching(self.gateway, canonical.NAME, "gateway")
        canonical.within(self.not_after, 0, _LAST, "not_after")

    @property
    def name(self) -> str:
        """The name in its certificate: that of every gateway. The URI tells them apart."""
        return "gateway"

    @property
    def place(self) -> str:
        """``gateway/NAME``."""
        return f"gateway/{self.gateway}"

    def uri(self, federation: str) -> str:
        """Its identity in its certificate."""
        return f"spiffe://{federation}/gateway/{self.gateway}"

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {"gateway": self.gateway, "not_after": self.not_after}

    @staticmethod
    def from_json(value: Any) -> GatewayRecord:
        """``Malformed`` as for a party's."""
        return GatewayRecord(**canonical.take(value, {"gateway": str, "not_after": int}))


Record = PartyRecord | GatewayRecord


@dataclass(frozen=True)
class Request:
    """What a party or gateway sends to the authority: nothing in it is secret."""

    record: Record
    csr: str
    signature: bytes

    @staticmethod
    def make(record: Record, key: ec.EllipticCurvePrivateKey) -> Request:
        """The request of the owner of ``key``."""
        csr = certs.request_pem(key, record.name).decode()
        return Request(record, csr, sign(key, record.purpose, canonical.encode(record.to_json())))

    def check(self) -> ec.EllipticCurvePublicKey:
        """The key it is for. ``CertificateError`` unless that key signed both request and record."""
        public = certs.requested_key(self.csr.encode(), self.record.place)
        check_record(self.record, self.signature, public)
        return public

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {
            "format": REQUEST,
            "record": self.record.to_json(),
            "csr": self.csr,
            "signature": base64.b64encode(self.signature).decode(),
        }

    @staticmethod
    def from_json(value: Any) -> Request:
        """``Malformed`` if it is of another form. Signatures are checked by ``check``."""
        known = canonical.take(value, {"format": str, "record": dict, "csr": str, "signature": str})
        if known["format"] != REQUEST:
            raise Malformed("is no request of this release's format")
        return Request(any_record(known["record"]), known["csr"], unbase64(known["signature"], "signature"))


def any_record(value: Any) -> Record:
    """A party's or a gateway's record, by its fields. ``Malformed`` if it is neither."""
    if type(value) is dict and "index" not in value:
        return GatewayRecord.from_json(value)
    return PartyRecord.from_json(value)


def check_record(record: Record, signature: bytes, public: ec.EllipticCurvePublicKey) -> None:
    """``CertificateError`` unless the owner of ``public`` signed ``record``."""
    if not is_signed(public, signature, record.purpose, canonical.encode(record.to_json())):
        raise CertificateError(
            f"the record of {record.place} is not signed by its own key: it was changed",
            remedy="have its operator make it again, with mpc-ray certs request or rotate",
        )


def sign(key: ec.EllipticCurvePrivateKey, purpose: str, payload: bytes) -> bytes:
    """ECDSA with SHA-256 over ``payload`` under ``purpose``. It cannot be taken for a signature of TLS."""
    return key.sign(canonical.bind(purpose, payload), ec.ECDSA(hashes.SHA256()))


def is_signed(public: ec.EllipticCurvePublicKey, signature: bytes, purpose: str, payload: bytes) -> bool:
    """Whether ``sign`` with that key made ``signature``."""
    try:
        public.verify(signature, canonical.bind(purpose, payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def load_certificate(pem: str, of: str) -> tuple[x509.Certificate, ec.EllipticCurvePublicKey]:
    """A certificate and its P-256 key. ``CertificateError`` if it is none."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        public = certificate.public_key()
    except ValueError:
        certificate, public = None, None
    if certificate is None or not isinstance(public, ec.EllipticCurvePublicKey):
        raise CertificateError(f"the certificate of {of} cannot be read", remedy="ask for the directory anew")
    return certificate, public


def unbase64(value: str, field: str) -> bytes:
    """The bytes of strict base64 text. ``Malformed`` else."""
    try:
        data = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"{field} is not base64") from None
    if base64.b64encode(data).decode() != value:
        raise Malformed(f"{field} is not canonical base64")
    return data


_PARTY: dict[str, type] = {
    **dict.fromkeys(("set", "operator", "region", "jurisdiction", "peer", "gateway"), str),
    **dict.fromkeys(("index", "not_after"), int),
    "hpke": list,
}
