"""What ``mpc-ray doctor --party FILE`` looks at: this party's folder, its models, and its two peers."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

from mpc_ray.cli.checks import Check
from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.endpoint.dial import address_of
from mpc_ray.endpoint.ray_host import probe
from mpc_ray.endpoint.store import ModelStore
from mpc_ray.errors import MpcError
from mpc_ray.trust.folder import open_folder
from mpc_ray.trust.records import PartyRecord, load_certificate

REACH_S = 3.0
WARN_DAYS = 30
_DAY = 86400


def looked_at(path: Path) -> Iterator[Check]:
    """One check after the other; those that need an earlier one that failed are left out."""
    try:
        config = PartyConfig.load(path)
    except MpcError as error:
        yield Check("settings", "fail", error.cause, error.remedy)
        return
    yield Check("settings", "ok", str(path))
    try:
        folder = open_folder(config.folder)
        record = folder.record
        if not isinstance(record, PartyRecord):
            yield Check("folder", "fail", f"{config.folder} is a gateway's", "name a party's folder")
            return
        directory = folder.directory()
        peers = directory.parties(record.set)
        folder.keys()
        folder.clients()
    except MpcError as error:
        yield Check("folder", "fail", error.cause, error.remedy)
        return
    yield Check(
        "folder", "ok", f"party {record.place} of {directory.federation}, directory {directory.serial}"
    )
    yield _certificate(folder.identity.certificate)
    enrolled = [client for client in folder.clients().list() if not client.revoked]
    if enrolled:
        yield Check("clients", "ok", f"{len(enrolled)} signing keys are enrolled")
    else:
        yield Check(
            "clients", "warn", "no signing key is enrolled", "mpc-ray keys enroll PUBLIC --party FOLDER"
        )
    try:
        models = ModelStore(config.folder).list()
    except MpcError as error:
        yield Check("models", "fail", error.cause, error.remedy)
    else:
        named = ", ".join(f"{m.name} ({m.weights} weights, {m.bytes / 2**20:.0f} MiB)" for m in models)
        remedy = "" if models else "mpc-ray model import FILE --party FOLDER"
        yield Check("models", "ok" if models else "fail", named or "none in the store", remedy)
    for peer in peers:
        yield _reached(peer, peer.index == record.index)
    if config.host == "ray" and config.ray.address is not None:
        try:
            probe(config.ray.address, str(config.ray.token or ""))
        except MpcError as error:
            yield Check("Ray", "fail", error.cause, error.remedy)
        else:
            yield Check("Ray", "ok", f"{config.ray.address} demands a token and takes ours")


def _certificate(path: Path) -> Check:
    certificate, _ = load_certificate(path.read_text(), "this party's certificate")
    now = time.time()
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    renew = "mpc-ray certs rotate, then sign and install"
    if end.timestamp() <= now:
        return Check(
            "certificate", "fail", f"expired on {end:%Y-%m-%d %H:%M} UTC", f"{renew}; or set the clock"
        )
    if begin.timestamp() > now:
        return Check("certificate", "fail", f"is valid from {begin:%Y-%m-%d %H:%M} UTC only", "set the clock")
    days = (end.timestamp() - now) / _DAY
    if days < WARN_DAYS:
        return Check("certificate", "warn", f"expires in {days:.0f} days", renew)
    return Check("certificate", "ok", f"valid for {days:.0f} days")


def _reached(record: PartyRecord, own: bool) -> Check:
    """Whether somebody listens at a party's peer address. Who it is shows when a triple is opened."""
    name = f"party {record.index}"
    try:
        socket.create_connection(address_of(record.peer), REACH_S).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        what = (
            "start it: mpc-ray party --config FILE" if own else "ask its operator; check the firewall between"
        )
        return Check(name, "warn", f"{record.peer} is not reached: {reason}", what)
    except MpcError as error:
        return Check(name, "fail", error.cause, error.remedy)
    return Check(name, "ok", f"{record.operator} in {record.region} listens at {record.peer}")
