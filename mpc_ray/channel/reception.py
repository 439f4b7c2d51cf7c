"""Where connections are received: TLS and HELLO in threads of their own, with a time-out and a limit.

When too many handshakes are under way the oldest of the address that has most is dropped, so a silent stranger holds
nothing up. Who passed TLS
and HELLO waits in a room until somebody takes it: ``Listener`` for one session, a party endpoint for many. How a
connection came here (accepted, or handed over by another process) does not matter.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from mpc_ray.channel import hello as hello_wire
from mpc_ray.channel.dial import dial
from mpc_ray.channel.fair import address_of, oldest_of_most
from mpc_ray.channel.framed import FramedChannel
from mpc_ray.channel.hello import Answer, Direction, Greeting, Hello, Kind
from mpc_ray.channel.interface import Address
from mpc_ray.channel.tls import TlsStream, tls_channel, tls_error
from mpc_ray.errors import CertificateError, ChannelError, PeerLost
from mpc_ray.trust.certs import Identity, client_context, server_context

MAX_HANDSHAKES = 32
MAX_WAITING = 64


class Arrival:
    """A connection that passed TLS and HELLO, or one that passed TLS and then claimed what it may not."""

    def __init__(self, stream: TlsStream, greeting: Greeting, refused: ChannelError | None) -> None:
        self.stream = stream
        self.greeting = greeting
        self.refused = refused
        self.time = time.monotonic()

    def drop(self) -> None:
        """Hang up."""
        self.stream.shutdown()
        self.stream.close()


class Reception:
    """Party ``me``'s handshakes with whoever dials it. ``kinds``: who may; ``place``: where, for errors.

    ``uris``: for a name (``party-1``), the URI that its certificate must carry besides; a name that is not listed
    needs none. Dialling out to peers asks for the same ones.
    """

    def __init__(
        self,
        me: int,
        identity: Identity,
        *,
        place: str = "",
        kinds: frozenset[Kind] = frozenset((Kind.PARTY, Kind.CLIENT)),
        uris: Mapping[str, str] | None = None,
        handshake_timeout: float = 5.0,
    ) -> None:
        self.me = me
        self.place = place
        self.note = ""
        self.handshake_timeout = handshake_timeout
        self.uris = dict(uris or {})
        self._kinds = kinds
        self._server_context = server_context(identity)
        self.client_context = client_context(identity)
        self._greeting: dict[socket.socket, str] = {}
        self._room: list[Arrival] = []
        self._change = threading.Condition()
        self._closed = False

    @property
    def busy(self) -> int:
        """Handshakes that are under way."""
        return len(self._greeting)

    def renew(self, identity: Identity) -> None:
        """Use another certificate from now on; connections already made stay. ConfigError if it is unusable."""
        server, client = server_context(identity), client_context(identity)
        self._server_context, self.client_context = server, client

    def receive(self, sock: socket.socket, who: str) -> None:
        """Take over a connected socket; ``who`` is its other end's address, for errors. Returns at once."""
        with self._change:
            if self._closed:
                sock.close()
                return
            while len(self._greeting) >= MAX_HANDSHAKES:
                oldest = oldest_of_most(self._greeting)
                del self._greeting[oldest]
                shutdown(oldest)
            self._greeting[sock] = address_of(who)
        threading.Thread(target=self._greet, args=(sock, who), name="handshake", daemon=True).start()

    def take(self, wanted: Callable[[Arrival], bool], end: float) -> Arrival | None:
        """The first fitting arrival that is still there; ``None`` after ``end`` (``time.monotonic``)."""
        with self._change:
            while True:
                for arrival in [a for a in self._room if wanted(a)]:
                    self._room.remove(arrival)
                    fresh = time.monotonic() - arrival.time < self.handshake_timeout
                    if arrival.stream.alive() if arrival.refused is None else fresh:
                        return arrival
                    arrival.drop()
                if self._closed:
                    raise ChannelError(f"party {self.me}: this listener is closed")
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._change.wait(left)

    def welcome(self, arrival: Arrival, hello: Hello, end: float) -> TlsStream:
        """Answer a HELLO, then compare: so that both ends can say what differs."""
        greeting = arrival.greeting
        try:
            if arrival.refused is not None:
                raise arrival.refused
            self.answer(arrival, hello, Answer.WELCOME, end)
            with_client = greeting.kind is not Kind.PARTY
            hello_wire.compare(hello, greeting.hello, greeting.peer, with_client=with_client)
        except ChannelError:
            arrival.drop()
            raise
        return arrival.stream

    def answer(self, arrival: Arrival, hello: Hello, answer: Answer, end: float) -> None:
        """Our side of HELLO. Raises ``PeerLost`` if the dialler has left."""
        theirs = arrival.greeting
        ours = Greeting(hello, Kind.PARTY, self.me, theirs.direction, theirs.token, answer)
        try:
            arrival.stream.send((memoryview(hello_wire.pack(ours)),), end)
        except OSError as error:
            raise PeerLost(theirs.peer, f"hung up: {error.strerror or type(error).__name__}") from None

    def close(self) -> None:
        """Take nobody in any more and drop whoever waits. Streams already taken stay open."""
        with self._change:
            self._closed = True
            waiting, self._room = self._room, []
            for sock in self._greeting:
                shutdown(sock)
            self._change.notify_all()
        for arrival in waiting:
            arrival.drop()

    def _greet(self, sock: socket.socket, who: str) -> None:
        """TLS and the dialler's HELLO. A stranger who fails here is noted, and ends no session."""
        end = time.monotonic() + self.handshake_timeout
        try:
            stream = TlsStream(sock, self._server_context, None, end)
            data = memoryview(bytearray(hello_wire.HELLO_BYTES))
            stream.receive(data, end)
            greeting = hello_wire.unpack(data, who)
            refused = self._refusal(greeting, stream)
            if refused is not None:
                verdict = (
                    Answer.NAME_REFUSED if isinstance(refused, CertificateError) else Answer.KIND_REFUSED
                )
                no = Greeting(Hello(bytes(16)), Kind.PARTY, self.me, greeting.direction, greeting.token)
                stream.send((memoryview(hello_wire.pack(no.answered(verdict))),), end)
                _linger(sock)
        except ssl.SSLError as error:
            self._turned_away(sock, str(tls_error(who, error).cause))
        except (OSError, EOFError, ChannelError) as error:
            cause = (
                error.cause if isinstance(error, ChannelError) else f"{who}: silent or hung up before HELLO"
            )
            self._turned_away(sock, cause)
        else:
            with self._change:
                self._greeting.pop(sock, None)
                self._room.append(Arrival(stream, greeting, refused))
                if self._closed or len(self._room) > MAX_WAITING:
                    self._room.pop(0).drop()
                self._change.notify_all()

    def _refusal(self, greeting: Greeting, stream: TlsStream) -> ChannelError | None:
        """Why this dialler is not let in, though its certificate is our authority's."""
        if greeting.kind not in self._kinds:
            return ChannelError(f"{greeting.peer}: this port is not for a {greeting.kind.name.lower()}")
        remedy = f"start {greeting.peer} with {greeting.name}'s certificate"
        if greeting.name not in stream.names():
            names = ", ".join(stream.names()) or "no one"
            return CertificateError(f"{greeting.peer}: the certificate shown is {names}'s", remedy=remedy)
        wanted = self.uris.get(greeting.name, "")
        if wanted and wanted not in stream.uris():
            shown = ", ".join(stream.uris()) or "no one"
            return CertificateError(
                f"{greeting.peer}: the certificate shown is {shown}'s, not {wanted}'s", remedy=remedy
            )
        return None

    def _turned_away(self, sock: socket.socket, why: str) -> None:
        _linger(sock)
        with self._change:
            self._greeting.pop(sock, None)
            self.note = f"; last connection turned away: {why}"
        sock.close()


