"""The program of a slot: one party of one triple at a time, driven by the front over Unix sockets.

Two connections to the front. On *packets* come what may not wait for a computation:

    link    a connection: commands come on it          expect  which session's peers to let in, with which certificate
    peer    a peer's connection, not yet TLS           abort   give the triple up, whatever is being computed

On the *link* come commands, one at a time: ``open`` makes the party (channel to both peers, fresh seeds), ``close``
ends it, and ``load``, ``run``, ``stats`` … are the party's own (``mpc_ray.commands``). A slot whose front leaves ends;
one whose party failed answers errors until the front replaces it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpc_ray.channel import Link, Message
from mpc_ray.channel.hello import Kind, preamble
from mpc_ray.channel.reception import Reception, meet
from mpc_ray.channel.sockets import Packets, socket_link
from mpc_ray.commands import Party, executor_of, failure
from mpc_ray.errors import BadFrame, ChannelError, ConfigError, MpcError, PeerLost
from mpc_ray.party_settings import PartySettings, prepare_process
from mpc_ray.telemetry import logs, redact, traces
from mpc_ray.trust.certs import Identity

log = logging.getLogger("mpc_ray.endpoint.slot")

ROTATING_S = 2.0  # a certificate and its key are replaced one after the other
LOG_CHARACTERS = 4000
EXPECT_S = ROTATING_S + 3.0  # packets and commands come on two connections: `open` may overtake `expect`


def serve(path: Path, name: str, protocol: str, executor: str = "", trace_file: str = "") -> None:
    """Be the slot ``name`` of the front that listens at ``path`` until it leaves. ``OSError`` if it is not there."""
    settings = PartySettings(me=0, protocol=protocol, executor=executor)
    executor_of(settings)  # seconds of imports: not at `open`
    if not executor:
        from mpc_ray.kernels.warm import warm, warm_proofs

        warm()  # half a minute once a machine and release, then one second: `open` has a deadline
        if protocol == "malicious_3pc":
            warm_proofs()
    traces.setup("slot", file=Path(trace_file) if trace_file else None)
    control = Packets.dial(path)
    control.send({"slot": name})
    log_to(control)
    slot = Slot()
    try:
        while True:
            content, files = control.receive()
            slot.told(content, files)
    except (EOFError, OSError):  # the front has left, or lets go of this slot
        slot.abort("its front left")
    finally:
        control.close()


class ToFront(logging.Handler):
    """Log records as packets: the front has the log, whoever started this process."""

    def __init__(self, control: Packets) -> None:
        super().__init__()
        self._control = control

    def emit(self, record: logging.LogRecord) -> None:
        text = redact.message(record)[:LOG_CHARACTERS]
        if isinstance(record.exc_info, tuple) and isinstance(record.exc_info[1], BaseException):
            text += f" ({type(record.exc_info[1]).__name__})"
        with contextlib.suppress(OSError, BadFrame):  # the front has left: nobody to tell
            self._control.send({"level": record.levelno, "logger": record.name, "log": text})


def log_to(control: Packets) -> None:
    """From now on this process's log goes to the front."""
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(ToFront(control))
    root.setLevel(logging.INFO)


