"""What ``mpc-ray doctor --gateway FILE`` looks at: this gateway's folder, certificates and sets, and their parties."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mpc_ray.channel.link import Message
from mpc_ray.cli import validity
from mpc_ray.cli.checks import Check
from mpc_ray.endpoint.dial import ask, dial_endpoint
from mpc_ray.errors import MpcError, PeerLost
from mpc_ray.serve.apikeys import DATABASE
from mpc_ray.serve.config import GatewayConfig
from mpc_ray.serve.fleet import PartyState, agreed, read_status
from mpc_ray.serve.host import tls_context
from mpc_ray.serve.leaders import chosen_sets
from mpc_ray.trust.certs import Identity
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.folder import open_gateway
from mpc_ray.trust.records import PartyRecord

REACH_S = 3.0


def looked_at(path: Path) -> Iterator[Check]:
    """One check after the other; those that need an earlier one that failed are left out."""
    try:
        config = GatewayConfig.load(path)
    except MpcError as error:
        yield _failed("settings", error)
        return
    yield Check("settings", "ok", str(path))
    valid = True
    try:
        folder = open_gateway(config.folder)
        for check in validity.certificate(config.folder / "tls.pem"):
            yield check
            valid = check.status != "fail"
        directory, identity = folder.directory(), folder.identity
    except MpcError as error:
        yield _failed("folder", error)
        return
    yield Check(
        "folder", "ok", f"{folder.record.place} of {directory.federation}, directory {directory.serial}"
    )
    yield validity.left("directory", directory.expires, "install the federation's newest directory")
    if config.https is not None:
        yield from _https(config)
    if (config.folder / DATABASE).exists():
        yield Check("API keys", "ok", "there is a database of them")
    else:
        yield Check("API keys", "warn", "no API key was made yet", "mpc-ray keys create --gateway FOLDER")
    try:
        chosen = chosen_sets(config, directory)
    except MpcError as error:
        yield _failed("sets", error)
        return
    for one in chosen:
        yield from _set(directory, identity if valid else None, one.name, frozenset(one.models))


def _https(config: GatewayConfig) -> Iterator[Check]:
    """The certificate that clients see, and whether its key is there and fits."""
    try:
        seen = list(validity.certificate(config.certificate[0], "https", "have it renewed"))
        if not any(check.status == "fail" for check in seen):
            tls_context(*config.certificate)
    except MpcError as error:
        yield _failed("https", error)
        return
    yield from seen


def _set(
    directory: Directory, identity: Identity | None, name: str, wanted: frozenset[str]
) -> Iterator[Check]:
    """A set: what the directory says of it, its three parties, and the models that they share. ``identity``: None where
    no party would let it in.
    """
    try:
        records = directory.parties(name)
    except MpcError as error:
        yield _failed(f"set {name}", error)
        return
    if identity is None:
        yield Check(
            f"set {name}", "warn", "its parties were not asked", "renew this gateway's certificate first"
        )
        return
    states = []
    for record in records:
        state, check = _asked(record, identity, directory.federation)
        states.append(state)
        yield check
    known = [state.models for state in states if state is not None and state.models is not None]
    if len(known) < len(records):
        return
    models, differing = agreed(known, wanted)
    if differing:
        odd = ", ".join(differing)
        remedy = "have each party import its share of the same mpc-ray model share"
        yield Check(f"set {name}", "warn", f"not the same at all three: {odd}", remedy)
    if models:
        yield Check(f"set {name}", "ok", f"all three have {', '.join(models)}")
    else:
        yield Check(
            f"set {name}", "fail", "its parties have no model in common", "mpc-ray model share, import"
        )


def _asked(record: PartyRecord, identity: Identity, federation: str) -> tuple[PartyState | None, Check]:
    """What a party's front says of itself to this gateway, over mutual TLS."""
    name = f"party {record.place}"
    try:
        link = dial_endpoint(record, identity, federation=federation, timeout=REACH_S)
        try:
            answer = ask(link, Message({"cmd": "status"}), REACH_S)
        finally:
            link.close()
    except PeerLost as error:
        cause = error.cause.removeprefix(f"party {record.index}: ")
        remedy = f"ask {record.operator}; check the firewall between, and {record.gateway} in the directory"
        return None, Check(name, "fail", cause, remedy)
    except MpcError as error:
        return None, _failed(name, error)
    state = read_status(record.index, record.set, answer.header)
    where = f"{record.operator} in {record.region} at {record.gateway}, release {state.version}"
    if not state.ready:
        return state, Check(
            name, "warn", f"{where}; {state.why}", f"ask {record.operator} for its doctor --party"
        )
    return state, Check(name, "ok", where)


def _failed(name: str, error: MpcError) -> Check:
    return Check(name, "fail", error.cause, error.remedy or "see docs/deployment.md")
