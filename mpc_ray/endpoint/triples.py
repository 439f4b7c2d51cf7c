"""The triples that this party's slots are part of: opened, run, and ended for the gateway whose link they belong to.

A triple is never repaired. Whatever goes wrong ends its slot's process, which the peers see at once, and a fresh slot
takes its place. Each party computes the frame's job id of a run for itself, from the jobs and their order, so parties
that were given different batches refuse each other's first frame.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpc_ray.channel.packed import Message
from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.endpoint.dial import address_of
from mpc_ray.endpoint.jobs import Held, Jobs
from mpc_ray.endpoint.models import Models
from mpc_ray.endpoint.said import code_of, coded
from mpc_ray.endpoint.slots import Slot, Slots
from mpc_ray.endpoint.standing import Standing
from mpc_ray.errors import (
    ChannelError,
    CheatingDetected,
    InputError,
    ModelError,
    MpcError,
    PeerLost,
    Unavailable,
)
from mpc_ray.parcels import answers, join
from mpc_ray.party_settings import PartySettings
from mpc_ray.telemetry import metrics, traces
from mpc_ray.trust.canonical import bind

log = logging.getLogger("mpc_ray.endpoint.triples")

LOAD_S = 300.0
MEET_S = 60.0  # slots are warm: peers that were told to open the triple too are there within seconds
CLOSE_S = 5.0


@dataclass
class Triple:
    """One triple. ``owner`` is the link it was opened on; ``models`` what is loaded, name to digest."""

    name: bytes
    slot: Slot
    owner: object
    gateway: str
    models: dict[str, str] = field(default_factory=dict)
    busy: bool = True
    aborted: bool = False

    @property
    def id(self) -> str:
        """Its name in hex."""
        return self.name.hex()


class Triples:
    """All of them. Any thread may call any method."""

    def __init__(
        self, config: PartyConfig, standing: Callable[[], Standing], slots: Slots, models: Models, jobs: Jobs
    ) -> None:
        self._config, self._standing = config, standing
        self._slots, self._models, self._jobs = slots, models, jobs
        self._triples: dict[bytes, Triple] = {}
        self._ended: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._me = standing().me
        self._set = standing().set

    def open(
        self, name: bytes, models: Sequence[str], timeout_s: float, owner: object, gateway: str, parent: str
    ) -> None:
        """Be part of a triple: a slot meets the peers' slots, agrees on seeds and loads ``models``.

        The peers must be there within ``MEET_S``, so that a gateway that asks one party alone holds no slot for long.
        Raises what stands in the way: Unavailable without a free slot or where the gateway has its share of them,
        ModelError, PeerLost, HelloMismatch ….
        """
        began = time.monotonic()
        end = began + timeout_s
        for model in models:
            self._models.find(model)
        triple = self._begun(name, owner, gateway)
        try:
            if triple.aborted:
                raise _aborted()
            with traces.span("open", parent, set=self._set, party=self._me, triple=triple.id):
                self._meet(triple, min(timeout_s, MEET_S))
                for model in sorted(set(models)):  # all three in the same order, each once
                    self._load(triple, model, max(1.0, min(LOAD_S, end - time.monotonic())))
        except Exception as error:  # noqa: BLE001 - raised anew
            self._give_up(triple, code_of(error))
            raise self._reason(triple, error) from None
        if not self._rest(triple):
            raise _aborted()
        metrics.stage("open", time.monotonic() - began, set=self._set)

    def run(
        self, name: bytes, ids: Sequence[str], attempt: int, owner: object, gateway: str, parent: str
    ) -> Message:
        """One run of held jobs: each client's sealed answer, and what the run cost."""
        triple = self._taken(name, owner)
        try:
            held = self._jobs.take(ids, attempt, gateway, lambda job: _fits(triple, job))
        except BaseException:
            self._rest(triple)
            raise
        done = True
        try:
            with traces.span(
                "run",
                parent,
                set=self._set,
                party=self._me,
                jobs=len(held),
                attempt=attempt,
                triple=triple.id,
            ) as span:
                answer = self._computed(triple, held, attempt, span.traceparent)
            tensors = {
                f"answer {one}": job.sealed(said, self._me)
                for one, job, said in zip(ids, held, answers(answer), strict=True)
            }
        except Exception as error:  # noqa: BLE001 - raised anew
            # Who found something wrong never computes the same again: a second look could tell an attacker more.
            reason = self._reason(triple, error)
            done = isinstance(reason, CheatingDetected) or not (triple.aborted or isinstance(error, PeerLost))
            self._give_up(triple, code_of(reason))
            for _ in held:
                metrics.job(code_of(reason), set=self._set)
            raise reason from None
        finally:
            self._jobs.finished(ids, done=done)
        cost = {key: answer.header.get(key) for key in ("rounds", "bytes_sent", "seconds")}
        self._count(held, cost)
        self._rest(triple)
        worn = answer.header.get("worn") is True
        return Message({"ok": True, "jobs": list(ids), **cost, "worn": worn}, tensors)

    def abort(self, name: bytes, gateway: str) -> None:
        """Have what runs end at once, at all three parties, and the triple with it; from any link of its gateway."""
        with self._lock:
            triple = self._triples.get(name)
            if triple is None or triple.gateway != gateway:
                raise _unknown()
            triple.aborted = True
            busy = triple.busy
        if busy:
            triple.slot.packet({"do": "abort"})  # whoever waits for the slot gives the triple up
        else:
            self._give_up(triple, "aborted")

    def close(self, name: bytes, owner: object) -> None:
        """End a triple well: its slot is free again, or replaced where it does not answer."""
        self._end_well(self._taken(name, owner))

    def left(self, owner: object) -> None:
        """A gateway's link has ended, and with it its triples."""
        with self._lock:
            self._ended.add(owner)
            gone = [triple for triple in self._triples.values() if triple.owner is owner]
            idle = []
            for triple in gone:
                if triple.busy:
                    triple.aborted = True
                else:
                    triple.busy = True
                    idle.append(triple)
        for triple in gone:
            if triple in idle:
                self._end_well(triple)
            else:
                triple.slot.packet({"do": "abort"})

    def lost(self, slot: str) -> None:
        """A slot has left, and with it its triple; whoever waits for it hears so from its connection."""
        with self._lock:
            for name, triple in list(self._triples.items()):
                if triple.slot.name == slot and not triple.busy:
                    del self._triples[name]

    def _begun(self, name: bytes, owner: object, gateway: str) -> Triple:
        """A triple with a slot, if its gateway may hold one more."""
        others = len(self._standing().gateways - {gateway})
        most = self._config.limits.gateway_slots or max(1, self._config.slots - others)
        with self._lock:
            slot = self._slots.take(name)
            if sum(triple.gateway == gateway for triple in self._triples.values()) >= most:
                self._slots.give_back(slot)
                raise coded(
                    Unavailable(
                        f"{gateway} holds {most} of this party's slots already, its share of them",
                        remedy="close a triple, or ask the party for more slots or a larger limits.gateway_slots",
                        retry_after_s=2.0,
                    ),
                    "no_slot",
                )
            triple = Triple(name, slot, owner, gateway)
            triple.aborted = owner in self._ended
            self._triples[name] = triple
        return triple

    def _meet(self, triple: Triple, timeout_s: float) -> None:
        standing, config = self._standing(), self._config
        identity = standing.identity
        files = {"certificate": identity.certificate, "key": identity.key, "authority": identity.authority}
        expected = {
            "do": "expect",
            "session": triple.id,
            "me": self._me,
            "place": standing.records[self._me].peer,
            "identity": {name: str(path) for name, path in files.items()},
            "uris": standing.uris,
        }
        if not triple.slot.packet(expected):
            raise PeerLost(f"party {self._me}", "its slot was lost", remedy="open a new triple")
        settings = PartySettings(
            me=self._me,
            protocol=config.protocol,
            variant=config.variant,
            executor=config.executor,
            session=triple.id,
            digest=config.agreed().hex(),
            threads=config.threads,
            device=config.device,
            step_timeout_s=config.step_timeout_s,
        )
        header: dict[str, Any] = {
            "cmd": "open",
            "settings": settings.to_json(),
            "addresses": [list(address_of(record.peer)) for record in standing.records],
            "timeout_s": timeout_s,
        }
        triple.slot.ask(Message(header), timeout_s + CLOSE_S)

    def _load(self, triple: Triple, model: str, timeout_s: float) -> None:
        """Hand a model's share to the slot. One at a time is in our memory, and only until it is sent."""
        with self._reading:
            digest, message = self._models.message(model)
            job = _job("mpc-ray load", triple.name, model.encode(), bytes.fromhex(digest))
            triple.slot.tell(Message({**message.header, "job": job}, message.tensors))
            del message
        triple.slot.hear(timeout_s)
        triple.models[model] = digest

    def _computed(self, triple: Triple, held: Sequence[Held], attempt: int, parent: str) -> Message:
        first = held[0].authorisation
        digests = [job.authorisation.digest() for job in held]
        head: dict[str, Any] = {
            "cmd": "run",
            "model": first.model,
            "job": _job("mpc-ray batch", triple.name, *digests, bytes([attempt])),
            "attempt": attempt,
            "output": first.output,
            "range_check": first.range_check,
            "traceparent": parent,
        }
        message = join(head, [job.parcel for job in held])
        return triple.slot.ask(message, self._config.limits.run_timeout_s)

    def _count(self, held: Sequence[Held], cost: dict[str, Any]) -> None:
        first = held[0].authorisation
        for _ in held:
            metrics.job("ok", set=self._set)
        metrics.ran(
            set=self._set,
            rounds=int(cost["rounds"] or 0),
            bytes_sent=int(cost["bytes_sent"] or 0),
            jobs=len(held),
            rows=sum(job.authorisation.batch for job in held),
            length=first.length,
            seconds=float(cost["seconds"] or 0.0),
            model=first.model,
        )

    def _taken(self, name: bytes, owner: object) -> Triple:
        """A triple, busy from now on: one command at a time, on the link that it was opened on."""
        with self._lock:
            triple = self._triples.get(name)
            if triple is None or triple.owner is not owner:
                raise _unknown()
            if triple.aborted:
                raise _aborted()
            if triple.busy:
                raise coded(InputError("this triple is at work", remedy="wait for its answer"), "busy")
            triple.busy = True
        return triple

    def _rest(self, triple: Triple) -> bool:
        """A command has ended: the triple waits for the next. False, and it is given up, if it was aborted meanwhile,
        or its link has closed: nobody else would free its slot.
        """
        with self._lock:
            triple.busy = False
            aborted = triple.aborted
        if aborted:
            self._give_up(triple, "aborted")
        return not aborted

    def _end_well(self, triple: Triple) -> None:
        with self._lock:
            self._triples.pop(triple.name, None)
        try:
            triple.slot.ask(Message({"cmd": "close"}), CLOSE_S)
        except MpcError as error:
            log.warning("a slot did not close its triple, and is replaced: %s", error)
            self._slots.drop(triple.slot)
        else:
            self._slots.give_back(triple.slot)

    def _give_up(self, triple: Triple, reason: str) -> None:
        with self._lock:
            if self._triples.pop(triple.name, None) is None:
                return
        metrics.abort(reason, set=self._set)
        triple.slot.packet({"do": "abort"})  # peers see the channel's end before the process is gone
        self._slots.drop(triple.slot)

    def _reason(self, triple: Triple, error: Exception) -> Exception:
        """What the gateway is told. A check that failed is told even where an abort came first: who cheats could
        otherwise hide it, by answering with another error before the honest party has answered.
        """
        if isinstance(error, CheatingDetected):
            return error
        return _aborted() if triple.aborted and isinstance(error, MpcError) else error


def _fits(triple: Triple, job: Held) -> None:
    a = job.authorisation
    if triple.models.get(a.model) != a.model_digest:
        raise coded(
            ModelError(
                "this triple has not loaded the job's version of its model", remedy="open a new triple"
            ),
            "wrong_model",
        )


def _unknown() -> ChannelError:
    return coded(
        ChannelError("no such triple is open on this link", remedy="open a new one"), "unknown_triple"
    )


def _aborted() -> ChannelError:
    return coded(ChannelError("the triple was given up by its gateway", remedy="open a new one"), "aborted")


def _job(purpose: str, *parts: bytes) -> str:
    """A frame's job id: 16 bytes, hex, the same at parties that were given the same."""
    return hashlib.sha256(bind(purpose, *parts)).hexdigest()[:32]
