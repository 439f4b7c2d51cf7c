"""The peer port, and what the three fronts of a set tell each other.

A connection begins with a preamble that names its session. Those of a triple are handed to its slot before TLS. The
session of zeros is the fronts' own: each dials both others and asks, every second, which release it runs, what its
clock says and which models it has. So a wrong certificate, another release, a clock that is off, and a party that runs
twice have a name within seconds of the start, whichever end is wrong; who cannot be reached is dialled for ever.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import mpc_ray
from mpc_ray.channel import Digests, Hello, Link, Message, digest, fair
from mpc_ray.channel.dial import dial
from mpc_ray.channel.hello import PREAMBLE_BYTES, Answer, Direction, Greeting, Kind, preamble, session_of
from mpc_ray.channel.listener import Port
from mpc_ray.channel.packed import finite
from mpc_ray.channel.reception import Arrival, Reception, shutdown
from mpc_ray.channel.tls import TlsStream
from mpc_ray.endpoint.dial import address_of
from mpc_ray.endpoint.said import unbroken
from mpc_ray.endpoint.slots import Slots
from mpc_ray.endpoint.standing import Standing
from mpc_ray.errors import CertificateError, ChannelError, HelloMismatch, MpcError, PeerLost
from mpc_ray.trust.certs import client_context
from mpc_ray.trust.replay import time_ms

log = logging.getLogger("mpc_ray.endpoint.peers")

FRONTS = bytes(16)
"""The session that is the fronts' own."""
ASKING = bytes(16)
"""The token of whoever only asks once: it takes no peer's place (``mpc-ray doctor``)."""
EVERY_S = 1.0
STALE_S = 5.0
DIAL_S = 3.0
PREAMBLE_S = 5.0
MAX_PREAMBLES = 64
MAX_GREETERS = 8
MAX_BYTES = 1 << 16
TWICE_S = (
    12.0  # a front that is started again may have to wait so long until its old connections are seen dead
)
MAX_SKEW_S = 60.0


@dataclass(frozen=True)
class Peer:
    """What is known of another front. ``seen``: when it last answered (``time.monotonic``)."""

    index: int
    seen: float = -math.inf
    why: str = "not dialled yet"
    skew_s: float = 0.0
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def here(self) -> bool:
        """Whether it answers."""
        return time.monotonic() - self.seen < STALE_S


