"""The directory of a federation: who its parties and gateways are, signed by the federation's authority.

It is public. A gateway serves it at ``GET /v1/parties``, a client checks it before it seals anything, and each party
has its own copy: peers' addresses and names come from there and from nowhere else. The serial only grows; whoever has
seen one refuses an older one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mpc_ray.errors import CertificateError
from mpc_ray.trust import canonical, certs, files
from mpc_ray.trust.canonical import Malformed
from mpc_ray.trust.hpke import OVERLAP_S
from mpc_ray.trust.records import (
    MAX_BYTES,
    GatewayRecord,
    PartyRecord,
    Record,
    any_record,
    check_record,
    is_signed,
    load_certificate,
    sign,
    unbase64,
)

__all__ = ["Directory", "Entry", "GatewayRecord", "PartyRecord"]

FORMAT = "mpc-ray directory v1"
_SKEW_S = 300
_ASK = "fetch the federation's newest directory"


@dataclass(frozen=True)
class Entry:
    """A record with the signature of its owner, and the certificate (PEM) that the authority gave to that key."""

    record: Record
    certificate: str
    signature: bytes

    @cached_property
    def parsed(self) -> tuple[x509.Certificate, ec.EllipticCurvePublicKey]:
        """Certificate and key. ``CertificateError`` if they cannot be read."""
        return load_certificate(self.certificate, self.record.place)

    @property
    def not_after(self) -> int:
        """Unix seconds when the first of record and certificate ends."""
        return min(self.record.not_after, int(self.parsed[0].not_valid_after_utc.timestamp()))

    @property
    def pin(self) -> str:
        """SHA-256 of its public key (SubjectPublicKeyInfo), 64 hexadecimal digits: it changes with a rotation."""
        return key_pin(self.parsed[1])

    def check(self, federation: str, authority: x509.Certificate) -> None:
        """``CertificateError`` unless authority and owner both signed. Dates are not looked at."""
        certificate, public = self.parsed
        certs.check_issued(certificate, authority, self.record.name, self.record.uri(federation))
        check_record(self.record, self.signature, public)

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads."""
        return {
            "record": self.record.to_json(),
            "certificate": self.certificate,
            "signature": base64.b64encode(self.signature).decode(),
        }

    @staticmethod
    def from_json(value: Any) -> Entry:
        """``Malformed`` if it is of another form."""
        known = canonical.take(value, {"record": dict, "certificate": str, "signature": str})
        return Entry(
            any_record(known["record"]), known["certificate"], unbase64(known["signature"], "signature")
        )


