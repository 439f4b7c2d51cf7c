"""Certificates as a session makes them, but all on one machine: for the tests of trust and channel."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from mpc_ray.trust.certs import LIFETIME, Identity, SessionAuthority, install, make_request

NAMES = ("party-0", "party-1", "party-2", "client")


def issue(authority: SessionAuthority, folder: Path, name: str, lifetime: timedelta = LIFETIME) -> Identity:
    """A key, a certificate and the authority's certificate for ``name``, in ``folder``."""
    request = make_request(folder, name)
    return install(folder, name, authority.sign(request, name, lifetime), authority.certificate)


def make_session_certificates(folder: Path, lifetime: timedelta = LIFETIME) -> dict[str, Identity]:
    """A throw-away authority and one key and certificate a name, in ``folder`` (0700), keys 0600."""
    authority = SessionAuthority()
    return {name: issue(authority, folder, name, lifetime) for name in NAMES}