def meet(
    reception: Reception,
    addresses: Sequence[Address],
    hello: Hello,
    timeout: float = 10.0,
    *,
    step_timeout: float = 60.0,
    preamble: bytes = b"",
) -> FramedChannel:
    """A channel with both peers: dial those with a smaller index, wait at ``reception`` for the others.

    ``addresses`` by party. ``timeout`` (s) bounds the whole; ``step_timeout`` every later wait of the channel;
    ``preamble`` goes before TLS on what we dial. Raises ``PeerLost`` naming the party that did not come,
    ``CertificateError``, ``HelloMismatch``, or ``ChannelError`` when two processes connect as one party.
    """
    me = reception.me
    end = time.monotonic() + timeout
    token = os.urandom(16)
    streams: dict[tuple[int, Direction], TlsStream] = {}
    tokens: dict[int, bytes] = {}
    try:
        for peer in range(me):
            for direction in Direction:
                streams[peer, direction] = dial(
                    peer,
                    addresses[peer],
                    reception.client_context,
                    Greeting(hello, Kind.PARTY, me, direction, token),
                    end,
                    timeout,
                    preamble=preamble,
                    uri=reception.uris.get(f"party-{peer}", ""),
                )
        later = range(me + 1, len(addresses))
        while missing := [p for p in later if not all((p, d) in streams for d in Direction)]:
            arrival = reception.take(lambda a: a.greeting.kind is Kind.PARTY, end)
            if arrival is None:
                raise _never_came(reception, missing[0], timeout)
            _seat(reception, arrival, hello, streams, tokens, end)
    except BaseException:
        for stream in streams.values():
            stream.shutdown()
            stream.close()
        raise
    outgoing: dict[int, TlsStream] = {}
    incoming: dict[int, TlsStream] = {}
    for (peer, direction), stream in streams.items():
        we_send = (direction is Direction.DIALLER_SENDS) == (peer < me)
        (outgoing if we_send else incoming)[peer] = stream
    return tls_channel(me, hello.session, outgoing, incoming, step_timeout)


