"""The folder of a party or a gateway (mode 0700): keys made there, and what the federation's authority sent back.

    request.json   what goes to the authority; nothing in it is secret
    record.json    what the party says of itself, as the installed directory has it
    tls.key        P-256 key of its certificate (0600)      tls.pem   the certificate
    hpke.keys      keys that open what is sealed to it (0600; parties only)
    clients.json   enrolled signing keys (parties only)
    ca.pem, directory.json
    tls.next.key   between ``rotate`` and ``install``

``install`` can be run again after a crash at any point: it goes by what the files say.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from mpc_ray.errors import CertificateError, ConfigError
from mpc_ray.trust import canonical, certs, files
from mpc_ray.trust.authority import MAX_DAYS, load_key, load_request
from mpc_ray.trust.certs import Identity
from mpc_ray.trust.clients import ClientKeys
from mpc_ray.trust.directory import Directory, Entry
from mpc_ray.trust.hpke import OVERLAP_S, PrivateKeys
from mpc_ray.trust.records import (
    MAX_BYTES,
    GatewayRecord,
    PartyRecord,
    Record,
    Request,
    any_record,
    load_certificate,
)

DAYS = 90
_DAY = 86400


@dataclass(frozen=True)
class Installed:
    """What ``install`` did. ``trusted_first_use``: the authority was not known before; compare its fingerprint."""

    place: str
    serial: int
    authority: str
    trusted_first_use: bool
    rotated: bool
    pending: bool


@dataclass(frozen=True)
class Folder:
    """The files of one party or gateway. ``open_folder`` checks modes first."""

    path: Path

    @property
    def record(self) -> Record:
        """What the party says of itself. ``ConfigError`` if the file is missing or damaged."""
        path = self.path / "record.json"
        try:
            return any_record(canonical.parse(files.read_public(path, MAX_BYTES), MAX_BYTES))
        except canonical.Malformed as error:
            raise ConfigError(f"{path} {error}", remedy="install the directory again") from None

    @property
    def identity(self) -> Identity:
        """The files for TLS. ``certs.server_context`` and ``client_context`` take them."""
        files.read_private(self.path / "tls.key")
        return Identity(self.record.name, self.path / "tls.pem", self.path / "tls.key", self.path / "ca.pem")

    def directory(self, now: float | None = None) -> Directory:
        """The installed directory, verified against the folder's authority."""
        for name in ("ca.pem", "directory.json"):
            if not (self.path / name).exists():
                raise ConfigError(
                    f"{self.path} has no {name} yet",
                    remedy="have request.json signed, then mpc-ray certs install directory.json --folder FOLDER",
                )
        directory = Directory.load(self.path / "directory.json")
        return directory.verify(files.read_public(self.path / "ca.pem"), now=now)

    def keys(self) -> PrivateKeys:
        """The HPKE keys. ``ConfigError`` if they are missing, damaged, or others may read them."""
        return PrivateKeys.load(self.path / "hpke.keys")

    def tls_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of its certificate."""
        return load_key(self.path / "tls.key")

    def clients(self) -> ClientKeys:
        """The enrolled signing keys. ``ConfigError`` if the file was changed by somebody else."""
        return ClientKeys(self.path / "clients.json", self._signer)

    def _signer(self) -> tuple[ec.EllipticCurvePrivateKey, list[ec.EllipticCurvePublicKey]]:
        previous = self.path / "tls.previous.pem"
        also = []
        if previous.exists():  # an install was cut short: the file may still be signed by the key before
            certificate, public = load_certificate(files.read_public(previous).decode(), "the key before")
            ca = load_certificate(files.read_public(self.path / "ca.pem").decode(), "the authority")[0]
            certs.check_issued(certificate, ca, self.record.name, certs.uri_of(certificate) or "")
            also = [public]
        return self.tls_key(), also


def open_folder(path: Path) -> Folder:
    """A folder made by ``request_party`` or ``request_gateway``. ``ConfigError`` if others may enter it."""
    files.check_folder(path)
    if not (path / "record.json").exists():
        raise ConfigError(
            f"{path} is not the folder of a party or gateway", remedy="make one with mpc-ray certs request"
        )
    return Folder(path)


def open_gateway(path: Path) -> Folder:
    """A folder made by ``request_gateway``, and no other. ``ConfigError`` as ``open_folder``, and for a party's."""
    folder = open_folder(path)
    if not isinstance(record := folder.record, GatewayRecord):
        raise ConfigError(
            f"{path} is the folder of party {record.place}",
            remedy="name the gateway's folder: mpc-ray certs request --gateway makes one",
        )
    return folder


def request_party(
    folder: Path,
    *,
    set: str,
    index: int,
    operator: str,
    region: str,
    jurisdiction: str,
    peer: str,
    gateway: str,
    days: int = DAYS,
    now: float | None = None,
) -> Request:
    """Make a party's keys in ``folder`` and its request.

    ``ConfigError`` if the folder is in use, or a value out of form.
    """

    def record(until: int) -> PartyRecord:
        fields = (set, index, operator, region, jurisdiction, peer, gateway)
        keys = PrivateKeys.generate()
        made = PartyRecord(*fields, keys.publics, until)
        keys.save(folder / "hpke.keys")
        return made

    return _request(folder, record, days, now)


