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
from mpc_ray.trust.folder import open_folder

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

    @staticmethod
    def of(directory: Directory) -> Published:
        """What to publish of a directory that was verified."""
        document = json.dumps(directory.to_json(), separators=(",", ":")).encode()
        places = {}
        for name in directory.sets():
            try:
                a, b, c = directory.parties(name)
            except (
                CertificateError
            ) as error:  # one operator who forgot to renew must not end the others' service
                log.warning("set %s cannot be used: %s", name, error)
                continue
            places[name] = Place(
                (a.jurisdiction, b.jurisdiction, c.jurisdiction), (a.region, b.region, c.region)
            )
        etag = f'"{hashlib.sha256(document).hexdigest()[:32]}"'
        return Published(directory.federation, document, etag, places)

    @staticmethod
    def load(folder: Path) -> Published:
        """Read and verify the directory installed in a gateway's folder. Raises ConfigError, CertificateError."""
        return Published.of(open_folder(folder).directory())
