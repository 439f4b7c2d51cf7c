"""How a gateway reaches a party endpoint: mutual TLS, HELLO as a gateway, then one command and one answer at a time."""

from __future__ import annotations

import mpc_ray
from mpc_ray.channel import Digests, Hello, Link, Message, dial_party, digest
from mpc_ray.channel.hello import Kind
from mpc_ray.channel.interface import Address
from mpc_ray.commands import error_of
from mpc_ray.errors import ConfigError
from mpc_ray.trust.certs import Identity
from mpc_ray.trust.records import PartyRecord

MAX_BYTES = 512 << 20  # of a command or its answer: no party fills a gateway's memory with one message


def endpoint_hello() -> Hello:
    """HELLO between gateway and party: this release. Sessions are named later, in commands."""
    return Hello(bytes(16), Digests(version=digest(mpc_ray.__version__.encode())))


def address_of(text: str) -> Address:
    """``host:port`` of a directory, as sockets take it."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"{text[:80]!r} is no host:port", remedy="correct the party's record")
    return host.strip("[]"), int(port)


def dial_endpoint(record: PartyRecord, identity: Identity, *, federation: str, timeout: float = 10.0) -> Link:
    """A link to the party of ``record``, whose certificate must be of this federation, set and index.

    Raises ``PeerLost``, ``CertificateError``, ``HelloMismatch``, ``ChannelError`` within ``timeout`` (s).
    """
    return dial_party(
        record.index,
        address_of(record.gateway),
        identity,
        endpoint_hello(),
        kind=Kind.GATEWAY,
        uri=record.uri(federation),
        timeout=timeout,
        max_bytes=MAX_BYTES,
    )


def ask(link: Link, message: Message, timeout_s: float) -> Message:
    """One command and its answer. Raises the error that the party said, or ``PeerLost`` naming it."""
    link.send(message)
    answer = link.receive(timeout_s)
    if "error" in answer.header:
        raise error_of(int(link.peer.rpartition(" ")[2]), answer.header)
    return answer
