"""The party's papers: identity, keys, directory and enrolled clients, taken up again whenever the folder changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509

from mpc_ray.endpoint.jobs import Standing
from mpc_ray.errors import CertificateError, ConfigError, MpcError
from mpc_ray.telemetry import metrics
from mpc_ray.trust.certs import Identity, server_context
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.folder import Folder, open_folder
from mpc_ray.trust.records import GatewayRecord, PartyRecord

log = logging.getLogger("mpc_ray.endpoint.folder")

LOOK_S = 2.0
WATCHED = ("directory.json", "hpke.keys", "tls.pem", "tls.key")


class Papers:
    """What stands in a party's folder. Raises ConfigError or CertificateError for what is missing, expired or wrong.

    ``renewed`` is called with the identity when certificates changed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder: Folder = open_folder(folder)
        record = self._folder.record
        if not isinstance(record, PartyRecord):
            raise ConfigError(f"{folder} is a gateway's folder", remedy="name the folder of a party")
        self.record = record
        self.clients = self._folder.clients()
        self.renewed: Callable[[Identity], None] = lambda identity: None
        self._stamp = self._look()
        self._take()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="watch the folder", daemon=True).start()

    @property
    def identity(self) -> Identity:
        """For TLS: the present files."""
        return self._folder.identity

    def gateways(self) -> dict[str, str]:
        """URI → name of every gateway in the directory."""
        entries = [e.record for e in self.directory.entries if isinstance(e.record, GatewayRecord)]
        return {record.uri(self.directory.federation): record.gateway for record in entries}

    def close(self) -> None:
        self._over.set()

    def _take(self) -> None:
        directory: Directory = self._folder.directory()
        records = directory.parties(self.record.set)
        identity = self._folder.identity
        certificate = x509.load_pem_x509_certificate(identity.certificate.read_bytes())
        self.not_after = certificate.not_valid_after_utc.timestamp()
        _in_time(certificate)
        server_context(identity)  # key and certificate belong together
        keys = self._folder.keys()
        self.directory, self.standing = directory, Standing(directory.federation, records, keys)
        metrics.certificate(self.record.place, self.not_after)

    def _look(self) -> tuple[tuple[int, int], ...]:
        found = []
        for name in WATCHED:
            try:
                stat = (self._folder.path / name).stat()
                found.append((stat.st_mtime_ns, stat.st_ino))
            except FileNotFoundError:
                found.append((0, 0))
        return tuple(found)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_S):
            stamp = self._look()
            if stamp == self._stamp:
                continue
            try:
                self._take()
                self.renewed(self.identity)
            except (MpcError, OSError, ValueError) as error:  # between two renames: the old ones stay in use
                log.warning("new files in the party's folder are not taken up yet: %s", error)
                continue
            self._stamp = stamp
            log.info("directory %d is in use", self.directory.serial)


def _in_time(certificate: x509.Certificate) -> None:
    now = time.time()
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if end.timestamp() <= now:
        raise CertificateError(
            f"this party's certificate expired on {end:%Y-%m-%d %H:%M} UTC",
            remedy="mpc-ray certs rotate, then sign and install; or set the clock",
        )
    if begin.timestamp() > now:
        raise CertificateError(
            f"this party's certificate is valid from {begin:%Y-%m-%d %H:%M} UTC only", remedy="set the clock"
        )
