"""What the gateway publishes of its federation: the signed directory, as it is, and what it says of each set."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from mpc_ray.errors import CertificateError
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.folder import open_gateway

log = logging.getLogger("mpc_ray.serve")

Texts: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True)
class Place:
    """Where the three operators of a set are, in party order."""

    jurisdictions: Texts
    regions: Texts


@dataclass(frozen=True)
class Published:
    """``document`` is the directory in JSON exactly as its CA signed it; ``etag`` changes when it does."""

    federation: str
    document: bytes = field(repr=False)
    etag: str
    places: Mapping[str, Place]
    directory: Directory = field(repr=False)

    @staticmethod
    def of(directory: Directory) -> Published:
        """What to publish of a directory that was verified. Logs which sets cannot be used as it is."""
        document = json.dumps(directory.to_json(), separators=(",", ":")).encode()
        places = {}
        for name in directory.sets():
            a, b, c = directory.listed(name)
            places[name] = Place(
                (a.jurisdiction, b.jurisdiction, c.jurisdiction), (a.region, b.region, c.region)
            )
        etag = f'"{hashlib.sha256(document).hexdigest()[:32]}"'
        published = Published(directory.federation, document, etag, places, directory)
        for name in places:
            if why := published.why_not(name):
                log.warning("set %s cannot be used: %s", name, why)
        return published

    @staticmethod
    def load(folder: Path) -> Published:
        """Read and verify the directory installed in a gateway's folder. Raises ConfigError, CertificateError."""
        return Published.of(open_gateway(folder).directory())

    def why_not(self, set_name: str) -> str:
        """Why the directory does not let a set be used now, for people: an operator forgot to renew. "" if it does."""
        try:
            self.directory.parties(set_name)
        except CertificateError as error:
            return error.cause
        return ""
