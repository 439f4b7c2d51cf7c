"""The gateway port: mutual TLS with the gateways of the directory, and their commands.

A link answers one command at a time. What takes long (``open``, ``run``) is answered by a thread of its own, so that a
gateway that leaves is noticed at once: its triples end with the link they were opened on.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol

from mpc_ray.channel import Link, Message
from mpc_ray.channel.descriptors import allow
from mpc_ray.channel.hello import Answer, Direction, Kind
from mpc_ray.channel.listener import Port
from mpc_ray.channel.reception import Arrival, Reception
from mpc_ray.channel.tls import TlsStream
from mpc_ray.commands import failure
from mpc_ray.endpoint.budget import Budget
from mpc_ray.endpoint.config import Limits, Listen
from mpc_ray.endpoint.dial import endpoint_hello
from mpc_ray.endpoint.jobs import Jobs
from mpc_ray.endpoint.said import code_of, unbroken
from mpc_ray.endpoint.standing import Standing
from mpc_ray.endpoint.triples import Triples
from mpc_ray.errors import BadFrame, ChannelError, ConfigError, InputError, MpcError
from mpc_ray.telemetry import logs, metrics, traces

log = logging.getLogger("mpc_ray.endpoint.gateways")

PAIR_S = 5.0
OPEN_S = 60.0
LONGEST_OPEN_S = 600.0
MAX_PAIRS = 64
PEERS_FILES = 512  # of both ports: handshakes, halves of links, peers' connections on their way to slots
MAX_PAIRS_OF_ONE = 16
ADMIT_S = 30.0
MAX_JOBS = 1024
SLACK_BYTES = 1 << 20
UNREAD_S = 5.0  # a gateway sends its next command when it has read the last answer: we are not long behind it
_LONG = frozenset(("open", "run"))
_COMPUTE = frozenset(("open", "run", "submit"))  # what a party with an expired directory does for nobody


class Front(Protocol):
    """What commands are answered from."""

    jobs: Jobs
    triples: Triples

    def status(self) -> dict[str, Any]: ...


class Gateways:
    """Listens for gateways and answers them until ``close``. ConfigError if the port cannot be had."""

    def __init__(self, listen: Listen, limits: Limits, standing: Standing, front: Front) -> None:
        self._front, self._limits, self._standing = front, limits, standing
        self._reception = Reception(standing.me, standing.identity, kinds=frozenset((Kind.GATEWAY,)))
        self._links: dict[Link, str] = {}
        self._budget = Budget(limits.receiving_bytes)
        self._lock = threading.Lock()
        self._closed = False
        allow(2 * limits.links + PEERS_FILES, "limits.links")
        who = f"gateways of party {standing.me}"
        try:
            self._port = Port(listen.host, listen.port, self._reception.receive, who)
        except MpcError:
            self._reception.close()
            raise
        threading.Thread(target=self._accept, name=who, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        """Where gateways dial."""
        return self._port.address

    def renew(self, standing: Standing) -> None:
        """Use other certificates from now on; hang up only on gateways that the directory has no more."""
        self._reception.renew(standing.identity)
        with self._lock:
            self._standing = standing
            removed = [link for link, gateway in self._links.items() if gateway not in standing.gateways]
        for link in removed:
            link.close()

    def close(self) -> None:
        """Hang up on every gateway."""
        self._closed = True
        self._port.close()
        self._reception.close()
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()

    def _accept(self) -> None:
        waiting: dict[bytes, tuple[float, Direction, TlsStream, str]] = {}
        while not self._closed:
            with unbroken(log):
                self._pair(waiting)
        for _, _, stream, _ in waiting.values():
            stream.close()

    def _pair(self, waiting: dict[bytes, tuple[float, Direction, TlsStream, str]]) -> None:
        """Put the two connections of each gateway's link together by their token: one turn, a second at most."""
        now = time.monotonic()
        late = [t for t, (since, *_) in waiting.items() if now - since > PAIR_S]
        for token in (*late, *list(waiting)[: max(0, len(waiting) - MAX_PAIRS)]):
            if token in waiting:
                waiting.pop(token)[2].close()
        try:
            arrival = self._reception.take(lambda a: True, now + 1.0)
            if arrival is None:
                return
            gateway = self._admitted(arrival)
            stream = self._reception.welcome(arrival, endpoint_hello(), now + PAIR_S)
        except ChannelError as error:
            if not self._closed:
                log.warning("a gateway was turned away: %s", error)
            return
        token, direction = arrival.greeting.token, arrival.greeting.direction
        first = waiting.pop(token, None)
        if first is None or first[1] is direction or first[3] != gateway:
            if first is not None:
                first[2].close()
            theirs = [one for one, (*_, whose) in waiting.items() if whose == gateway]
            for one in theirs[: max(0, len(theirs) + 1 - MAX_PAIRS_OF_ONE)]:
                waiting.pop(one)[2].close()
            waiting[token] = (now, direction, stream, gateway)
            return
        self._begin({direction: stream, first[1]: first[2]}, gateway)

    def _admitted(self, arrival: Arrival) -> str:
        """``gateway/NAME``, if the directory has it. The certificate's name alone would let a removed one in."""
        if arrival.refused is None:
            try:
                return self._standing.gateway(arrival.stream.certificate())
            except ChannelError as error:
                self._reception.answer(
                    arrival, endpoint_hello(), Answer.NAME_REFUSED, time.monotonic() + PAIR_S
                )
                arrival.refused = error
        return ""

    def _begin(self, streams: Mapping[Direction, TlsStream], gateway: str) -> None:
        outgoing = streams[Direction.DIALLER_RECEIVES]
        outgoing.watch(60.0)
        taken: list[int] = []
        link = Link(
            "gateway",
            outgoing,
            streams[Direction.DIALLER_SENDS],
            admit=lambda nbytes: self._admit(nbytes, taken),
        )
        with self._lock:
            theirs, most = sum(one == gateway for one in self._links.values()), self._limits
            full = ""
            if gateway not in self._standing.gateways:  # removed since its certificate was looked at
                full = "the directory has it no more"
            elif theirs >= most.gateway_links:
                full = f"it has {theirs} links already (limits.gateway_links)"
            elif len(self._links) >= most.links:
                full = f"gateways have {most.links} links already (limits.links)"
            else:
                self._links[link] = gateway
        if full:
            log.warning("%s was turned away: %s", gateway, full)
            link.close()
            return
        threading.Thread(target=self._serve, args=(link, gateway, taken), name="gateway", daemon=True).start()

    def _admit(self, nbytes: int, taken: list[int]) -> None:
        most = self._limits.envelope_bytes + SLACK_BYTES
        if nbytes > most:
            raise BadFrame(
                f"gateway: announces a message of {nbytes:,} bytes, at most {most:,} are taken here"
            )
        self._budget.take(nbytes, ADMIT_S)
        taken.append(nbytes)

    def _serve(self, link: Link, gateway: str, taken: list[int]) -> None:
        """Answer one gateway until it leaves."""
        busy = threading.Lock()
        try:
            while True:
                message = link.receive(None)
                if not busy.acquire(timeout=UNREAD_S):
                    log.warning("%s sent a command before the last was answered", gateway)
                    return
                if message.header.get("cmd") in _LONG:
                    # No tensors belong to it: the budget must not be given back for memory that is still held.
                    work = (link, gateway, Message(message.header), busy)
                    threading.Thread(target=self._work, args=work, name="command", daemon=True).start()
                else:
                    self._work(link, gateway, message, busy)
                del message
                self._give_back(taken)
        except ChannelError as error:
            log.debug("%s has left: %s", gateway, error)
        finally:
            with self._lock:
                self._links.pop(link, None)
            self._give_back(taken)
            link.close()
            self._front.triples.left(link)

    def _give_back(self, taken: list[int]) -> None:
        while taken:
            self._budget.give(taken.pop())

    def _work(self, link: Link, gateway: str, message: Message, busy: threading.Lock) -> None:
        answer = self._answer(link, gateway, message)
        try:
            with contextlib.suppress(ChannelError):  # it left: the thread that receives says so
                try:
                    link.send(answer)
                except InputError as error:  # larger than a link carries
                    link.send(Message(failure(error)))
        finally:
            busy.release()  # not before: a gateway that reads no answers would get a thread for each command

    def _answer(self, link: Link, gateway: str, message: Message) -> Message:
        header: Mapping[str, Any] = message.header
        command = str(header.get("cmd"))[:16]
        standing = self._standing
        with logs.context(set=standing.set, party=standing.me):
            try:
                return self._command(link, gateway, command, header, message)
            except Exception as error:
                if isinstance(error, MpcError):
                    log.info("%s refused: %s", command if command.isidentifier() else "a command", error)
                else:
                    log.exception("%s in a gateway's command", type(error).__name__)
                return Message(failure(error))

    def _command(
        self, link: Link, gateway: str, command: str, header: Mapping[str, Any], message: Message
    ) -> Message:
        jobs, triples = self._front.jobs, self._front.triples
        parent = traces.parse(header.get("traceparent")) or ""
        if command in _COMPUTE:
            self._standing.current()
        match command:
            case "status":
                return Message(self._front.status())
            case "submit":
                return self._submit(header, message, gateway, parent)
            case "run":
                attempt = header.get("attempt", 0)
                if type(attempt) is not int or not 0 <= attempt < 256:
                    raise InputError("an attempt is a number from 0", remedy=_VERSIONS)
                return triples.run(_triple(header), _names(header, "jobs"), attempt, link, gateway, parent)
            case "open":
                began = time.monotonic()
                timeout = _seconds(header.get("timeout_s", OPEN_S))
                triples.open(_triple(header), _names(header, "models"), timeout, link, gateway, parent)
                return Message({"ok": True, "seconds": time.monotonic() - began})
            case "drop":
                return Message({"ok": True, "dropped": jobs.drop(_names(header, "jobs"), gateway)})
            case "abort":
                triples.abort(_triple(header), gateway)
                return Message({"ok": True})
            case "close":
                triples.close(_triple(header), link)
                return Message({"ok": True})
        raise ConfigError("an unknown command", remedy=_VERSIONS)

    def _submit(self, header: Mapping[str, Any], message: Message, gateway: str, parent: str) -> Message:
        jobs, standing = self._front.jobs, self._standing
        with (
            metrics.timed("submit", set=standing.set),
            traces.span("submit", parent, set=standing.set, party=standing.me),
        ):
            try:
                job = jobs.submit(header, message.tensors.get("envelope"), gateway)
            except MpcError as error:
                metrics.job(code_of(error), set=standing.set)
                raise
        return Message({"ok": True, "job": job})


_VERSIONS = "use one version everywhere"


def _triple(header: Mapping[str, Any]) -> bytes:
    text = header.get("triple")
    if isinstance(text, str) and len(text) == 32:
        with contextlib.suppress(ValueError):
            name = bytes.fromhex(text)
            if any(name):  # zeros name the fronts' own conversation
                return name
    raise InputError("a triple is named by 32 hexadecimal digits", remedy=_VERSIONS)


def _names(header: Mapping[str, Any], key: str) -> list[str]:
    names = header.get(key)
    fits = isinstance(names, list) and len(names) <= MAX_JOBS
    if not fits or not all(isinstance(name, str) and len(name) <= 128 for name in names or ()):
        raise InputError(f"{key} is no list of at most {MAX_JOBS} names", remedy=_VERSIONS)
    return list(names or ())


def _seconds(value: object) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or value <= 0
    ):
        raise InputError("timeout_s is no number of seconds", remedy=_VERSIONS)
    return min(float(value), LONGEST_OPEN_S)
