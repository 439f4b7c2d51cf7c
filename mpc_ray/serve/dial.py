"""How a gateway reaches the three parties of a set: their addresses from the signed directory, mutual TLS, HELLO."""

from __future__ import annotations

from pathlib import Path

from mpc_ray.channel.link import Link
from mpc_ray.endpoint.dial import dial_endpoint
from mpc_ray.errors import ConfigError
from mpc_ray.serve.links import Dial, Front
from mpc_ray.trust.certs import Identity
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.folder import open_folder
from mpc_ray.trust.records import PartyRecord


def fronts(folder: Path, directory: Directory, set_name: str, *, submit_links: int = 4) -> list[Front]:
    """The fronts of ``set_name``'s parties, none dialled yet, with the gateway's identity in ``folder``.

    Raises ConfigError if the directory has no such whole set, or the folder lacks a file or can be read by others.
    """
    if set_name not in directory.sets():
        there = ", ".join(directory.sets()) or "none"
        raise ConfigError(f"the directory has no whole set {set_name}", remedy=f"it has {there}")
    identity = open_folder(folder).identity
    return [
        Front(record.index, dial_of(record, identity, directory.federation), submit_links=submit_links)
        for record in directory.parties(set_name)
    ]


def dial_of(record: PartyRecord, identity: Identity, federation: str) -> Dial:
    """What dials one party. Certificates are read again each time, so that rotated ones are used."""

    def dial(timeout: float) -> Link:
        return dial_endpoint(record, identity, federation=federation, timeout=timeout)

    return dial
