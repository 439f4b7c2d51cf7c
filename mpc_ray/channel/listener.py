"""One listening port a party: its peers and its clients all dial it, and HELLO tells them apart.

Handshakes run in threads with a time-out and a limit; when too many are under way the oldest is dropped, so
a silent stranger holds nothing up. Who passed TLS and HELLO waits in a room until ``channel`` or
``accept_client`` takes it.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence

from mpc_ray.channel import hello as hello_wire
from mpc_ray.channel.dial import dial
from mpc_ray.channel.framed import FramedChannel
from mpc_ray.channel.hello import Answer, Direction, Greeting, Hello, Kind
from mpc_ray.channel.interface import Address
from mpc_ray.channel.link import DEFAULT_MAX_BYTES, Link
from mpc_ray.channel.tls import TlsStream, tls_channel, tls_error
from mpc_ray.errors import CertificateError, ChannelError, ConfigError, PeerLost
from mpc_ray.trust.certs import Identity, client_context, server_context

MAX_HANDSHAKES = 32
MAX_WAITING = 64


class _Arrival:
    """A connection that passed TLS and HELLO, or one that passed TLS and then claimed what it may not."""

    def __init__(self, stream: TlsStream, greeting: Greeting, refused: CertificateError | None) -> None:
        self.stream = stream
        self.greeting = greeting
        self.refused = refused
        self.time = time.monotonic()

    def drop(self) -> None:
        self.stream.shutdown()
        self.stream.close()


class Listener:
    """The listening socket of party ``me``. ``port`` 0 takes any free one; see ``address``.

    Raises ``ConfigError`` if the port is in use or the host is not this machine's.
    """

    def __init__(
        self,
        me: int,
        identity: Identity,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        handshake_timeout: float = 5.0,
    ) -> None:
        self.me = me
        self._server_context = server_context(identity)
        self._client_context = client_context(identity)
        self._handshake_timeout = handshake_timeout
        self._greeting: dict[socket.socket, None] = {}
        self._room: list[_Arrival] = []
        self._note = ""
        self._change = threading.Condition()
        self._closed = False
        self._server = _listen(host, port)
        self._server.settimeout(1.0)
        self._thread = threading.Thread(target=self._accept, name=f"accept, party {me}", daemon=True)
        self._thread.start()

    @property
    def address(self) -> Address:
        """Where peers and clients dial."""
        host, port = self._server.getsockname()[:2]
        return host, port

    def channel(
        self, addresses: Sequence[Address], hello: Hello, timeout: float = 10.0, *, step_timeout: float = 60.0
    ) -> FramedChannel:
        """Connect to both peers: dial those with a smaller index, wait for the others. ``addresses`` by
        party.

        ``timeout`` (s) bounds the whole; ``step_timeout`` every later wait of the channel. Raises
        ``PeerLost`` naming the party that did not come, ``CertificateError``, ``HelloMismatch``, or
        ``ChannelError`` when two processes connect as one party. Call it again for a new channel after one
        has failed, with a new session name.
        """
        end = time.monotonic() + timeout
        token = os.urandom(16)
        streams: dict[tuple[int, Direction], TlsStream] = {}
        tokens: dict[int, bytes] = {}
        try:
            for peer in range(self.me):
                for direction in Direction:
                    ours = Greeting(hello, Kind.PARTY, self.me, direction, token)
                    streams[peer, direction] = dial(
                        peer, addresses[peer], self._client_context, ours, end, timeout
                    )
            later = range(self.me + 1, len(addresses))
            while missing := [p for p in later if not all((p, d) in streams for d in Direction)]:
                arrival = self._take(lambda a: a.greeting.kind is Kind.PARTY, end)
                if arrival is None:
                    raise self._never_came(missing[0], timeout)
                self._seat(arrival, hello, streams, tokens, end)
        except BaseException:
            for stream in streams.values():
                stream.shutdown()
                stream.close()
            raise
        outgoing: dict[int, TlsStream] = {}
        incoming: dict[int, TlsStream] = {}
        for (peer, direction), stream in streams.items():
            we_send = (direction is Direction.DIALLER_SENDS) == (peer < self.me)
            (outgoing if we_send else incoming)[peer] = stream
        return tls_channel(self.me, hello.session, outgoing, incoming, step_timeout)

    def accept_client(
        self, hello: Hello, timeout: float = 10.0, *, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> Link:
        """The next client's link. A digest that one side leaves unstated is not compared.

        Raises ``PeerLost`` if none came within ``timeout`` (s), ``HelloMismatch``, ``CertificateError``.
        """
        end = time.monotonic() + timeout
        first = self._take(lambda a: a.greeting.kind is Kind.CLIENT, end)
        if first is None:
            raise PeerLost("client", f"did not connect within {timeout:g} s{self._note}")
        streams = {first.greeting.direction: self._welcome(first, hello, end)}
        token, other = first.greeting.token, Direction(1 - first.greeting.direction)
        second = self._take(
            lambda a: (
                (a.greeting.kind, a.greeting.token, a.greeting.direction) == (Kind.CLIENT, token, other)
            ),
            end,
        )
        if second is None:
            first.drop()
            raise PeerLost("client", f"made one of its two connections only within {timeout:g} s")
        streams[other] = self._welcome(second, hello, end)
        outgoing = streams[Direction.DIALLER_RECEIVES]
        outgoing.watch(60.0)
        return Link("client", outgoing, streams[Direction.DIALLER_SENDS], max_bytes=max_bytes)

    def close(self) -> None:
        """Stop listening and drop whoever waits. Channels and links already made stay open."""
        with self._change:
            self._closed = True
            waiting, self._room = self._room, []
            for sock in self._greeting:
                _shutdown(sock)
            self._change.notify_all()
        _shutdown(self._server)
        self._thread.join(5)
        self._server.close()
        for arrival in waiting:
            arrival.drop()

    def _seat(
        self,
        arrival: _Arrival,
        hello: Hello,
        streams: dict[tuple[int, Direction], TlsStream],
        tokens: dict[int, bytes],
        end: float,
    ) -> None:
        """Give a peer's connection its place, or refuse it with an error at both ends."""
        peer, direction = arrival.greeting.index, arrival.greeting.direction
        previous = [streams[peer, d] for d in Direction if (peer, d) in streams]
        if peer <= self.me or peer > 2:
            arrival.drop()
            raise ChannelError(
                f"party {peer}: dialled party {self.me}", remedy="give every party its own index, 0 to 2"
            )
        if previous and (tokens[peer] != arrival.greeting.token or (peer, direction) in streams):
            if all(stream.alive() for stream in previous):
                self._answer(arrival, hello, Answer.TAKEN, end)
                arrival.drop()
                raise ChannelError(
                    f"party {peer}: two processes connect as it",
                    remedy=f"stop one of the processes that run as party {peer}",
                )
            for d in Direction:  # it died and was started again
                if stale := streams.pop((peer, d), None):
                    stale.close()
        streams[peer, direction] = self._welcome(arrival, hello, end)
        tokens[peer] = arrival.greeting.token

    def _welcome(self, arrival: _Arrival, hello: Hello, end: float) -> TlsStream:
        """Answer a HELLO, then compare: so that both ends can say what differs."""
        greeting = arrival.greeting
        try:
            if arrival.refused is not None:
                raise arrival.refused
            self._answer(arrival, hello, Answer.WELCOME, end)
            hello_wire.compare(hello, greeting.hello, greeting.peer, with_client=greeting.kind is Kind.CLIENT)
        except ChannelError:
            arrival.drop()
            raise
        return arrival.stream

    def _answer(self, arrival: _Arrival, hello: Hello, answer: Answer, end: float) -> None:
        ours = Greeting(
            hello, Kind.PARTY, self.me, arrival.greeting.direction, arrival.greeting.token, answer
        )
        try:
            arrival.stream.send((memoryview(hello_wire.pack(ours)),), end)
        except OSError as error:
            raise PeerLost(
                arrival.greeting.peer, f"hung up: {error.strerror or type(error).__name__}"
            ) from None

    def _take(self, wanted: Callable[[_Arrival], bool], end: float) -> _Arrival | None:
        """The first fitting arrival that is still there; ``None`` after ``end``."""
        with self._change:
            while True:
                for arrival in [a for a in self._room if wanted(a)]:
                    self._room.remove(arrival)
                    fresh = time.monotonic() - arrival.time < self._handshake_timeout
                    if arrival.stream.alive() if arrival.refused is None else fresh:
                        return arrival
                    arrival.drop()
                if self._closed:
                    raise ChannelError(f"party {self.me}: this listener is closed")
                left = end - time.monotonic()
                if left <= 0:
                    return None
                self._change.wait(left)

    def _never_came(self, peer: int, timeout: float) -> PeerLost:
        host, port = self.address
        return PeerLost(
            f"party {peer}",
            f"did not connect to party {self.me} at {host}:{port} within {timeout:g} s{self._note}",
            remedy=f"start party {peer}, or check the address it was given and the firewall between",
        )

    def _accept(self) -> None:
        while not self._closed:
            try:
                sock, address = self._server.accept()
            except TimeoutError:
                continue
            except OSError:  # closed, or out of descriptors: then wait for some to be given back
                time.sleep(0 if self._closed else 0.1)
                continue
            with self._change:
                while len(self._greeting) >= MAX_HANDSHAKES:
                    oldest = next(iter(self._greeting))
                    del self._greeting[oldest]
                    _shutdown(oldest)
                self._greeting[sock] = None
            threading.Thread(target=self._greet, args=(sock, address), name="handshake", daemon=True).start()

    def _greet(self, sock: socket.socket, address: Address) -> None:
        """TLS and the dialler's HELLO. A stranger who fails here is noted, and ends no session."""
        who = f"{address[0]}:{address[1]}"
        end = time.monotonic() + self._handshake_timeout
        try:
            stream = TlsStream(sock, self._server_context, None, end)
            data = memoryview(bytearray(hello_wire.HELLO_BYTES))
            stream.receive(data, end)
            greeting = hello_wire.unpack(data, who)
            refused = None
            if greeting.name not in stream.names():
                names = ", ".join(stream.names()) or "no one"
                refused = CertificateError(
                    f"{greeting.peer}: the certificate shown is {names}'s",
                    remedy=f"start {greeting.peer} with {greeting.name}'s certificate",
                )
                no = Greeting(Hello(bytes(16)), Kind.PARTY, self.me, greeting.direction, greeting.token)
                stream.send((memoryview(hello_wire.pack(no.answered(Answer.NAME_REFUSED))),), end)
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
                self._room.append(_Arrival(stream, greeting, refused))
                if self._closed or len(self._room) > MAX_WAITING:
                    self._room.pop(0).drop()
                self._change.notify_all()

    def _turned_away(self, sock: socket.socket, why: str) -> None:
        _linger(sock)
        with self._change:
            self._greeting.pop(sock, None)
            self._note = f"; last connection turned away: {why}"
        sock.close()


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65_535:
        raise ConfigError(f"port {port} is not between 0 and 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} on {host} is in use",
                remedy="stop the program that holds it, or choose another port, or 0 for any",
            ) from None
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"cannot listen on {host}:{port}: {reason}",
            remedy="choose an address of this machine and a port above 1023",
        ) from None


def _shutdown(sock: socket.socket) -> None:
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