class Slot:
    """What ``serve`` drives: ``told`` from its thread, commands in another."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._reception: Reception | None = None
        self._session = ""
        self._party: Party | None = None
        self._me = 0

    def told(self, content: Mapping[str, Any], files: list[Any]) -> None:
        """One packet from the front. What cannot be done is logged: the command that needs it fails by its time-out."""
        try:
            match content.get("do"), files:
                case "link", [file]:
                    link = socket_link("front", file)
                    threading.Thread(target=self._work, args=(link,), name="slot", daemon=True).start()
                    return
                case "expect", []:
                    self._expect(content)
                    return
                case "peer", [file]:
                    reception = self._reception
                    if reception is not None and content.get("session") == self._session:
                        reception.receive(file, str(content.get("who")))
                        return
                case "abort", []:
                    self.abort("the triple was given up")
                    return
        except MpcError as error:
            log.error("%s", error)
        for file in files:
            file.close()

    def abort(self, why: str) -> None:
        """End the triple: waits for peers end at once, at all three parties."""
        reception, party = self._reception, self._party
        if reception is not None:
            reception.close()
        if party is not None:
            party.fail(PeerLost("gateway", why))

    def _expect(self, content: Mapping[str, Any]) -> None:
        files = {key: Path(str(value)) for key, value in content["identity"].items()}
        me = int(content["me"])
        identity = Identity(f"party-{me}", files["certificate"], files["key"], files["authority"])
        end = time.monotonic() + ROTATING_S
        while True:
            try:
                reception = Reception(
                    me,
                    identity,
                    place=str(content["place"]),
                    kinds=frozenset((Kind.PARTY,)),
                    uris=content["uris"],
                )
                break
            except ConfigError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        with self._lock:
            self._session, self._reception = str(content["session"]), reception
            self._lock.notify_all()

    def _work(self, link: Link) -> None:
        while True:
            try:
                message = link.receive(None)
            except ChannelError:  # the front has left: its packets end too
                return
            with contextlib.suppress(ChannelError):
                answer = self._answer(message)
                try:
                    link.send(answer)
                except MpcError as error:
                    link.send(Message(failure(error)))

    def _answer(self, message: Message) -> Message:
        try:
            match message.header.get("cmd"):
                case "open":
                    return self._open(message.header)
                case "close":
                    return self._close()
            if self._party is None:
                raise ConfigError("this slot holds no party", remedy="open a triple first")
        except Exception as error:  # noqa: BLE001 - the boundary of the slot's program
            if not isinstance(error, MpcError):
                log.error("%s in %s", type(error).__name__, str(message.header.get("cmd"))[:16])
            return Message(failure(error))
        if message.header.get("cmd") != "run":
            return self._party.answer(message)
        with traces.span(
            "party run", traces.parse(message.header.get("traceparent")), party=self._me
        ) as span:
            answer = self._party.answer(message)
            failed = answer.header.get("error")
            span.set(outcome=failed if isinstance(failed, str) else "ok")
        return answer

    def _open(self, header: Mapping[str, Any]) -> Message:
        settings = PartySettings.from_json(header["settings"])
        with self._lock:
            self._lock.wait_for(lambda: self._session == settings.session, EXPECT_S)
            reception, session = self._reception, self._session
        if reception is None or session != settings.session or self._party is not None:
            raise BadFrame("this slot was not told to expect this session", remedy="open a new triple")
        prepare_process(settings)
        addresses = [(str(host), int(port)) for host, port in header["addresses"]]
        channel = meet(
            reception,
            addresses,
            settings.hello,
            float(header["timeout_s"]),
            step_timeout=settings.step_timeout_s,
            preamble=preamble(bytes.fromhex(settings.session)),
        )
        try:
            self._party = Party(settings, channel)
        except BaseException as error:
            channel.fail(error)
            raise
        self._me = settings.me
        return Message({"ok": True, "pid": os.getpid()})

    def _close(self) -> Message:
        """Ready for another triple; the models' shares are let go of."""
        party, self._party = self._party, None
        with self._lock:
            reception, self._reception, self._session = self._reception, None, ""
        if reception is not None:
            reception.close()
        if party is not None:
            party.close()
        return Message({"ok": True})


def main() -> None:
    """A slot as a plain process, for machines without Ray: it ends when its front leaves."""
    parser = argparse.ArgumentParser(
        prog="mpc_ray.endpoint.slot", description="one slot; started by its host"
    )
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--protocol", required=True)
    parser.add_argument("--executor", default="")
    parser.add_argument("--trace-file", default="")
    given = parser.parse_args()
    logs.setup("slot")
    status = 0
    try:
        serve(given.socket, given.name, given.protocol, given.executor, given.trace_file)
    except OSError as error:
        log.error("the front is not there: %s", error.strerror)
        status = 1
    traces.shutdown()
    sys.stderr.flush()
    os._exit(status)  # a computation that was given up may still run in its thread


if __name__ == "__main__":
    main()
