"""The front of a party: its two ports, its keys and policy, and the triples that its slots are part of.

No Ray and no secret arithmetic here. Peers' connections are handed to the slot of their session before TLS; gateways'
commands are answered by ``gateways.py``. Addresses and names of peers come from this party's own signed directory and
from nowhere else.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import mpc_ray
from mpc_ray.channel.hello import preamble, session_of
from mpc_ray.channel.listener import Port
from mpc_ray.channel.packed import Message
from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.endpoint.dial import address_of
from mpc_ray.endpoint.folder import Papers
from mpc_ray.endpoint.hosting import Hosting, sweep
from mpc_ray.endpoint.jobs import Jobs
from mpc_ray.endpoint.slots import Slot, Slots
from mpc_ray.endpoint.store import ModelInfo, ModelStore
from mpc_ray.errors import ConfigError, HelloMismatch, InputError, MpcError
from mpc_ray.models.plan import EncoderPlan
from mpc_ray.models.record import from_record
from mpc_ray.parcels import answers, join
from mpc_ray.party_settings import PartySettings
from mpc_ray.telemetry import metrics, traces
from mpc_ray.trust.replay import ReplayJournal, time_ms

log = logging.getLogger("mpc_ray.endpoint.front")

PREAMBLE_BYTES = len(preamble(bytes(16)))
PREAMBLE_S = 5.0
MAX_PREAMBLES = 64
LOAD_S = 300.0
CLOSE_S = 5.0
LONGEST_BASE = 18  # what Ray's socket paths, of at most 107 bytes, leave for the temporary folder


@dataclass
class Triple:
    """One triple that a slot of ours is part of; ``owner`` is the link of the gateway that opened it."""

    name: bytes
    slot: Slot
    owner: object
    gateway: str


class Front:
    """One party endpoint, listening and serving until ``close``. Raises what is wrong with its settings or folder.

    ``fatal`` is set, with ``error``, when it cannot go on.
    """

    def __init__(self, config: PartyConfig) -> None:
        self.config = config
        self.error: MpcError | None = None
        self.fatal = threading.Event()
        self.instance = secrets.token_hex(8)
        self.papers = Papers(config.folder)
        self.record = self.papers.record
        self.me = self.record.index
        self._only = _alone(config.folder)
        self._home = _home(config.folder)
        self.slots = Slots(self.me, self._home / "slots", self._lost)
        self.store = ModelStore(config.folder)
        self._plans: dict[str, tuple[str, EncoderPlan]] = {}
        self._planning = threading.Lock()
        self.jobs = Jobs(
            self.me,
            lambda: self.papers.standing,
            self.papers.clients,
            ReplayJournal(config.folder / "journal.sqlite"),
            config.policy,
            self.plan_of,
            held_bytes=config.limits.held_bytes,
            envelope_bytes=config.limits.envelope_bytes,
        )
        self._triples: dict[bytes, Triple] = {}
        self._lock = threading.Lock()
        self._arriving = 0
        self.hosting: Hosting | None = None
        self.peer_port = Port(config.peer.host, config.peer.port, self._peer, f"peers of party {self.me}")
        try:
            self.hosting = Hosting(config, self.record.place, self.me, self._home, self.slots, self._fatal)
        except BaseException:
            self.peer_port.close()
            raise

    # -- what the gateway's commands do ----------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """All that a gateway may know of this party without a triple."""
        total, free = self.slots.counts()
        return {
            "ok": True,
            "party": self.me,
            "set": self.record.set,
            "version": mpc_ray.__version__,
            "ready": not self.waiting(),
            "waiting": self.waiting(),
            "models": [
                {"name": m.name, "digest": m.digest, "lengths": list(m.lengths), "hidden": m.hidden}
                for m in self.models()
            ],
            "slots": {"total": total, "free": free},
            "protocol": self.config.protocol,
            "certificate_not_after": int(self.papers.not_after),
            "time_ms": time_ms(),
            "instance": self.instance,
        }

    def waiting(self) -> list[str]:
        """What this party waits for before it can be part of a triple."""
        total, _ = self.slots.counts()
        waits = [] if total else [f"slots ({'Ray is starting' if self.config.host == 'ray' else 'starting'})"]
        return waits + ([] if self.models() else ["a model: mpc-ray model import FILE --party FOLDER"])

    def models(self) -> list[ModelInfo]:
        """What is in the store."""
        return self.store.list()

    def plan_of(self, name: str) -> tuple[str, EncoderPlan]:
        """A model's digest and public plan, read once for each version."""
        digest = self.store.info(name).digest
        with self._planning:
            known = self._plans.get(name)
            if known is None or known[0] != digest:
                self._plans[name] = known = (digest, _plan(self.store.message(name)))
            return known

    def open(self, name: bytes, models: Sequence[str], timeout_s: float, owner: object, gateway: str) -> None:
        """Be part of a triple: a slot meets the peers' slots, agrees on seeds and loads ``models``."""
        began = time.monotonic()
        infos = {one: self.store.info(one) for one in models}
        slot = self.slots.take(name)
        triple = Triple(name, slot, owner, gateway)
        with self._lock:
            self._triples[name] = triple
        identity = self.papers.identity
        settings = PartySettings(
            me=self.me,
            protocol=self.config.protocol,
            executor=self.config.executor,
            session=name.hex(),
            digest=self.config.agreed().hex(),
            threads=self.config.threads,
            device=self.config.device,
            step_timeout_s=self.config.step_timeout_s,
        )
        try:
            standing = self.papers.standing
            slot.packet(
                {
                    "do": "expect",
                    "session": name.hex(),
                    "me": self.me,
                    "place": self.record.peer,
                    "identity": {
                        "certificate": str(identity.certificate),
                        "key": str(identity.key),
                        "authority": str(identity.authority),
                    },
                    "uris": {
                        r.name: r.uri(standing.federation) for r in standing.records if r.index != self.me
                    },
                }
            )
            addresses = [list(address_of(record.peer)) for record in standing.records]
            ask: dict[str, Any] = {
                "cmd": "open",
                "settings": settings.to_json(),
                "addresses": addresses,
                "timeout_s": timeout_s,
            }
            slot.ask(Message(ask), timeout_s + CLOSE_S)
            for one in infos:
                self.plan_of(one)
                message = self.store.message(one)
                job = hashlib.sha256(b"mpc-ray load|" + name + one.encode()).hexdigest()[:32]
                slot.ask(Message({**message.header, "model": one, "job": job}, message.tensors), LOAD_S)
        except BaseException as error:
            self._give_up(triple, "open" if isinstance(error, MpcError) else "fault")
            raise
        metrics.stage("open", time.monotonic() - began, set=self.record.set)

    def run(self, name: bytes, ids: Sequence[str], attempt: int, owner: object, parent: str) -> Message:
        """One run of held jobs on a triple: each client's sealed answer, and what the run cost."""
        triple = self._owned(name, owner)
        held = self.jobs.take(ids, attempt)
        done = False
        try:
            model, _, output, range_check = held[0].kind
            bound = b"".join(job.authorisation.digest() for job in held)
            job = hashlib.sha256(b"mpc-ray batch|" + name + bytes([attempt]) + bound).hexdigest()[:32]
            head = {"cmd": "run", "model": model, "job": job, "attempt": attempt, "output": output}
            message = join({**head, "range_check": range_check}, [one.parcel for one in held])
            with traces.span(
                "party run", parent=parent or None, party=self.me, set=self.record.set, jobs=len(held)
            ):
                answer = triple.slot.ask(message, self.config.limits.run_timeout_s)
            tensors = {
                f"answer {one}": job_held.sealed(said, self.me)
                for one, job_held, said in zip(ids, held, answers(answer), strict=True)
            }
            done = True
        except BaseException:
            self._give_up(triple, "run")
            raise
        finally:
            self.jobs.finished(ids, done=done)
        cost = {key: answer.header.get(key) for key in ("rounds", "bytes_sent", "seconds", "worn")}
        return Message({"ok": True, "jobs": list(ids), **cost}, tensors)

    def abort(self, name: bytes, gateway: str) -> None:
        """Have a run end at once, at all three parties."""
        with self._lock:
            triple = self._triples.get(name)
        if triple is None or triple.gateway != gateway:
            raise _unknown_triple()
        triple.slot.packet({"do": "abort"})

    def end(self, name: bytes, owner: object) -> None:
        """Close a triple well: its slot is free again, or replaced where it does not answer."""
        triple = self._owned(name, owner)
        with self._lock:
            self._triples.pop(name, None)
        try:
            triple.slot.ask(Message({"cmd": "close"}), CLOSE_S)
        except MpcError:
            self.slots.drop(triple.slot)
        else:
            self.slots.give_back(triple.slot)

    def left(self, owner: object) -> None:
        """A gateway's link has ended, and with it its triples."""
        with self._lock:
            gone = [t for t in self._triples.values() if t.owner is owner]
        for triple in gone:
            self._give_up(triple, "gateway_left")

    def close(self) -> None:
        """End everything: ports, slots, the host and its Ray."""
        self.peer_port.close()
        if self.hosting is not None:
            self.hosting.close()
        self.slots.close()
        self.papers.close()
        shutil.rmtree(self._home, ignore_errors=True)
        self._only.close()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _owned(self, name: bytes, owner: object) -> Triple:
        with self._lock:
            triple = self._triples.get(name)
        if triple is None or triple.owner is not owner:
            raise _unknown_triple()
        return triple

    def _give_up(self, triple: Triple, reason: str) -> None:
        """A triple is never repaired: its slot is ended, which peers see at once, and a fresh one takes its place."""
        with self._lock:
            self._triples.pop(triple.name, None)
        metrics.abort(reason, set=self.record.set)
        triple.slot.packet({"do": "abort"})
        self.slots.drop(triple.slot)

    def _lost(self, slot: str) -> None:
        if self.hosting is not None:
            self.hosting.lost(slot)

    def _fatal(self, error: MpcError) -> None:
        self.error = error
        self.fatal.set()

    def _peer(self, sock: socket.socket, who: str) -> None:
        """A connection to the peer port: routed in a thread of its own, by its preamble."""
        with self._lock:
            if self._arriving >= MAX_PREAMBLES:
                sock.close()
                return
            self._arriving += 1
        threading.Thread(target=self._route, args=(sock, who), name="preamble", daemon=True).start()

    def _route(self, sock: socket.socket, who: str) -> None:
        try:
            end = time.monotonic() + PREAMBLE_S
            data = b""
            while len(data) < PREAMBLE_BYTES:
                sock.settimeout(max(0.01, end - time.monotonic()))
                part = sock.recv(PREAMBLE_BYTES - len(data))
                if not part:
                    return
                data += part
            session = session_of(data, who)
            slot = self.slots.of(session)
            if slot is not None:  # else hang up: the dialler tries again until its deadline
                slot.packet({"do": "peer", "session": session.hex(), "who": who}, (sock,))
        except (OSError, HelloMismatch):  # a stranger, or one who left
            pass
        finally:
            sock.close()
            with self._lock:
                self._arriving -= 1


def _plan(message: Message) -> EncoderPlan:
    header: Mapping[str, Any] = message.header
    tables = {k.removeprefix("public/"): v for k, v in message.tensors.items() if k.startswith("public/")}
    tables.pop("sharing", None)
    return from_record(header["record"], tables)


def _unknown_triple() -> MpcError:
    error = InputError("no such triple of this link", remedy="open one")
    error.code = "unknown_triple"  # type: ignore[attr-defined]
    return error


def _alone(folder: Path) -> TextIO:
    """A lock that says: this party runs. ConfigError if another process has it."""
    file = (folder / "party.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ConfigError(
            f"another mpc-ray party runs on {folder}", remedy="stop it, or give this one a folder of its own"
        ) from None
    return file


def _home(folder: Path) -> Path:
    """A private folder with a short path; what an earlier front of the same party left behind is swept up first."""
    mark = "m" + hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:6]
    base = Path(tempfile.gettempdir())
    base = base if len(str(base)) <= LONGEST_BASE else Path("/tmp")
    for old in base.glob(f"{mark}????????"):
        for host in old.glob("h*"):
            sweep(str(host))
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=mark, dir=base))