def _seat(
    reception: Reception,
    arrival: Arrival,
    hello: Hello,
    streams: dict[tuple[int, Direction], TlsStream],
    tokens: dict[int, bytes],
    end: float,
) -> None:
    """Give a peer's connection its place, or refuse it with an error at both ends."""
    me = reception.me
    peer, direction = arrival.greeting.index, arrival.greeting.direction
    previous = [streams[peer, d] for d in Direction if (peer, d) in streams]
    if peer <= me or peer > 2:
        arrival.drop()
        raise ChannelError(
            f"party {peer}: dialled party {me}", remedy="give every party its own index, 0 to 2"
        )
    if previous and (tokens[peer] != arrival.greeting.token or (peer, direction) in streams):
        if all(stream.alive() for stream in previous):
            reception.answer(arrival, hello, Answer.TAKEN, end)
            arrival.drop()
            raise ChannelError(
                f"party {peer}: two processes connect as it",
                remedy=f"stop one of the processes that run as party {peer}",
            )
        for d in Direction:  # it died and was started again
            if stale := streams.pop((peer, d), None):
                stale.close()
    streams[peer, direction] = reception.welcome(arrival, hello, end)
    tokens[peer] = arrival.greeting.token


def _never_came(reception: Reception, peer: int, timeout: float) -> PeerLost:
    at = f" at {reception.place}" if reception.place else ""
    return PeerLost(
        f"party {peer}",
        f"did not connect to party {reception.me}{at} within {timeout:g} s{reception.note}",
        remedy=f"start party {peer}, or check the address it was given and the firewall between",
    )


def shutdown(sock: socket.socket) -> None:
    """Wake whoever waits on ``sock``, at both ends."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # not connected, or closed already
        pass


def _linger(sock: socket.socket) -> None:
    """Let the alert arrive: closing with unread bytes would reset the connection and destroy it."""
    end = time.monotonic() + 0.5
    try:
        sock.shutdown(socket.SHUT_WR)
        while (left := end - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(4096):
                return
    except OSError:  # timed out or reset: it was best effort
        pass
