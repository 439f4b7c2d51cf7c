"""Connecting to a party: dial, TLS, HELLO, and an answer, before a deadline.

A TLS 1.3 dialler's handshake ends before its own certificate was looked at, so nothing is believed before the
acceptor's HELLO comes back.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time

from mpc_ray.channel import hello as hello_wire
from mpc_ray.channel.hello import Answer, Direction, Greeting, Hello, Kind
from mpc_ray.channel.interface import Address, remaining
from mpc_ray.channel.link import DEFAULT_MAX_BYTES, Link
from mpc_ray.channel.tls import TlsStream, tls_error
from mpc_ray.errors import CertificateError, ChannelError, PeerLost
from mpc_ray.trust.certs import Identity, client_context

_PAUSE = 0.05  # seconds between two attempts


def dial_party(
    party: int,
    address: Address,
    identity: Identity,
    hello: Hello,
    *,
    kind: Kind = Kind.CLIENT,
    index: int = 0,
    preamble: bytes = b"",
    uri: str = "",
    timeout: float = 10.0,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Link:
    """A link to ``party``. Retries until ``timeout`` (s) if nobody listens yet.

    ``kind`` and ``index`` are what we are; ``preamble`` goes before TLS, where one port serves many sessions; with
    ``uri`` the party's certificate must carry that URI as well as its name. Raises ``PeerLost``,
    ``CertificateError``, ``HelloMismatch``, ``ChannelError``.
    """
    context = client_context(identity)
    end = time.monotonic() + timeout
    token = os.urandom(16)
    streams = []
    try:
        for direction in Direction:
            ours = Greeting(hello, kind, index, direction, token)
            streams.append(dial(party, address, context, ours, end, timeout, preamble=preamble, uri=uri))
    except BaseException:
        for stream in streams:
            stream.shutdown()
            stream.close()
        raise
    outgoing, incoming = streams
    outgoing.watch(60.0)
    return Link(f"party {party}", outgoing, incoming, max_bytes=max_bytes)


def dial(
    party: int,
    address: Address,
    context: ssl.SSLContext,
    ours: Greeting,
    end: float,
    timeout: float,
    *,
    preamble: bytes = b"",
    uri: str = "",
) -> TlsStream:
    """One welcomed connection to ``party``. Dials again while nobody answers or the acceptor hangs up
    without a word: a port that serves many sessions does so for one that it does not know yet.
    """
    peer = f"party {party}"
    place = f"{address[0]}:{address[1]}"
    while True:
        try:
            sock = _connect(address, end)
            try:
                if preamble:
                    sock.settimeout(remaining(end))
                    sock.sendall(preamble)
                return _introduce(sock, party, context, ours, end, uri)
            except BaseException:
                sock.close()
                raise
        except ssl.SSLError as error:
            raise tls_error(f"{peer} at {place}", error) from None
        except _NotStarted:
            raise PeerLost(
                peer,
                f"accepted our connection at {place} but did not start the session within {timeout:g} s",
                remedy="see its log: is it still starting, or waiting for another party?",
            ) from None
        except EOFError:
            reason = "it hangs up"
        except OSError as error:
            reason = error.strerror or type(error).__name__
        if time.monotonic() + _PAUSE >= end:
            raise PeerLost(
                peer,
                f"not reached at {place} within {timeout:g} s: {reason}",
                remedy=f"start party {party}, or check its address and the firewall between",
            )
        time.sleep(_PAUSE)


class _NotStarted(Exception):
    """The acceptor speaks TLS but its HELLO did not come in time."""


def _connect(address: Address, end: float) -> socket.socket:
    sock = socket.create_connection(address, timeout=remaining(end))
    try:
        itself = sock.getsockname() == sock.getpeername()
    except OSError:
        sock.close()
        raise
    if itself:  # on a free port of this machine where nobody listens TCP may connect a socket to itself
        sock.close()
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    return sock


def _introduce(
    sock: socket.socket, party: int, context: ssl.SSLContext, ours: Greeting, end: float, uri: str
) -> TlsStream:
    """TLS and HELLO on a fresh socket."""
    peer = f"party {party}"
    stream = TlsStream(sock, context, f"party-{party}", end)
    if uri and uri not in stream.uris():
        shown = ", ".join(stream.uris()) or "nobody in particular"
        raise CertificateError(
            f"{peer}: its certificate is {shown}'s, not {uri}'s",
            remedy="check the addresses in the directory",
        )
    stream.send((memoryview(hello_wire.pack(ours)),), end)
    data = memoryview(bytearray(hello_wire.HELLO_BYTES))
    try:
        stream.receive(data, end)
    except TimeoutError:
        raise _NotStarted from None
    theirs = hello_wire.unpack(data, peer)
    if theirs.answer is Answer.NAME_REFUSED:
        raise CertificateError(
            f"{peer}: our certificate is not {ours.name}'s",
            remedy=f"start {ours.peer} with {ours.name}'s certificate",
        )
    if theirs.answer is Answer.KIND_REFUSED:
        raise ChannelError(
            f"{peer}: that port is not for a {ours.kind.name.lower()}",
            remedy="check the address: a party endpoint has one port for its peers and one for gateways",
        )
    if theirs.answer is Answer.TAKEN:
        taken = ChannelError(
            f"{peer}: already has a connection with {ours.peer}",
            remedy=f"stop the other process that runs as {ours.peer}",
        )
        taken.code = "taken"
        raise taken
    if theirs.kind is not Kind.PARTY or theirs.index != party:
        raise ChannelError(
            f"{peer}: introduces itself as {theirs.peer}", remedy="check the parties' addresses"
        )
    hello_wire.compare(ours.hello, theirs.hello, peer, with_client=ours.kind is not Kind.PARTY)
    return stream
