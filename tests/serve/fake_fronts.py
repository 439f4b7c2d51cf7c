"""Three fronts that speak the endpoint's commands over links within this process, compute nothing, and can fail.

A run waits, as a real one does, until all three parties run the same jobs of the same triple; then each answers with
bytes that name the job, itself and the attempt.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc_ray.channel.link import Link, Message, local_link
from mpc_ray.commands import failure
from mpc_ray.errors import AuthorisationError, ChannelError, MpcError, PeerLost, Unavailable
from mpc_ray.serve.interface import Answers, Job
from mpc_ray.serve.links import Front
from mpc_ray.trust.authorisation import Authorisation

MODEL = {"name": "mini", "digest": "ab" * 32, "lengths": [16, 32], "hidden": 8}


@dataclass
class Held:
    """A job at a party."""

    envelope: bytes
    runs: int = 0


class FakeFront:
    """Party ``index`` of ``FakeSet``. ``down`` refuses connections; the other fields say how it misbehaves."""

    def __init__(self, index: int, whole: FakeSet) -> None:
        self.index = index
        self.whole = whole
        self.instance = secrets.token_hex(8)
        self.models: list[dict[str, Any]] = [dict(MODEL)]
        self.jobs: dict[str, Held] = {}
        self.journal: set[str] = set()
        self.triples: dict[str, Link] = {}
        self.runs: list[tuple[str, list[str], int]] = []
        self.dropped: list[str] = []
        self.commands: list[str] = []
        self.down = False
        self.ready = True
        self.slots = 1
        self.protocol = "semi_honest_3pc"
        self.refuse: dict[str, MpcError] = {}  # by job
        self.fail_open: MpcError | None = None
        self.fail_runs: list[MpcError | None] = []  # one for each run to come
        self.silent_runs = 0
        self.slow_submit_s = 0.0
        self.worn = False
        self.links: list[Link] = []

    def dial(self, timeout: float) -> Link:
        """What a ``Front`` calls."""
        if self.down:
            raise PeerLost(f"party {self.index}", "not reached: connection refused", remedy="start it")
        ours, theirs = local_link(self.index)
        self.links.append(theirs)
        threading.Thread(target=self._serve, args=(theirs,), daemon=True).start()
        return ours

    def kill(self) -> None:
        """The process dies: its links close, what it held is gone, its journal is not."""
        self.down = True
        for link in self.links:
            link.close()
        self.links.clear()
        self.jobs.clear()
        for triple in list(self.triples):
            self._end(triple)

    def start(self) -> None:
        """Another process in its place."""
        self.instance = secrets.token_hex(8)
        self.down = False

    def lose_slot(self) -> None:
        """The slots die, the front and the jobs stay."""
        for triple in list(self.triples):
            self._end(triple)

    def _serve(self, link: Link) -> None:
        while True:
            try:
                message = link.receive(None)
                try:
                    answer = self._answer(message, link)
                except MpcError as error:
                    answer = Message(failure(error) | {"code": getattr(error, "code", "")})
                link.send(answer)
            except ChannelError:
                break
        for triple, owner in list(self.triples.items()):
            if owner is link:
                self._end(triple)

    def _answer(self, message: Message, link: Link) -> Message:
        header: dict[str, Any] = message.header
        self.commands.append(header["cmd"])
        match header["cmd"]:
            case "status":
                return Message(
                    {
                        "ok": True,
                        "party": self.index,
                        "set": "eu",
                        "version": "0",
                        "ready": self.ready,
                        "waiting": [] if self.ready else ["its store is being opened"],
                        "models": list(self.models),
                        "slots": {"total": self.slots, "free": self.slots - len(self.triples)},
                        "protocol": self.protocol,
                        "certificate_not_after": 4e9,
                        "instance": self.instance,
                    }
                )
            case "open":
                if self.fail_open is not None:
                    raise self.fail_open
                if len(self.triples) >= self.slots:
                    raise _coded(Unavailable("no slot is free"), "no_slot")
                self.triples[header["triple"]] = link
                return Message({"ok": True})
            case "submit":
                return self._submit(message)
            case "run":
                return self._run(header)
            case "drop":
                for job in header["jobs"]:
                    if self.jobs.pop(job, None):
                        self.dropped.append(job)
                return Message({"ok": True})
            case "abort" | "close":
                self._end(header["triple"])
                return Message({"ok": True})
        raise AssertionError(header["cmd"])

    def _submit(self, message: Message) -> Message:
        time.sleep(self.slow_submit_s)
        authorisation = Authorisation.from_json(message.header["authorisation"])
        job = authorisation.job
        if job in self.refuse:
            raise self.refuse[job]
        if job in self.journal:
            raise AuthorisationError("seen before", code="replayed")
        self.journal.add(job)
        self.jobs[job] = Held(message.tensors["envelope"].tobytes())
        return Message({"ok": True, "job": job})

    def _run(self, header: dict[str, Any]) -> Message:
        triple, jobs, attempt = header["triple"], header["jobs"], header["attempt"]
        if triple not in self.triples:
            raise _coded(ChannelError("no such triple here"), "unknown_triple")
        if missing := [job for job in jobs if job not in self.jobs]:
            raise _coded(Unavailable(f"{len(missing)} jobs are not held here"), "unknown_job")
        if attempt > 1 or any(self.jobs[job].runs > attempt for job in jobs):
            raise _coded(Unavailable("another attempt was expected"), "attempt")
        self.runs.append((triple, list(jobs), attempt))
        for job in jobs:
            self.jobs[job].runs = attempt + 1
        fault = self.fail_runs.pop(0) if self.fail_runs else None
        if fault is not None:
            self._end(triple)
            self.whole.over(triple)
            raise fault
        if self.silent_runs:
            self.silent_runs -= 1
            self.whole.ended.setdefault(triple, threading.Event()).wait(20)
            raise _coded(ChannelError("stopped by its gateway"), "aborted")
        if not self.whole.meet(triple, self.index, (tuple(jobs), attempt)):
            if triple not in self.triples:
                raise _coded(ChannelError("stopped by its gateway"), "aborted")
            self._end(triple)
            raise PeerLost("party 9", "lost, as a party reports")
        tensors = {
            f"answer {job}": np.frombuffer(f"{job} {self.index} {attempt}".encode(), np.uint8) for job in jobs
        }
        for job in jobs:
            del self.jobs[job]
        return Message({"ok": True, "jobs": jobs, "rounds": 7, "bytes_sent": 99, "worn": self.worn}, tensors)

    def _end(self, triple: str) -> None:
        self.triples.pop(triple, None)
        self.whole.over(triple)


@dataclass
class FakeSet:
    """Three fronts and what happens between them. ``seconds``: how long a run takes."""

    seconds: float = 0.02
    parties: list[FakeFront] = field(default_factory=list)
    ended: dict[str, threading.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parties = [FakeFront(i, self) for i in range(3)]
        self._change = threading.Condition()
        self._here: dict[tuple[str, Any], set[int]] = {}
        self._over: set[str] = set()

    def fronts(self) -> list[Front]:
        """For a ``TripleLeader``."""
        return [Front(party.index, party.dial) for party in self.parties]

    def meet(self, triple: str, party: int, what: Any) -> bool:
        """Wait until three parties of a triple run the same; False when the triple ends first."""
        with self._change:
            here = self._here.setdefault((triple, what), set())
            here.add(party)
            self._change.notify_all()
            self._change.wait_for(lambda: len(here) == 3 or triple in self._over, 20)
            whole = len(here) == 3 and triple not in self._over
        time.sleep(self.seconds if whole else 0)
        return whole and triple not in self._over

    def over(self, triple: str) -> None:
        """A party left the triple: nobody goes on."""
        with self._change:
            self._over.add(triple)
            self.ended.setdefault(triple, threading.Event()).set()
            self._change.notify_all()


def authorisation(**changed: Any) -> Authorisation:
    """One that a client may sign now."""
    now = int(time.time() * 1000)
    fields: dict[str, Any] = {
        "job": secrets.token_hex(16),
        "federation": "fed",
        "set": "eu",
        "client": "cd" * 16,
        "model": MODEL["name"],
        "model_digest": MODEL["digest"],
        "protocol": "semi_honest_3pc",
        "batch": 1,
        "length": 16,
        "output": "embedding",
        "range_check": True,
        "purpose": "search",
        "jurisdictions": (),
        "retention": "job",
        "issued_ms": now,
        "expires_ms": now + 30_000,
        "inputs": ("00" * 32,) * 3,
    }
    return Authorisation(**(fields | changed))


def job(timeout_s: float = 10.0, **changed: Any) -> Job:
    """A request as the gateway hands it over."""
    made = authorisation(**changed)
    return Job(made.to_json(), bytes(64), (b"e0" * 9, b"e1" * 9, b"e2" * 9), timeout_s)


def check(asked: Job, answers: Answers) -> int:
    """That the answers are those of ``asked``, each from its own party; the attempt that gave them."""
    attempts = set()
    for party, sealed in enumerate(answers.sealed):
        name, index, attempt = sealed.decode().split()
        assert (name, int(index)) == (asked.id, party)
        attempts.add(int(attempt))
    assert answers.job == asked.id
    (attempt,) = attempts
    return attempt


def _coded(error: MpcError, code: str) -> MpcError:
    error.code = code  # type: ignore[attr-defined]
    return error
