"""The authority of a federation: it signs certificates and the directory. Its key stays in its folder (0700).

It can say who is who, so it could introduce a party of its own: whoever joins compares its fingerprint by another
channel, and operators look at each new directory. It can open nothing and cannot change what a party says of itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mpc_ray.errors import CertificateError, ConfigError, InputError
from mpc_ray.trust import canonical, certs, files
from mpc_ray.trust.canonical import Malformed
from mpc_ray.trust.directory import Directory, Entry, check_apart
from mpc_ray.trust.records import MAX_BYTES, PartyRecord, Request

AUTHORITY_DAYS = 3650
DIRECTORY_DAYS = 90
MAX_DAYS = 398
"""No certificate is signed for longer."""
DIRECTORY = "directory.json"
_KEY, _CERTIFICATE = "ca.key", "ca.pem"
_DAY = 86400


class FederationAuthority:
    """The authority in ``folder``: ``init`` makes one, ``load`` finds it again."""

    def __init__(
        self,
        folder: Path,
        federation: str,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
    ) -> None:
        self.folder, self.federation = folder, federation
        self._key, self.certificate = key, certificate

    @staticmethod
    def init(
        folder: Path, federation: str, *, days: int = AUTHORITY_DAYS, now: float | None = None
    ) -> FederationAuthority:
        """A new authority. ``ConfigError`` if the folder holds one already or others may enter it."""
        try:
            canonical.matching(federation, canonical.NAME, "name")
        except Malformed as error:
            raise InputError(
                f"the federation's {error}", remedy="lower-case letters, digits, dots and hyphens"
            ) from None
        files.make_folder(folder)
        if (folder / _KEY).exists():
            raise ConfigError(f"{folder} holds an authority already", remedy="name another folder")
        key, begin = certs.new_key(), _time(now)
        certificate = certs.make_authority(
            key, f"mpc-ray federation {federation}", begin, timedelta(days=days)
        )
        files.write_private(folder / _KEY, certs.key_pem(key))
        files.write_public(folder / _CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
        authority = FederationAuthority(folder, federation, key, certificate)
        authority._issue([], 1, DIRECTORY_DAYS, begin)
        return authority

    @staticmethod
    def load(folder: Path) -> FederationAuthority:
        """The authority in ``folder``. ``ConfigError`` if there is none or others may read its key."""
        files.check_folder(folder)
        key = load_key(folder / _KEY)
        directory = Directory.load(folder / DIRECTORY)
        pem = files.read_public(folder / _CERTIFICATE)
        directory.verify(pem, now=directory.issued)
        certificate = x509.load_pem_x509_certificate(pem)
        if certificate.public_key() != key.public_key():
            raise ConfigError(f"{folder}: key and certificate do not belong together", remedy="put both back")
        return FederationAuthority(folder, directory.federation, key, certificate)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate: what parties and clients compare by another channel."""
        return certs.fingerprint(self.certificate)

    def directory(self) -> Directory:
        """The one issued last."""
        return Directory.load(self.folder / DIRECTORY)

    def sign(
        self,
        requests: Sequence[Request],
        *,
        replace: bool = False,
        remove: Sequence[str] = (),
        days: int = DIRECTORY_DAYS,
        now: float | None = None,
    ) -> Directory:
        """A new directory, its serial one higher, with the requests' certificates; also written to the folder.

        A place that another operator has is given away only with ``replace``. ``remove`` takes places out
        (``eu/0``, ``gateway/NAME``). With no request it only begins anew to be valid for ``days``.
        ``CertificateError`` if a request is not signed by its own key, asks for too long, or a set's parties would
        not be apart.
        """
        begin = _time(now)
        with files.locked(self.folder):
            last = self.directory()
            entries = {entry.record.place: entry for entry in last.entries}
            for place in remove:
                last.entry(place)
                del entries[place]
            asked: set[str] = set()
            for request in requests:
                entry = self._certify(request, begin)
                place = entry.record.place
                if place in asked:
                    raise CertificateError(f"two requests are for {place}", remedy="sign one of them")
                asked.add(place)
                _check_taken(entries.get(place), entry, replace)
                entries[place] = entry
            members: dict[str, list[Entry]] = {}
            for entry in entries.values():
                if isinstance(entry.record, PartyRecord):
                    members.setdefault(entry.record.set, []).append(entry)
            for together in members.values():
                check_apart(together)
            return self._issue(list(entries.values()), last.serial + 1, days, begin)

    def _certify(self, request: Request, begin: datetime) -> Entry:
        public, record = request.check(), request.record
        until = datetime.fromtimestamp(record.not_after, UTC)
        if not begin < until <= begin + timedelta(days=MAX_DAYS):
            raise CertificateError(
                f"{record.place} asks for a certificate until {until:%Y-%m-%d}",
                remedy=f"ask for 1 to {MAX_DAYS} days; set the clocks",
            )
        certificate = certs.issue(
            self._key,
            self.certificate,
            public,
            record.name,
            until,
            now=begin,
            uri=record.uri(self.federation),
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        return Entry(record, pem, request.signature)

    def _issue(self, entries: list[Entry], serial: int, days: int, begin: datetime) -> Directory:
        issued = int(begin.timestamp())
        entries.sort(key=lambda entry: entry.record.place)
        directory = Directory.signed(
            self._key,
            federation=self.federation,
            serial=serial,
            issued=issued,
            expires=issued + days * _DAY,
            ca=self.certificate.public_bytes(serialization.Encoding.PEM).decode(),
            entries=sorted(entries, key=lambda entry: not isinstance(entry.record, PartyRecord)),
        )
        directory.verify(now=issued)
        directory.save(self.folder / DIRECTORY)
        return directory


def load_request(path: Path) -> Request:
    """A ``request.json``. ``ConfigError`` if it is missing, ``InputError`` if it is none."""
    data = files.read_public(path, MAX_BYTES)
    try:
        return Request.from_json(canonical.parse(data, MAX_BYTES))
    except Malformed as error:
        raise InputError(f"{path} {error}", remedy="have it made by mpc-ray certs request") from None


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A P-256 key file. ``ConfigError`` if it is missing, none, or others may read it."""
    data = files.read_private(path)
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ConfigError(f"{path} holds no P-256 key", remedy="put the key back that was made here")
    return key


def _check_taken(old: Entry | None, new: Entry, replace: bool) -> None:
    if old is None or replace or not isinstance(old.record, PartyRecord):
        return
    assert isinstance(new.record, PartyRecord)
    if old.record.operator != new.record.operator:
        raise CertificateError(
            f"{new.record.place} is {old.record.operator}'s, and {new.record.operator} asks for it",
            remedy="is the party index right? --replace gives the place away",
        )


def _time(now: float | None) -> datetime:
    return datetime.fromtimestamp(int(time.time() if now is None else now), UTC)
