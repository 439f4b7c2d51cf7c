"""The leader of one set's triples, on the gateway's side: sealed jobs in, batches at three parties, sealed answers out.

A job goes to the three parties' fronts as soon as it comes, also while the triple computes; each party decides for
itself whether to take it. What all three took waits in the batcher and runs with others of its kind. A party that is
lost ends the triple: a fresh one is opened with fresh seeds, and the batch that was lost runs once more on it, if the
parties still hold its jobs. Everything here is sealed to somebody else or public.

Ready means that a triple is open. While none is, ``infer`` says when to come back, the fronts are asked about once a
second how they are, and a triple is opened as soon as all three can, with growing pauses between failures.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc_ray.channel.link import JSON, Message
from mpc_ray.errors import AuthorisationError, ChannelError, DeadlineExceeded, MpcError, Refused, Unavailable
from mpc_ray.serve.batching import Batcher, Waiting
from mpc_ray.serve.fleet import Fleet
from mpc_ray.serve.interface import Answers, Job, Three
from mpc_ray.serve.links import Backoff, Front
from mpc_ray.serve.one_triple import OneTriple, Ran, RunFailed, open_triple
from mpc_ray.serve.settings import TripleSettings
from mpc_ray.telemetry import metrics, traces
from mpc_ray.trust.authorisation import Authorisation

log = logging.getLogger("mpc_ray.serve.triple")

_CLOCKS_S = 5.0  # how far a client's clock may be off before its expiry shortens our patience
_POLL_S = 0.1
_RETRY_DOWN_S = 2.0


@dataclass(frozen=True)
class Queued:
    """What the batcher knows of a job: its id and its trace. The envelopes are at the parties by then."""

    job: str
    traceparent: str = ""


@dataclass(frozen=True)
class Done:
    """What a batch gave one of its jobs."""

    sealed: Three = field(repr=False)
    timing: Mapping[str, float]


Batch = list[Waiting[Queued, Done]]


class TripleLeader:
    """A ``Triples`` of the set ``set_name`` over three ``fronts``. All methods belong to one event loop.

    ``models`` limits what is loaded; empty: all that the three parties share under the same digest.
    """

    def __init__(
        self,
        set_name: str,
        fronts: Sequence[Front],
        *,
        models: Iterable[str] = (),
        settings: TripleSettings | None = None,
    ) -> None:
        self.set = set_name
        self.settings = settings or TripleSettings()
        self.counts = dict.fromkeys(("jobs", "batches", "aborts", "reruns", "rounds", "bytes"), 0)
        every = self.settings.status_every_s
        self.fleet = Fleet(set_name, fronts, frozenset(models), every_s=every, on_lost=self._party_lost)
        self._batcher: Batcher[Queued, Done] = Batcher(self.settings.batch)
        self._open: dict[str, OneTriple] = {}
        self._renewing = 0  # triples that were ended for a new one without having failed
        self._here: set[str] = set()  # jobs between submission and answer
        self._running: set[str] = set()
        self._interrupted: list[Batch] = []  # lost with their triple, to be run once more
        self._tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[Any]] = set()
        self._patience: asyncio.TimerHandle | None = None
        self._tried = asyncio.Event()
        self._why = "no triple has been opened yet"

    @property
    def ready(self) -> bool:
        """Whether jobs are taken: a triple is open, or is just being replaced by a newer one."""
        return bool(self._open or self._renewing)

    async def start(self, wait_s: float = 30.0) -> None:
        """Begin to watch the parties and to open triples; returns when the first is open or has failed to open, after
        ``wait_s`` seconds at most. Raises nothing: parties that are not up yet are waited for in the background.
        """
        if self._tasks:
            return
        await self.fleet.look()
        leading = (self._lead() for _ in range(self.settings.triples))
        self._tasks = [asyncio.create_task(work) for work in (self.fleet.watch(), *leading)]
        try:
            async with asyncio.timeout(wait_s):
                await self._tried.wait()
        except TimeoutError:
            log.warning("set %s: no triple within %g s: %s", self.set, wait_s, self._why)

    async def stop(self, wait_s: float = 30.0) -> None:
        """Take no more jobs, let those that were taken finish for up to ``wait_s``, close everything."""
        try:
            async with asyncio.timeout(wait_s):
                await self._batcher.drain()
        except TimeoutError:
            self._refuse_waiting("the gateway stopped before the job was run")
        for task in (*self._tasks, *self._background):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._background, return_exceptions=True)
        self._tasks = []
        for front in self.fleet.fronts:
            front.close()

    async def infer(self, job: Job) -> Answers:
        """Submit, queue and run one job. As ``Triples.infer`` says; cancelling it drops the job at the parties."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked = Authorisation.from_json(dict(job.authorisation))
        expires_s = asked.expires_ms / 1000 - time.time() + _CLOCKS_S
        deadline = began + min(job.timeout_s, max(0.0, expires_s))
        self._check(asked)
        with self._once(asked.job), self._batcher.place() as place:
            sending = asyncio.ensure_future(self._submit(job, deadline))
            answered = False
            try:
                with metrics.timed("submit", set=self.set):
                    await self._submitted(sending, deadline)
                submit_s = loop.time() - began
                key = (asked.model, asked.length, asked.output, asked.range_check)
                queued = Queued(asked.job, job.traceparent)
                tokens = asked.batch * asked.length
                metrics.queue(self._batcher.waiting + 1, set=self.set)
                done = await place.compute(queued, key, tokens, deadline)
                answered = True
            finally:
                if not answered and asked.job not in self._running:
                    self._later(self._forget(asked.job, sending))
        self.counts["jobs"] += 1
        return Answers(asked.job, done.sealed, self.set, {"submit_s": submit_s, **done.timing})

    async def status(self) -> Mapping[str, Any]:
        """As ``Triples.status`` says, from what is known here; ``why`` says why it is not ready, ``differing`` which
        models are not the same at all three, ``counts`` what was done.
        """
        states = self.fleet.parties
        return {
            "set": self.set,
            "ready": self.ready,
            "why": "" if self.ready else self._why,
            "queue": self._batcher.waiting,
            "triples": len(self._open),
            "models": list(self.fleet.models.values()),
            "differing": sorted(self.fleet.differing),
            "parties": [
                {
                    "party": state.party,
                    "ready": state.ready,
                    "version": state.version,
                    "certificate_not_after": state.certificate_not_after,
                    "why": state.why,
                }
                for state in states
            ],
            "counts": dict(self.counts),
        }

    # --- one job, before it is queued ---

    def _check(self, asked: Authorisation) -> None:
        if asked.set != self.set:
            raise Refused(
                f"the job is sealed to set {asked.set}, this is {self.set}",
                remedy="send it to the set it is sealed to",
                code="wrong_set",
            )
        if not self.ready:
            raise self._unavailable(self._why)
        model = self.fleet.models.get(asked.model)
        if model is None or model["digest"] != asked.model_digest:
            known = ", ".join(self.fleet.models) or "none"
            raise Refused(
                f"the three parties of set {self.set} do not hold that model in that version",
                remedy=f"models here: {known}; fetch the model's current bundle",
                code="unknown_model",
            )

    @contextmanager
    def _once(self, job: str) -> Any:
        """One job id is under way once: else the second's end would drop the first's at the parties."""
        if job in self._here:
            raise AuthorisationError(
                "the job is being computed already", remedy="sign a new job for a new request", code="replayed"
            )
        self._here.add(job)
        try:
            yield
        finally:
            self._here.discard(job)

    async def _submit(self, job: Job, deadline: float) -> list[Message | BaseException]:
        """Each party's answer to the submission, or its error."""
        header: dict[str, JSON] = {
            "cmd": "submit",
            "authorisation": dict(job.authorisation),
            "signature": base64.b64encode(job.signature).decode(),
        }
        left = deadline - asyncio.get_running_loop().time()
        timeout = max(0.0, min(self.settings.submit_timeout_s, left))
        with traces.span("submit", parent=job.traceparent or None, job=job.id, set=self.set) as span:
            header["traceparent"] = span.traceparent
            asked = (
                front.submit(header, {"envelope": np.frombuffer(envelope, np.uint8)}, timeout=timeout)
                for front, envelope in zip(self.fleet.fronts, job.envelopes, strict=True)
            )
            return await asyncio.gather(*asked, return_exceptions=True)

    async def _submitted(self, sending: asyncio.Future[list[Message | BaseException]], deadline: float) -> None:
        """Wait until all three took the job. A party's refusal counts before another's silence."""
        try:
            async with asyncio.timeout_at(deadline):
                outcomes = await asyncio.shield(sending)
        except TimeoutError:
            raise DeadlineExceeded(
                "the parties had not taken the job at its deadline", remedy="allow more time"
            ) from None
        errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        refusals = [error for error in errors if isinstance(error, MpcError) and not isinstance(error, ChannelError)]
        if refusals:
            raise refusals[0]
        if errors:
            raise self._unavailable(errors[0].cause if isinstance(errors[0], MpcError) else type(errors[0]).__name__)

    async def _forget(self, job: str, sending: asyncio.Future[list[Message | BaseException]]) -> None:
        """Drop a job where it was taken, once its submission has ended; what cannot be dropped expires there."""
        outcomes = await sending
        took = [party for party, outcome in enumerate(outcomes) if isinstance(outcome, Message)]
        await self._drop([job], took)

    async def _drop(self, jobs: Sequence[str], parties: Iterable[int] = range(3)) -> None:
        header: dict[str, JSON] = {"cmd": "drop", "jobs": list(jobs)}
        asked = (self.fleet.fronts[party].submit(header, timeout=5.0) for party in parties)
        await asyncio.gather(*asked, return_exceptions=True)

    # --- one triple's life ---

    async def _lead(self) -> None:
        """Open a triple, use it until it ends, and again, for ever."""
        backoff = Backoff(0.2, 5.0)
        while True:
            triple = await self._fresh(backoff)
            try:
                await self._use(triple)
            finally:
                self._open.pop(triple.id, None)
                await triple.close()

    async def _fresh(self, backoff: Backoff) -> OneTriple:
        """The next triple, however long it takes."""
        renewing = bool(self._renewing)
        while True:
            pause = _POLL_S
            if self.fleet.ready and self.fleet.models:
                try:
                    with metrics.timed("open", set=self.set):
                        triple = await open_triple(
                            self.fleet.fronts, self.fleet.digests(), timeout=self.settings.open_timeout_s
                        )
                    break
                except MpcError as error:
                    self._why, pause = error.cause, backoff.failed()
                    log.warning("set %s: no triple: %s", self.set, error)
            else:
                self._why = self.fleet.why_not()
            self._renewing -= renewing
            renewing = False
            self._tried.set()
            await asyncio.sleep(pause)
        backoff.succeeded()
        self._renewing -= renewing
        self._open[triple.id] = triple
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._tried.set()
        log.info("set %s: a triple is open with %d models", self.set, len(triple.models))
        return triple

    async def _use(self, triple: OneTriple) -> None:
        """Run batches until the triple fails, its parties are lost, its keys are worn or its models are stale."""
        while self._interrupted:
            batch = [waiting for waiting in self._interrupted[0] if not waiting.done.done()]
            if batch and not await self._run(triple, batch, 1):
                return
            if not batch:
                self._batcher.finished(self._interrupted.pop(0), 0.0)
        while True:
            batch = await self._next(triple)
            if not batch or not await self._run(triple, batch, 0):
                return

    async def _next(self, triple: OneTriple) -> Batch:
        """The next batch; empty when the triple should be replaced first."""
        taking = asyncio.ensure_future(self._batcher.take())
        ending = asyncio.ensure_future(triple.over.wait())
        try:
            await asyncio.wait({taking, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ending.cancel()
            taking.cancel()  # nothing happens where it is done
        return taking.result() if taking.done() else []
