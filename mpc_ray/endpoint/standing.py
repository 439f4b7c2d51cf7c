"""What a party goes by: its certificate, its keys, and the directory. Read anew whenever its folder changes.

A rotation replaces one file after the other. What does not load in the moment between two of them is tried again; until
it loads, what was read before stays, so a bad file never takes a running party down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mpc_ray.endpoint.said import coded
from mpc_ray.errors import CertificateError, ConfigError, MpcError
from mpc_ray.trust.certs import Identity
from mpc_ray.trust.dates import check_dates
from mpc_ray.trust.directory import Directory, GatewayRecord
from mpc_ray.trust.folder import open_folder
from mpc_ray.trust.hpke import PrivateKeys
from mpc_ray.trust.records import PartyRecord

log = logging.getLogger("mpc_ray.endpoint.standing")

FILES = ("tls.pem", "tls.key", "ca.pem", "directory.json", "hpke.keys", "record.json")


@dataclass(frozen=True)
class Standing:
    """One reading of a party's folder. ``not_after``: POSIX seconds when its certificate ends."""

    me: int
    set: str
    directory: Directory = field(repr=False)
    records: tuple[PartyRecord, PartyRecord, PartyRecord] = field(repr=False)
    identity: Identity = field(repr=False)
    keys: PrivateKeys = field(repr=False)
    not_after: float

    @property
    def federation(self) -> str:
        """Its name."""
        return self.directory.federation

    @property
    def uris(self) -> dict[str, str]:
        """What a peer's certificate must carry besides its name: parties of other sets have the same names."""
        return {record.name: record.uri(self.federation) for record in self.records}

    @property
    def gateways(self) -> frozenset[str]:
        """``gateway/NAME`` of all that the directory has."""
        entries = self.directory.entries
        return frozenset(e.record.place for e in entries if isinstance(e.record, GatewayRecord))

    def current(self, now: float | None = None) -> None:
        """Raise CertificateError once the directory has expired: whom it names may have been removed long ago."""
        if self.directory.expires <= (time.time() if now is None else now):
            raise coded(
                CertificateError(
                    f"party {self.set}/{self.me}: its directory expired at {_time(self.directory.expires)}",
                    remedy="install the newest directory: mpc-ray certs install; it is taken up without a restart",
                ),
                "directory_expired",
            )

    def gateway(self, certificate: bytes) -> str:
        """Which gateway (``gateway/NAME``) a certificate (DER) is of. ``CertificateError`` if of none."""
        entry = self.directory.recognise(certificate)
        if not isinstance(entry.record, GatewayRecord):
            raise CertificateError(
                f"{entry.record.place} dialled the port for gateways", remedy="use a gateway's folder there"
            )
        return entry.record.place


def read(folder: Path, now: float | None = None) -> Standing:
    """The folder as it is. ``ConfigError``, ``CertificateError``: what is missing, expired or not valid yet."""
    now = time.time() if now is None else now
    opened = open_folder(folder)
    record = opened.record
    if not isinstance(record, PartyRecord):
        raise ConfigError(f"{folder} is a gateway's folder", remedy="name the folder of a party")
    end = _end(folder, f"party {record.place}: its certificate", now)
    directory = opened.directory(now)
    return Standing(
        record.index,
        record.set,
        directory,
        directory.parties(record.set, now),
        opened.identity,
        opened.keys(),
        end,
    )


class Watch:
    """Keeps the newest ``Standing`` of a folder. ``changed`` is called with each new one, from ``look``'s thread."""

    def __init__(self, folder: Path, changed: Callable[[Standing], None]) -> None:
        self.folder = folder
        self._changed = changed
        self._lock = threading.Lock()
        self._stamps = self._look()
        self._failed: object = None
        self.now = read(folder)

    def look(self) -> None:
        """Read the folder again if it changed since the last time. Raises nothing."""
        with self._lock:
            stamps = self._look()
            if stamps == self._stamps:
                return
            try:
                found = read(self.folder)
                self._changed(found)
            except MpcError as error:
                if self._failed != stamps:
                    log.warning("the party's folder has changed, and cannot be used as it is: %s", error)
                self._failed = stamps
                return
            self._stamps, self.now = stamps, found
        log.info("took up the changed certificate, keys or directory")

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for name in FILES:
            try:
                stat = (self.folder / name).stat()
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
            except OSError:
                found.append((0, 0, 0))
        return tuple(found)


def _end(folder: Path, whose: str, now: float) -> float:
    """When the party's certificate ends, once it is valid."""
    path = folder / "tls.pem"
    if not path.exists():
        raise ConfigError(
            f"{folder} has no certificate yet",
            remedy="have request.json signed, then mpc-ray certs install directory.json --folder FOLDER",
        )
    return check_dates(path, whose, now=now)


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
