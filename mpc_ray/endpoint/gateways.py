"""The gateway port: mutual TLS with gateways of the directory, and their commands, one at a time on each link."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from mpc_ray.channel import Link, Message
from mpc_ray.channel.hello import Direction, Kind
from mpc_ray.channel.listener import Port
from mpc_ray.channel.reception import Arrival, Reception
from mpc_ray.channel.tls import TlsStream
from mpc_ray.commands import failure
from mpc_ray.endpoint.dial import endpoint_hello
from mpc_ray.endpoint.front import Front
from mpc_ray.errors import CertificateError, ChannelError, ConfigError, InputError, MpcError
from mpc_ray.telemetry import metrics, traces

log = logging.getLogger("mpc_ray.endpoint.gateways")

PAIR_S = 5.0
OPEN_S = 60.0


class Gateways:
    """Listens for gateways and answers them until ``close``."""

    def __init__(self, front: Front) -> None:
        self._front = front
        config = front.config
        self._reception = Reception(front.me, front.papers.identity, kinds=frozenset((Kind.GATEWAY,)))
        front.papers.renewed = self._reception.renew
        self._links: set[Link] = set()
        self._lock = threading.Lock()
        self._closed = False
        who = f"gateways of party {front.me}"
        try:
            self._port = Port(config.gateway.host, config.gateway.port, self._reception.receive, who)
        except MpcError:
            self._reception.close()
            raise
        threading.Thread(target=self._accept, name=who, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        """Where gateways dial."""
        return self._port.address

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
        """Put the two connections of each gateway's link together by their token."""
        waiting: dict[bytes, tuple[float, Direction, TlsStream]] = {}
        while not self._closed:
            now = time.monotonic()
            for token in [t for t, (since, _, _) in waiting.items() if now - since > PAIR_S]:
                waiting.pop(token)[2].close()
            try:
                arrival = self._reception.take(lambda a: True, now + 1.0)
                if arrival is None:
                    continue
                gateway = self._admitted(arrival)
                stream = self._reception.welcome(arrival, endpoint_hello(), now + PAIR_S)
            except ChannelError as error:
                if not self._closed:
                    log.warning("a gateway was turned away: %s", error)
                continue
            token, direction = arrival.greeting.token, arrival.greeting.direction
            first = waiting.pop(token, None)
            if first is None or first[1] is direction:
                waiting[token] = (now, direction, stream)
                continue
            both = {direction: stream, first[1]: first[2]}
            outgoing = both[Direction.DIALLER_RECEIVES]
            outgoing.watch(60.0)
            link = Link("gateway", outgoing, both[Direction.DIALLER_SENDS])
            with self._lock:
                if len(self._links) >= self._front.config.limits.links:
                    link.close()
                    continue
                self._links.add(link)
            threading.Thread(target=self._serve, args=(link, gateway), name="gateway", daemon=True).start()

    def _admitted(self, arrival: Arrival) -> str:
        """The gateway's URI, if the directory has it. The certificate's name alone would let a removed one in."""
        known = self._front.papers.gateways()
        if arrival.refused is None:
            for uri in arrival.stream.uris():
                if uri in known:
                    return uri
            arrival.refused = CertificateError(
                "gateway: its certificate is of no gateway in the directory",
                remedy="have it signed, then install",
            )
        return ""

    def _serve(self, link: Link, gateway: str) -> None:
        try:
            while True:
                message = link.receive(None)
                link.send(self._answer(link, gateway, message))
        except ChannelError:  # it has left
            pass
        finally:
            with self._lock:
                self._links.discard(link)
            self._front.left(link)
            link.close()

    def _answer(self, link: Link, gateway: str, message: Message) -> Message:
        header: Mapping[str, Any] = message.header
        command = header.get("cmd")
        try:
            return self._command(link, gateway, str(command), header, message)
        except Exception as error:
            if not isinstance(error, MpcError):
                log.exception("%s in %s", type(error).__name__, str(command)[:16])
            said = failure(error)
            for key in ("code", "retry_after_s"):
                if (value := getattr(error, key, None)) is not None:
                    said[key] = value
            return Message(said)

    def _command(
        self, link: Link, gateway: str, command: str, header: Mapping[str, Any], message: Message
    ) -> Message:
        front, set_name = self._front, self._front.record.set
        match command:
            case "status":
                return Message(front.status())
            case "submit":
                parent = str(header.get("traceparent", ""))
                with (
                    metrics.timed("submit", set=set_name),
                    traces.span("submit", parent=parent or None, party=front.me, set=set_name),
                ):
                    job = front.jobs.submit(header, message.tensors.get("envelope"))
                metrics.held("envelopes", front.jobs.held_bytes)
                return Message({"ok": True, "job": job})
            case "run":
                attempt = header.get("attempt", 0)
                if type(attempt) is not int or attempt < 0:
                    raise InputError("an attempt is a number from 0", remedy="use one version everywhere")
                parent = str(header.get("traceparent", ""))
                return front.run(_triple(header), _names(header, "jobs"), attempt, link, parent)
            case "open":
                began = time.monotonic()
                timeout = min(float(header.get("timeout_s", OPEN_S)), OPEN_S)
                front.open(_triple(header), _names(header, "models"), timeout, link, gateway)
                return Message({"ok": True, "seconds": time.monotonic() - began})
            case "drop":
                return Message({"ok": True, "dropped": front.jobs.drop(_names(header, "jobs"))})
            case "abort":
                front.abort(_triple(header), gateway)
                return Message({"ok": True})
            case "close":
                front.end(_triple(header), link)
                return Message({"ok": True})
        raise ConfigError(f"unknown command {command[:32]!r}", remedy="use one version everywhere")


def _triple(header: Mapping[str, Any]) -> bytes:
    text = header.get("triple")
    if not isinstance(text, str) or len(text) != 32:
        raise InputError("a triple is named by 32 hexadecimal digits", remedy="use one version everywhere")
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InputError(
            "a triple is named by hexadecimal digits", remedy="use one version everywhere"
        ) from None


def _names(header: Mapping[str, Any], key: str) -> list[str]:
    names = header.get(key)
    if not isinstance(names, list) or len(names) > 4096 or not all(isinstance(n, str) for n in names):
        raise InputError(f"{key} is no list of names", remedy="use one version everywhere")
    return names