class Peers:
    """The peer port of one front, and its conversations with the two others, until ``close``.

    ``said()`` is what we tell them. ``fatal(error)`` is called while ``strict`` is on, for what no waiting heals.
    """

    def __init__(
        self,
        host: str,
        port: int,
        standing: Standing,
        configuration: bytes,
        instance: bytes,
        slots: Slots,
        said: Callable[[], dict[str, Any]],
        fatal: Callable[[MpcError], None],
    ) -> None:
        self.me = standing.me
        self.strict = True
        self._standing, self._slots, self._said, self._fatal = standing, slots, said, fatal
        self._instance = instance
        self._hello = fronts_hello(configuration)
        self._reception = Reception(
            self.me, standing.identity, kinds=frozenset((Kind.PARTY,)), uris=standing.uris
        )
        self._peers = {index: Peer(index) for index in range(3) if index != self.me}
        self._greeted: dict[int, tuple[bytes, float]] = {}
        self._links: set[Link] = set()
        self._arriving: dict[socket.socket, str] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        try:
            self._port = Port(host, port, self._arrived, f"peers of party {self.me}")
        except MpcError:
            self._reception.close()
            raise
        self._reception.place = "{}:{}".format(*self._port.address)

    @property
    def address(self) -> tuple[str, int]:
        """Where peers dial."""
        return self._port.address

    def start(self) -> None:
        """Begin to talk to the others."""
        threading.Thread(target=self._welcome, name="fronts", daemon=True).start()
        for index in self._peers:
            threading.Thread(target=self._talk, args=(index,), name=f"party {index}", daemon=True).start()

    def renew(self, standing: Standing) -> None:
        """New certificates and addresses from now on; conversations under way go on."""
        self._reception.renew(standing.identity)
        self._standing = standing

    def known(self) -> list[Peer]:
        """What is known of the two others."""
        return list(self._peers.values())

    def waiting(self) -> list[str]:
        """Why a peer cannot be computed with now."""
        found = []
        for peer in self._peers.values():
            if not peer.here:
                found.append(f"party {peer.index} ({peer.why})")
            elif abs(peer.skew_s) > MAX_SKEW_S:
                found.append(f"party {peer.index} ({_skew(peer)})")
        return found

    def close(self) -> None:
        """Stop listening and talking."""
        self._over.set()
        self._port.close()
        self._reception.close()
        with self._lock:
            links, arriving = list(self._links), list(self._arriving)
        for sock in arriving:
            shutdown(sock)
        for link in links:
            link.close()

    # -- the port ---

    def _arrived(self, sock: socket.socket, who: str) -> None:
        """A connection: when too many are silent, the oldest of the address that has most of them goes."""
        with self._lock:
            while len(self._arriving) >= MAX_PREAMBLES:
                oldest = fair.oldest_of_most(self._arriving)
                del self._arriving[oldest]
                shutdown(oldest)
            self._arriving[sock] = fair.address_of(who)
        threading.Thread(target=self._route, args=(sock, who), name="preamble", daemon=True).start()

    def _route(self, sock: socket.socket, who: str) -> None:
        kept = False
        try:
            session = session_of(_preamble(sock), who)
            if session == FRONTS:
                kept = True
                self._reception.receive(sock, who)
                return
            slot = self._slots.of(session)
            if slot is not None:  # else hang up: the dialler tries again until its deadline
                slot.packet({"do": "peer", "session": session.hex(), "who": who}, (sock,))
        except HelloMismatch as error:
            log.warning("%s", error)
        except (OSError, EOFError):  # silent, or left
            pass
        finally:
            with self._lock:
                self._arriving.pop(sock, None)
            if not kept:
                sock.close()

    # -- those who dial us ---

    def _welcome(self) -> None:
        waiting: dict[tuple[int, bytes], tuple[float, Direction, TlsStream]] = {}
        while not self._over.is_set():
            with unbroken(log):
                self._pair(waiting)
        for _, _, stream in waiting.values():
            stream.close()

    def _pair(self, waiting: dict[tuple[int, bytes], tuple[float, Direction, TlsStream]]) -> None:
        """Put the two connections of each front together by their token: one turn, a second at most."""
        now = time.monotonic()
        for key in [key for key, (since, _, _) in waiting.items() if now - since > PREAMBLE_S]:
            waiting.pop(key)[2].close()
        try:
            arrival = self._reception.take(lambda a: True, now + 1.0)
            if arrival is None:
                return
            stream = self._let_in(arrival, now + PREAMBLE_S)
        except ChannelError as error:
            if not self._over.is_set():
                log.warning("a peer was turned away: %s", error)
            return
        greeting = arrival.greeting
        key = (greeting.index, greeting.token)
        first = waiting.pop(key, None)
        if first is None or first[1] is greeting.direction or len(waiting) >= MAX_GREETERS:
            if first is not None:
                first[2].close()
            waiting[key] = (now, greeting.direction, stream)
            return
        both = {greeting.direction: stream, first[1]: first[2]}
        link = Link(
            greeting.peer,
            both[Direction.DIALLER_RECEIVES],
            both[Direction.DIALLER_SENDS],
            max_bytes=MAX_BYTES,
        )
        with self._lock:
            full = len(self._links) >= MAX_GREETERS
            if not full:
                self._links.add(link)
        if full:
            link.close()
            return
        threading.Thread(target=self._listen, args=(link, *key), name=f"{greeting.peer}", daemon=True).start()

    def _let_in(self, arrival: Arrival, end: float) -> TlsStream:
        """Welcome a front, unless its party is here already, under another process."""
        greeting = arrival.greeting
        if arrival.refused is None and greeting.token != ASKING:
            with self._lock:
                token, when = self._greeted.get(greeting.index, (b"", -math.inf))
            if token not in (b"", greeting.token) and time.monotonic() - when < STALE_S:
                self._reception.answer(arrival, self._hello, Answer.TAKEN, end)
                arrival.drop()
                raise ChannelError(
                    f"{greeting.peer}: two processes run as it",
                    remedy=f"stop one of the processes that run as {greeting.peer}",
                )
        return self._reception.welcome(arrival, self._hello, end)

    def _listen(self, link: Link, index: int, token: bytes) -> None:
        try:
            while True:
                if token != ASKING:
                    with self._lock:
                        self._greeted[index] = (token, time.monotonic())
                link.receive(3 * STALE_S)
                link.send(Message(self._all_said()))
        except ChannelError:  # it has left
            pass
        finally:
            link.close()
            with self._lock:
                self._links.discard(link)
                if self._greeted.get(index, (b"", 0.0))[0] == token:
                    del self._greeted[index]

    # -- those whom we dial ---

    def _talk(self, index: int) -> None:
        pause = EVERY_S / 4
        taken_since = math.inf
        while not self._over.is_set():
            try:
                link = dial_front(self._standing, index, self._hello, self._instance, timeout=DIAL_S)
                taken_since = math.inf
                with self._lock:
                    self._links.add(link)
                try:
                    pause = EVERY_S / 4
                    self._ask(index, link)
                finally:
                    link.close()
                    with self._lock:
                        self._links.discard(link)
            except MpcError as error:
                if self._over.is_set():
                    return
                self._note(index, error)
                taken = error.code == "taken"
                taken_since = min(taken_since, time.monotonic()) if taken else math.inf
                hopeless = isinstance(error, CertificateError | HelloMismatch)
                if self.strict and (hopeless or time.monotonic() - taken_since > TWICE_S):
                    self._fatal(error)
            except Exception as error:  # a fault of ours: this party is not dialled for the last time
                log.exception("%s while talking with party %d", type(error).__name__, index)
            self._over.wait(pause)
            pause = min(2 * pause, 2 * EVERY_S)

    def _ask(self, index: int, link: Link) -> None:
        """Ask one front again and again. Raises what ends the conversation."""
        while not self._over.is_set():
            began = time_ms()
            link.send(Message(self._all_said()))
            said = link.receive(STALE_S).header
            skew = finite(said.get("time_ms")) - (began + time_ms()) / 2
            before = self._peers[index]
            peer = Peer(index, time.monotonic(), "", skew / 1000, said)
            self._peers[index] = peer
            if not before.here:
                log.info("party %d is there", index)
            if abs(peer.skew_s) > MAX_SKEW_S:
                error = ChannelError(f"party {index}: {_skew(peer)}", remedy="set the clocks (chrony, ntpd)")
                if self.strict:
                    self._fatal(error)
                if abs(before.skew_s) <= MAX_SKEW_S:
                    log.warning("%s", error)
            self._over.wait(EVERY_S)

    def _note(self, index: int, error: MpcError) -> None:
        before = self._peers[index]
        why = error.cause.removeprefix(f"party {index}: ").removeprefix(f"party {index} ")
        if why != before.why:
            level = logging.WARNING if isinstance(error, PeerLost) else logging.ERROR
            log.log(level, "party %d: %s", index, why)
        self._peers[index] = replace(before, seen=-math.inf, why=why)

    def _all_said(self) -> dict[str, Any]:
        return {"time_ms": time_ms(), "version": mpc_ray.__version__, **self._said()}


