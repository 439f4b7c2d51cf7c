"""A whole federation in a temporary folder: an authority, three parties of a set, a gateway, an enrolled client.

The fixture ``federation`` of tests/conftest.py makes one; ``make_federation`` makes others.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc_ray.trust.authorisation import Authorisation, SigningKey, input_digest, seal_envelopes
from mpc_ray.trust.authority import FederationAuthority
from mpc_ray.trust.directory import Directory, PartyRecord
from mpc_ray.trust.folder import Folder, install, open_folder, request_gateway, request_party

OPERATORS = ("alpha", "beta", "gamma")
JURISDICTIONS = ("IE", "DE", "FR")
REGIONS = ("eu-west-1", "eu-central-1", "eu-west-3")


@dataclass(frozen=True)
class Federation:
    """``parties[i]`` is the folder of party i; ``client`` is enrolled with all three, as ``app``."""

    root: Path
    set: str
    authority: FederationAuthority
    directory: Directory
    parties: tuple[Folder, Folder, Folder]
    gateway: Folder
    client: SigningKey

    @property
    def records(self) -> tuple[PartyRecord, PartyRecord, PartyRecord]:
        return self.directory.parties(self.set)

    def authorise(self, plaintexts: Sequence[bytes] = (), **changes: Any) -> Authorisation:
        """An authorisation of the enrolled client for these three contents (by default: random), valid from now."""
        contents = plaintexts or tuple(os.urandom(64) for _ in range(3))
        now = time.time_ns() // 1_000_000
        fields: dict[str, Any] = {
            "job": os.urandom(16).hex(),
            "federation": self.directory.federation,
            "set": self.set,
            "client": self.client.id,
            "model": "tiny",
            "model_digest": hashlib.sha256(b"tiny").hexdigest(),
            "protocol": "semi_honest_3pc",
            "batch": 2,
            "length": 16,
            "output": "embedding",
            "range_check": True,
            "purpose": "search",
            "jurisdictions": (),
            "retention": "job",
            "issued_ms": now,
            "expires_ms": now + 30_000,
            "inputs": tuple(map(input_digest, contents)),
        }
        return Authorisation(**(fields | changes))

    def seal(self, authorisation: Authorisation, plaintexts: Sequence[bytes]) -> tuple[bytes, bytes, bytes]:
        """The three envelopes, to the keys in the directory."""
        return seal_envelopes(authorisation, plaintexts, [record.key() for record in self.records])


def make_federation(
    root: Path,
    *,
    name: str = "test",
    set: str = "eu",
    peers: Sequence[str] = ("127.0.0.1:50051", "127.0.0.1:50061", "127.0.0.1:50071"),
    gateways: Sequence[str] = ("127.0.0.1:50052", "127.0.0.1:50062", "127.0.0.1:50072"),
    jurisdictions: Sequence[str] = JURISDICTIONS,
) -> Federation:
    """A federation in ``root``: ca/, alpha/, beta/, gamma/, gw/, app.key. ``peers``, ``gateways``: host:port each."""
    authority = FederationAuthority.init(root / "ca", name)
    requests = [
        request_party(
            root / OPERATORS[index],
            set=set,
            index=index,
            operator=OPERATORS[index],
            region=REGIONS[index],
            jurisdiction=jurisdictions[index],
            peer=peers[index],
            gateway=gateways[index],
        )
        for index in range(3)
    ]
    requests.append(request_gateway(root / "gw", name="gw"))
    directory = authority.sign(requests)
    for folder in (*OPERATORS, "gw"):
        install(root / folder, directory, fingerprint=authority.fingerprint)
    client = SigningKey.generate()
    client.save(root / "app.key")
    a, b, c = (open_folder(root / operator) for operator in OPERATORS)
    for party in (a, b, c):
        party.clients().enrol("app", client.public)
    return Federation(root, set, authority, directory, (a, b, c), open_folder(root / "gw"), client)