@dataclass(frozen=True)
class Directory:
    """Times are Unix seconds. ``ca``: the authority's certificate (PEM). Call ``verify`` before anything else."""

    federation: str
    serial: int
    issued: int
    expires: int
    ca: str
    entries: tuple[Entry, ...]
    signature: bytes

    @staticmethod
    def signed(
        key: ec.EllipticCurvePrivateKey,
        *,
        federation: str,
        serial: int,
        issued: int,
        expires: int,
        ca: str,
        entries: Sequence[Entry],
    ) -> Directory:
        """A directory signed by the authority's key."""
        bare = Directory(federation, serial, issued, expires, ca, tuple(entries), b"")
        signature = sign(key, FORMAT, canonical.encode(bare._body()))
        return Directory(federation, serial, issued, expires, ca, bare.entries, signature)

    @staticmethod
    def load(path: Path) -> Directory:
        """Read a file. ``ConfigError`` if it is missing, ``CertificateError`` if it is no directory."""
        return Directory.from_json(files.read_public(path, MAX_BYTES))

    def save(self, path: Path) -> None:
        """Write it, readable by all. ``ConfigError`` if it cannot be written."""
        files.write_public(path, canonical.encode(self.to_json()) + b"\n")

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` reads, and what ``GET /v1/parties`` returns."""
        return self._body() | {"signature": base64.b64encode(self.signature).decode()}

    @staticmethod
    def from_json(value: Any) -> Directory:
        """From a dict, or JSON of at most 1 MiB. ``CertificateError`` if it is of another form."""
        try:
            if isinstance(value, bytes | str):
                value = canonical.parse(value, MAX_BYTES)
            known = canonical.take(value, _KINDS)
            if known["format"] != FORMAT:
                raise Malformed("is of another format")
            if len(known["parties"]) + len(known["gateways"]) > 1024:
                raise Malformed("has too many entries")
            canonical.matching(known["federation"], canonical.NAME, "federation")
            for field in ("serial", "issued", "expires"):
                canonical.within(known[field], 1, 1 << 53, field)
            parties, gateways = (tuple(map(Entry.from_json, known[k])) for k in ("parties", "gateways"))
            if not all(isinstance(entry.record, PartyRecord) for entry in parties) or not all(
                isinstance(entry.record, GatewayRecord) for entry in gateways
            ):
                raise Malformed("has a record in the wrong list")
            times = (known["serial"], known["issued"], known["expires"])
            signature = unbase64(known["signature"], "signature")
            return Directory(known["federation"], *times, known["ca"], parties + gateways, signature)
        except Malformed as error:
            raise CertificateError(f"the directory {error}", remedy=_ASK) from None

    def verify(
        self,
        ca_pem: bytes | str | None = None,
        fingerprint: str | None = None,
        now: float | None = None,
        *,
        least_serial: int = 0,
        pins: Mapping[str, str] | None = None,
    ) -> Directory:
        """This directory, once all signatures hold; about 1 ms a party.

        ``ca_pem`` and ``fingerprint`` say which authority is meant. With neither, any is taken: keep ``fingerprint`` of
        the first and give it ever after. ``least_serial``: the highest serial seen so far. ``pins``: fingerprints of
        parties (``pins_of``) that must be the same still. ``CertificateError`` says what does not hold.
        """
        now = time.time() if now is None else now
        authority, public = load_certificate(self.ca, "the federation's authority")
        theirs = certs.fingerprint(authority)
        if ca_pem is not None:
            pem = ca_pem.decode() if isinstance(ca_pem, bytes) else ca_pem
            _same(theirs, certs.fingerprint(load_certificate(pem, "the authority")[0]))
        if fingerprint is not None:
            _same(theirs, fingerprint.replace(":", "").lower())
        if not authority.not_valid_before_utc <= _time(now) <= authority.not_valid_after_utc:
            raise CertificateError(
                "the federation's authority has expired, or the clock is wrong", remedy=_ASK
            )
        if not is_signed(public, self.signature, FORMAT, canonical.encode(self._body())):
            raise CertificateError(
                "the directory is not signed by its authority: it was changed", remedy=_ASK
            )
        if self.issued > now + _SKEW_S:
            raise CertificateError("the directory was issued in the future", remedy="set the clock")
        if self.expires <= now:
            raise CertificateError(f"the directory expired on {_time(self.expires):%Y-%m-%d}", remedy=_ASK)
        if self.serial < least_serial:
            raise CertificateError(
                f"the directory has serial {self.serial}, but serial {least_serial} was seen before",
                remedy=_ASK,
            )
        places = [entry.record.place for entry in self.entries]
        if len(set(places)) != len(places):
            raise CertificateError("the directory has a place twice", remedy=_ASK)
        for entry in self.entries:
            entry.check(self.federation, authority)
        for place, pin in (pins or {}).items():
            if not hmac.compare_digest(self.entry(place).pin, pin):
                raise CertificateError(
                    f"party {place} has another key than the one pinned for it",
                    remedy="ask its operator whether keys were rotated; then pin the new fingerprint",
                )
        return self

    def sets(self) -> tuple[str, ...]:
        """Names of the sets that are whole, sorted."""
        count: dict[str, int] = {}
        for entry in self.entries:
            if isinstance(entry.record, PartyRecord):
                count[entry.record.set] = count.get(entry.record.set, 0) + 1
        return tuple(sorted(name for name, members in count.items() if members == 3))

    def listed(self, set: str) -> tuple[PartyRecord, PartyRecord, PartyRecord]:
        """The three records of a set, by index, whatever their dates and keys: where the parties are, not whether they
        may be used. ``CertificateError`` unless all are there.
        """
        a, b, c = (self.entry(f"{set}/{index}").record for index in range(3))
        return cast(tuple[PartyRecord, PartyRecord, PartyRecord], (a, b, c))

    def parties(self, set: str, now: float | None = None) -> tuple[PartyRecord, PartyRecord, PartyRecord]:
        """The three records of a set, by index. ``CertificateError`` unless all are there, in time, of three operators
        and with keys of their own.
        """
        a, b, c = self.party_entries(set, now)
        return cast(tuple[PartyRecord, PartyRecord, PartyRecord], (a.record, b.record, c.record))

    def party_entries(self, set: str, now: float | None = None) -> tuple[Entry, Entry, Entry]:
        """The same with certificates and signatures."""
        a, b, c = (self.entry(f"{set}/{index}") for index in range(3))
        for entry in (a, b, c):
            if entry.not_after <= (time.time() if now is None else now):
                raise CertificateError(
                    f"the certificate of party {entry.record.place} has expired",
                    remedy="its operator: mpc-ray certs rotate; then sign and install",
                )
        check_apart([a, b, c])
        return a, b, c

    def entry(self, place: str) -> Entry:
        """The entry of ``eu/0`` or ``gateway/NAME``. ``CertificateError`` if there is none."""
        for entry in self.entries:
            if entry.record.place == place:
                return entry
        raise CertificateError(
            f"the directory (serial {self.serial}) has no {place}",
            remedy=f"it has {', '.join(sorted(e.record.place for e in self.entries))}",
        )

    def recognise(self, certificate: x509.Certificate | bytes, now: float | None = None) -> Entry:
        """Whose certificate (or its DER) this is, once TLS has checked it against the authority.

        ``CertificateError`` if it is of no place in this directory, or was replaced more than ``OVERLAP_S`` ago. One
        newer than the directory's is accepted: its owner has rotated and this directory is a little behind.
        """
        if isinstance(certificate, bytes):
            certificate = x509.load_der_x509_certificate(certificate)
        uri, at = certs.uri_of(certificate), _time(time.time() if now is None else now)
        for entry in self.entries:
            if entry.record.uri(self.federation) == uri:
                listed = entry.parsed[0]
                older = certificate.not_valid_before_utc < listed.not_valid_before_utc
                if older and at > listed.not_valid_before_utc + timedelta(seconds=OVERLAP_S):
                    raise CertificateError(
                        f"{entry.record.place} shows a certificate that was replaced", remedy=_OLD_CERTIFICATE
                    )
                return entry
        raise CertificateError(
            f"a certificate of no place in the directory (serial {self.serial})", remedy=_OLD_CERTIFICATE
        )

    def pins_of(self, set: str) -> dict[str, str]:
        """Fingerprints of a set's keys, to give to a later ``verify``: they change when an operator rotates."""
        return {entry.record.place: entry.pin for entry in self.party_entries(set)}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's certificate, 64 hexadecimal digits: what to compare by another channel."""
        return certs.fingerprint(load_certificate(self.ca, "the federation's authority")[0])

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that stand for this directory."""
        return hashlib.sha256(canonical.bind(FORMAT, canonical.encode(self._body()))).digest()

    def _body(self) -> dict[str, Any]:
        lists: dict[str, list[Any]] = {"parties": [], "gateways": []}
        for entry in self.entries:
            kind = "parties" if isinstance(entry.record, PartyRecord) else "gateways"
            lists[kind].append(entry.to_json())
        return {
            "format": FORMAT,
            "federation": self.federation,
            "serial": self.serial,
            "issued": self.issued,
            "expires": self.expires,
            "ca": self.ca,
        } | lists


def key_pin(public: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key (SubjectPublicKeyInfo), 64 hexadecimal digits."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def check_apart(entries: Sequence[Entry]) -> None:
    """``CertificateError`` if two of a set's parties have an operator, a TLS key or an HPKE key in common: who holds
    two shares of three reads everything.
    """
    for i, one in enumerate(entries):
        for two in entries[i + 1 :]:
            assert isinstance(one.record, PartyRecord) and isinstance(two.record, PartyRecord)
            both = f"parties {one.record.place} and {two.record.place}"
            if one.record.operator == two.record.operator:
                raise CertificateError(f"{both} have one operator, {one.record.operator}", remedy=_THREE)
            keys = {key.id for key in one.record.hpke} & {key.id for key in two.record.hpke}
            if keys or one.pin == two.pin:
                raise CertificateError(f"{both} have a key in common", remedy=_THREE)


_OLD_CERTIFICATE = "have it install the federation's newest directory; or install it here"
_THREE = "a set needs three operators that do not share a machine, a key or a hand"


def _same(theirs: str, expected: str) -> None:
    if not hmac.compare_digest(theirs.encode(), expected.encode()):
        raise CertificateError(
            f"the directory is of another federation's authority ({theirs[:16]}…, expected {expected[:16]}…)",
            remedy="compare fingerprints with the federation by another channel",
        )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


_KINDS: dict[str, type] = {
    **dict.fromkeys(("format", "federation", "ca", "signature"), str),
    **dict.fromkeys(("serial", "issued", "expires"), int),
    **dict.fromkeys(("parties", "gateways"), list),
}