def fronts_hello(configuration: bytes) -> Hello:
    """HELLO between fronts: the release and what all three must have been told alike."""
    return Hello(FRONTS, Digests(version=digest(mpc_ray.__version__.encode()), configuration=configuration))


def dial_front(standing: Standing, index: int, hello: Hello, token: bytes, *, timeout: float) -> Link:
    """A link to the front of party ``index``, at the directory's address for it. Raises as ``channel.dial`` does."""
    record = standing.records[index]
    context = client_context(standing.identity)
    end = time.monotonic() + timeout
    streams: list[TlsStream] = []
    try:
        for direction in Direction:
            streams.append(
                dial(
                    index,
                    address_of(record.peer),
                    context,
                    Greeting(hello, Kind.PARTY, standing.me, direction, token),
                    end,
                    timeout,
                    preamble=preamble(FRONTS),
                    uri=record.uri(standing.federation),
                )
            )
    except BaseException:
        for stream in streams:
            stream.shutdown()
            stream.close()
        raise
    outgoing, incoming = streams
    return Link(f"party {index}", outgoing, incoming, max_bytes=MAX_BYTES)


def _preamble(sock: socket.socket) -> bytes:
    """The first bytes of a connection. ``OSError``, ``EOFError`` if they do not come in time."""
    end = time.monotonic() + PREAMBLE_S
    data = b""
    while len(data) < PREAMBLE_BYTES:
        sock.settimeout(max(0.01, end - time.monotonic()))
        part = sock.recv(PREAMBLE_BYTES - len(data))
        if not part:
            raise EOFError("hung up")
        data += part
    return data


def _skew(peer: Peer) -> str:
    way = "ahead of" if peer.skew_s > 0 else "behind"
    hours = abs(peer.skew_s) / 3600
    size = f"{hours:.1f} h" if hours >= 1 else f"{abs(peer.skew_s):.0f} s"
    return f"its clock is {size} {way} ours"