def request_gateway(folder: Path, *, name: str, days: int = DAYS, now: float | None = None) -> Request:
    """Make a gateway's key in ``folder`` and its request. ``ConfigError`` as for a party."""
    return _request(folder, lambda until: GatewayRecord(name, until), days, now)


def rotate(folder: Path, *, days: int = DAYS, again: bool = False, now: float | None = None) -> Request:
    """New keys beside the present ones, and a new request. They take over at ``install``; nothing changes before.

    ``ConfigError`` if an earlier rotation was not installed yet, unless ``again`` drops its keys.
    """
    opened = open_folder(folder)
    with files.locked(folder):
        if (folder / "tls.next.key").exists() and not again:
            raise ConfigError(
                f"{folder} has a rotation under way",
                remedy="have request.json signed and install the directory; --again makes new keys instead",
            )
        record = replace(opened.record, not_after=_until(days, now))
        if isinstance(record, PartyRecord):
            keys = opened.keys().rotated()
            keys.save(folder / "hpke.keys")
            record = replace(record, hpke=keys.publics)
        key = certs.new_key()
        files.write_private(folder / "tls.next.key", certs.key_pem(key))
        return _write_request(folder, Request.make(record, key))


def install(
    folder: Path,
    directory: Directory,
    *,
    fingerprint: str | None = None,
    overlap_s: int = OVERLAP_S,
    now: float | None = None,
) -> Installed:
    """Take a directory in, and with it this party's certificate.

    ``CertificateError`` if it is of another authority than the one known here (or than ``fingerprint``), older than the
    installed one, another of the same serial, or if it says of this party what this party did not say.
    """
    opened = open_folder(folder)
    with files.locked(folder):
        known = folder / "ca.pem"
        first = not known.exists()
        directory.verify(None if first else files.read_public(known), fingerprint, now)
        if not first:
            _check_newer(Directory.load(folder / "directory.json"), directory)
        entry = directory.entry(opened.record.place)
        request = load_request(folder / "request.json")
        pending = folder / "tls.next.key"
        rotated = pending.exists() and _belongs(load_key(pending), entry)
        if not rotated and not _belongs(opened.tls_key(), entry):
            raise _lying(entry, "has a certificate for a key that is not in this folder")
        mine = request.record if request.check() == entry.parsed[1] else opened.record
        if entry.record != mine:
            raise _lying(entry, "is not described as its own record says")
        _take_over(opened, directory, entry, rotated)
        if isinstance(entry.record, PartyRecord):
            at = int(time.time() if now is None else now)
            opened.keys().settled(entry.record.hpke, at, overlap_s).save(folder / "hpke.keys")
        opened.clients().resign()
        (folder / "tls.previous.pem").unlink(missing_ok=True)
        return Installed(
            entry.record.place,
            directory.serial,
            directory.fingerprint,
            first and fingerprint is None,
            rotated,
            pending.exists(),
        )


def _take_over(opened: Folder, directory: Directory, entry: Entry, rotated: bool) -> None:
    path = opened.path
    if rotated:
        if (path / "tls.pem").exists():
            files.write_public(path / "tls.previous.pem", files.read_public(path / "tls.pem"))
        (path / "tls.next.key").rename(path / "tls.key")
    files.write_public(path / "tls.pem", entry.certificate.encode())
    files.write_public(path / "record.json", canonical.encode(entry.record.to_json()) + b"\n")
    directory.save(path / "directory.json")
    files.write_public(path / "ca.pem", directory.ca.encode())


def _check_newer(old: Directory, new: Directory) -> None:
    if new.serial < old.serial:
        raise CertificateError(
            f"the directory has serial {new.serial}, and serial {old.serial} is installed",
            remedy="ask the federation for the newest one",
        )
    if new.serial == old.serial and not hmac.compare_digest(new.digest, old.digest):
        raise CertificateError(
            f"this directory and the installed one differ, and both have serial {new.serial}",
            remedy="the authority signed two: keep both files and ask it why",
        )


def _belongs(key: ec.EllipticCurvePrivateKey, entry: Entry) -> bool:
    return key.public_key() == entry.parsed[1]


def _lying(entry: Entry, what: str) -> CertificateError:
    return CertificateError(
        f"{entry.record.place} {what}",
        remedy="send the present request.json to the authority and install its answer",
    )


def _request(folder: Path, record: Callable[[int], Record], days: int, now: float | None) -> Request:
    files.make_folder(folder)
    if (folder / "tls.key").exists() or (folder / "record.json").exists():
        raise ConfigError(
            f"{folder} holds keys already", remedy="name another folder, or use mpc-ray certs rotate"
        )
    try:
        made = record(_until(days, now))
    except canonical.Malformed as error:
        raise ConfigError(f"the request's {error}", remedy="see mpc-ray certs request --help") from None
    key = certs.new_key()
    files.write_private(folder / "tls.key", certs.key_pem(key))
    request = _write_request(folder, Request.make(made, key))
    files.write_public(folder / "record.json", canonical.encode(made.to_json()) + b"\n")
    return request


def _write_request(folder: Path, request: Request) -> Request:
    files.write_public(folder / "request.json", canonical.encode(request.to_json()) + b"\n")
    return request


def _until(days: int, now: float | None) -> int:
    if not 1 <= days <= MAX_DAYS:
        raise ConfigError(f"a certificate for {days} days", remedy=f"ask for 1 to {MAX_DAYS} days")
    return int(time.time() if now is None else now) + days * _DAY
