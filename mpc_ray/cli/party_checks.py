"""What ``mpc-ray doctor --party FILE`` looks at: this party's folder, its models, and its two peers."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mpc_ray.channel import Message
from mpc_ray.cli import validity
from mpc_ray.cli.checks import GIB, Check, gpu
from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.endpoint.dial import address_of
from mpc_ray.endpoint.peers import ASKING, MAX_SKEW_S, dial_front, fronts_hello
from mpc_ray.endpoint.ray_host import probe
from mpc_ray.endpoint.standing import Standing, read
from mpc_ray.endpoint.store import ModelInfo, ModelStore
from mpc_ray.errors import MpcError, PeerLost
from mpc_ray.trust import files
from mpc_ray.trust.folder import open_folder
from mpc_ray.trust.records import PartyRecord
from mpc_ray.trust.replay import time_ms

REACH_S = 3.0
WARN_SKEW_S = 2.0  # an authorisation allows 5 s by default
SLOT_BYTES = 600 << 20


def looked_at(path: Path) -> Iterator[Check]:
    """One check after the other; those that need an earlier one that failed are left out."""
    try:
        config = PartyConfig.load(path)
    except MpcError as error:
        yield Check("settings", "fail", error.cause, error.remedy)
        return
    yield Check("settings", "ok", str(path))
    try:
        files.check_folder(config.folder)
        folder = open_folder(config.folder)
        for check in validity.certificate(config.folder / "tls.pem"):
            yield check
            if check.status == "fail":
                return
        standing = read(config.folder)
        folder.clients()
    except MpcError as error:
        yield Check("folder", "fail", error.cause, error.remedy)
        return
    me, directory = standing.records[standing.me], standing.directory
    yield Check("folder", "ok", f"party {me.place} of {directory.federation}, directory {directory.serial}")
    yield validity.left("directory", directory.expires)
    enrolled = [client for client in folder.clients().list() if not client.revoked]
    if enrolled:
        yield Check("clients", "ok", f"{len(enrolled)} signing keys are enrolled")
    else:
        yield Check(
            "clients", "warn", "no signing key is enrolled", "mpc-ray keys enroll PUBLIC --party FOLDER"
        )
    models: list[ModelInfo] = []
    try:
        models = ModelStore(config.folder).list()
    except MpcError as error:
        yield Check("models", "fail", error.cause, error.remedy)
    else:
        named = ", ".join(f"{m.name} ({m.weights} weights, {m.bytes / 2**20:.0f} MiB)" for m in models)
        remedy = "" if models else "mpc-ray model import FILE --party FOLDER"
        yield Check("models", "ok" if models else "fail", named or "none in the store", remedy)
    yield _memory(config, models)
    yield gpu(config.device, "device: cpu in the settings, or a driver and a GPU that PyTorch can use")
    ours = {model.name: model.digest for model in models}
    for index in range(3):
        yield _asked(standing, config, index, ours)
    yield _listens(me)
    if config.host == "ray" and config.ray.address is not None:
        try:
            probe(config.ray.address, str(config.ray.token or ""))
        except MpcError as error:
            yield Check("Ray", "fail", error.cause, error.remedy)
        else:
            yield Check("Ray", "ok", f"{config.ray.address} demands a token and takes ours")


def _memory(config: PartyConfig, models: Sequence[ModelInfo]) -> Check:
    """A slot holds its models, prepared, and a program; a run holds a few times its texts besides."""
    import psutil

    need = config.slots * (SLOT_BYTES + 2 * sum(model.bytes for model in models)) + config.limits.held_bytes
    free = int(psutil.virtual_memory().available)
    detail = f"{free / GIB:.1f} GiB free; {config.slots} slots with all models may take {need / GIB:.1f} GiB"
    if free < need:
        return Check(
            "memory", "warn", detail, "fewer slots or models, a smaller limits.held_bytes, or more memory"
        )
    return Check("memory", "ok", detail)


def _asked(standing: Standing, config: PartyConfig, index: int, ours: Mapping[str, str]) -> Check:
    """What a party's front says of itself, over mutual TLS: who it is, its release, its clock and its models."""
    record = standing.records[index]
    name = f"party {index}" if index != standing.me else f"party {index}, here"
    try:
        link = dial_front(standing, index, fronts_hello(config.agreed()), ASKING, timeout=REACH_S)
        try:
            began = time_ms()
            link.send(Message({"time_ms": began}))
            said = link.receive(REACH_S).header
            skew_s = (float(str(said.get("time_ms"))) - (began + time_ms()) / 2) / 1000
        finally:
            link.close()
    except PeerLost as error:
        own = "start it: mpc-ray party --config FILE"
        remedy = own if index == standing.me else "ask its operator; check the firewall between"
        return Check(name, "warn", error.cause.removeprefix(f"party {index}: "), remedy)
    except (MpcError, ValueError) as error:
        cause = error.cause if isinstance(error, MpcError) else "answers in another form"
        return Check(name, "fail", cause, getattr(error, "remedy", "") or "install one release everywhere")
    where = f"{record.operator} in {record.region} at {record.peer}, release {said.get('version')}"
    if abs(skew_s) > MAX_SKEW_S:
        way = "ahead of" if skew_s > 0 else "behind"
        return Check(
            name, "fail", f"its clock is {abs(skew_s):.0f} s {way} ours", "set the clocks (chrony, ntpd)"
        )
    theirs = said.get("models")
    theirs = theirs if isinstance(theirs, dict) else {}
    lacking = [model for model in ours if model not in theirs]
    other = [model for model in ours if model in theirs and theirs[model] != ours[model]]
    if other or lacking:
        what = f"has another version of {', '.join(other)}" if other else f"lacks {', '.join(lacking)}"
        return Check(
            name, "warn", f"{where}; {what}", "have it import its share of the same mpc-ray model share"
        )
    if abs(skew_s) > WARN_SKEW_S:
        return Check(
            name, "warn", f"{where}; its clock differs by {skew_s:.1f} s", "set the clocks (chrony, ntpd)"
        )
    return Check(name, "ok", where)


def _listens(me: PartyRecord) -> Check:
    """Whether gateways would find this party where the directory sends them."""
    try:
        socket.create_connection(address_of(me.gateway), REACH_S).close()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        remedy = "start it: mpc-ray party --config FILE; check the address and the firewall"
        return Check("gateways", "warn", f"{me.gateway} is not reached: {reason}", remedy)
    return Check("gateways", "ok", f"somebody listens at {me.gateway}")
