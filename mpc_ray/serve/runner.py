"""What a set's leader does with its triples: opens them, runs batches on them one after another, replaces them.

A triple that fails is closed and a fresh one is opened with fresh seeds; the batch that was lost with it runs once
more if that is allowed (``one_triple``, and the set's protocol), on the first triple that is free: another that is
open, or else the fresh one.
Where none is open jobs wait for ``patience_s``, then their callers are told to come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

from mpc_ray.dispatch.seen import Seen
from mpc_ray.errors import CheatingDetected, MpcError
from mpc_ray.serve.batching import Batcher, Waiting
from mpc_ray.serve.fleet import Fleet
from mpc_ray.serve.links import Backoff
from mpc_ray.serve.one_triple import OneTriple, Ran, RunFailed, open_triple
from mpc_ray.serve.queued import Batch, Done, Queued, unavailable
from mpc_ray.serve.submit import drop
from mpc_ray.serve.triple_settings import TripleSettings
from mpc_ray.telemetry import metrics, traces

log = logging.getLogger("mpc_ray.serve.triple")

_POLL_S = 0.25


class Runner:
    """Leads ``settings.triples`` triples of ``fleet`` on what ``batcher`` has. All methods belong to one event loop.

    ``why``: why there is no triple, or why the last one ended. ``running``: jobs that a party may be computing.
    ``distrusted``: which check of these parties failed; there is never a triple of them again.
    """

    def __init__(self, fleet: Fleet, batcher: Batcher[Queued, Done], settings: TripleSettings) -> None:
        self.why = "no triple has been opened yet"
        self.distrusted = ""
        self.counts = dict.fromkeys(("jobs", "batches", "aborts", "reruns", "rounds", "bytes_sent"), 0)
        self.running: set[str] = set()
        self.seen = Seen()
        self.open: dict[str, OneTriple] = {}
        self.tried = asyncio.Event()
        self._fleet = fleet
        self._set = fleet.set
        self._batcher = batcher
        self._settings = settings
        self._renewing = 0  # triples that ended without having failed, and are replaced now
        self._interrupted: list[Batch] = []  # lost with their triple, to be run once more
        self._interruption = asyncio.Event()  # whether there are any
        self._patience: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[None]] = set()
        fleet.on_lost = self.party_lost
        fleet.on_models = self.models_changed

    @property
    def ready(self) -> bool:
        """Whether jobs may come: a triple is open, or is just being replaced by a newer one."""
        return not self.distrusted and bool(self.open or self._renewing)

    async def lead(self) -> None:
        """Open a triple, use it until it ends, and again, for ever."""
        backoff = Backoff(0.2, 5.0)
        renewing = False
        while True:
            triple = await self._fresh(backoff, renewing)
            renewing = False
            try:
                renewing = await self._use(triple)
            finally:
                self._ended(triple, renewing)
                if not triple.lost:
                    await triple.close()
                triple.cut()

    async def _fresh(self, backoff: Backoff, renewing: bool) -> OneTriple:
        """The next triple, however long it takes. ``renewing``: the one before has not failed, jobs are still taken."""
        while True:
            pause = _POLL_S
            try:
                if self.distrusted:
                    raise unavailable(self.distrusted)
                await self._fleet.look()  # a try too soon would cost the parties that are ready their slots
                if why_not := self._fleet.why_not():
                    raise unavailable(why_not)
                pause = backoff.failed()
                with metrics.timed("open", set=self._set), traces.span("open", set=self._set):
                    triple = await open_triple(
                        self._fleet.fronts, self._fleet.digests(), timeout=self._settings.open_timeout_s
                    )
            except MpcError as error:
                if error.cause != self.why:
                    log.warning("set %s: no triple: %s", self._set, error.cause)
                self.why = error.cause
                self._renewing -= renewing
                renewing = False
                self.tried.set()
                await asyncio.sleep(pause)
                continue
            backoff.succeeded()
            self._renewing -= renewing
            self.open[triple.id] = triple
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
            self.why = ""
            self.tried.set()
            log.info("set %s: a triple is open with %d models", self._set, len(triple.models))
            return triple

    def _ended(self, triple: OneTriple, renewing: bool) -> None:
        """A triple is of no use any more. Whoever waits is given a while in which another may be opened."""
        self.open.pop(triple.id, None)
        self._renewing += renewing
        if not self.open and self._patience is None:
            self.why = self.why or "a triple was lost and another is being opened"
            late = "no triple could be opened in time after one was lost"
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(self._settings.patience_s, self.give_up, late)

    async def _use(self, triple: OneTriple) -> bool:
        """Run batches until the triple fails or should be replaced. Returns whether it ended well."""
        while not triple.over.is_set():
            if self._interrupted:
                batch, attempt = self._resumed(), 1
            else:
                batch, attempt = await self._next(triple), 0
            if batch and not await self._run(triple, batch, attempt):
                return False
        return not triple.lost

    def _resumed(self) -> Batch:
        """The oldest interrupted batch, without those whose caller has gone; empty if all have."""
        whole = self._interrupted.pop(0)
        if not self._interrupted:
            self._interruption.clear()
        self.running.difference_update(waiting.item.job for waiting in whole)
        batch = [waiting for waiting in whole if not waiting.done.done()]
        self._forget(waiting for waiting in whole if waiting.done.done())
        if not batch:
            self._batcher.finished(whole, 0.0)
        return batch

    async def _next(self, triple: OneTriple) -> Batch:
        """The next batch; empty when the triple is over, or a batch was interrupted, before there is one."""
        taking = asyncio.ensure_future(self._batcher.take())
        ending = asyncio.ensure_future(triple.over.wait())
        resuming = asyncio.ensure_future(self._interruption.wait())
        try:
            await asyncio.wait({taking, ending, resuming}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if taking.done():
                self._fail(taking.result(), unavailable("the gateway stopped before the job was run"))
            raise
        finally:
            ending.cancel()
            resuming.cancel()
            taking.cancel()  # takes nothing, and is without effect where it is done
        return taking.result() if taking.done() else []

    async def _run(self, triple: OneTriple, batch: Batch, attempt: int) -> bool:
        """Run a batch at the three parties and answer its callers. Returns whether the triple can be used on."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        jobs = [waiting.item.job for waiting in batch]
        self.running.update(jobs)
        self.seen.begins(jobs)
        metrics.queue(self._batcher.waiting, set=self._set)
        again = False
        try:
            with traces.span(
                "run", parent=batch[0].item.traceparent, set=self._set, jobs=len(jobs), attempt=attempt
            ) as span:
                ran = await triple.run(
                    jobs, attempt, timeout=self._settings.run_timeout_s, traceparent=span.traceparent
                )
                span.set(rounds=ran.rounds, bytes=ran.bytes_sent)
        except RunFailed as failed:
            again = failed.again and attempt == 0 and self._fleet.runs_again
            triple.lost = True
            self._failed(failed, batch, again)
            return False
        except BaseException:  # this gateway stops: nobody will run them
            self._fail(batch, unavailable("the gateway stopped while the job ran"))
            raise
        else:
            self._answer(batch, ran, began, loop.time(), attempt)
            if ran.worn:
                triple.over.set()
            return True
        finally:
            self.seen.ends(jobs)
            if not again:
                self.running.difference_update(jobs)

    def _answer(self, batch: Batch, ran: Ran, began: float, ended: float, attempt: int) -> None:
        seconds = ended - began
        for waiting, sealed in zip(batch, ran.answers, strict=True):
            queue_s = began - waiting.arrived
            metrics.stage("queue", queue_s, set=self._set)
            timing = {
                "queue_s": queue_s,
                "run_s": seconds,
                "rounds": ran.rounds,
                "bytes_sent": ran.bytes_sent,
                "batch": len(batch),
                "attempt": attempt,
            }
            waiting.answer(Done(sealed, timing))
        self._batcher.finished(batch, seconds)
        self.counts["batches"] += 1
        self.counts["rounds"] += ran.rounds
        self.counts["bytes_sent"] += ran.bytes_sent
        kind = batch[0].item
        metrics.stage("run", seconds, set=self._set)
        rows = sum(waiting.tokens for waiting in batch) // kind.length
        metrics.ran(
            set=self._set,
            rounds=ran.rounds,
            bytes_sent=ran.bytes_sent,
            jobs=len(batch),
            rows=rows,
            length=kind.length,
            seconds=seconds,
            model=kind.model,
        )
        self.seen.add(  # after the forecast that it would have changed
            model=kind.model,
            length=kind.length,
            rows=rows,
            jobs=len(batch),
            rounds=ran.rounds,
            nbytes=ran.bytes_sent,
            seconds=seconds,
        )

    def _failed(self, failed: RunFailed, batch: Batch, again: bool) -> None:
        self.counts["aborts"] += 1
        self.why = failed.error.cause
        metrics.abort(failed.reason, set=self._set)
        log.warning("set %s: a run of %d jobs failed: %s", self._set, len(batch), failed.error.cause)
        if isinstance(failed.error, CheatingDetected):
            self._distrust(failed.error, batch)
        elif again:
            self.counts["reruns"] += 1
            self._interrupted.append(batch)
            self._interruption.set()
        else:
            self._fail(batch, failed.error)

    def _distrust(self, error: CheatingDetected, batch: Batch) -> None:
        """A party cheated: this process has these parties compute for nobody until it is started again. Otherwise every
        caller's next job would be one more try. It is told to nobody but the caller: docs/security.md."""
        self.distrusted = f"a check of these parties failed: {error.cause}"
        self._fail(batch, error)
        for triple in self.open.values():
            triple.over.set()
        self.why = ""
        self.give_up(self.distrusted)

    def _fail(self, batch: Batch, error: MpcError) -> None:
        """Callers get ``error`` and take their jobs back; those of callers that have gone are dropped here."""
        self._forget(waiting for waiting in batch if waiting.done.done())
        for waiting in batch:
            waiting.fail(error)
        self._batcher.finished(batch, 0.0)

    def _forget(self, gone: Iterable[Waiting[Queued, Done]]) -> None:
        """Jobs of callers that went away while the job ran, so that they could not take it back."""
        if jobs := [waiting.item.job for waiting in gone]:
            self.later(drop(self._fleet.fronts, jobs))

    def give_up(self, why: str) -> None:
        """Nobody knows when there will be a triple: who waits, or was interrupted, had better ask again."""
        self._patience = None
        self._refuse(f"{why}: {self.why}" if self.why else why)

    def _refuse(self, why: str) -> None:
        error = unavailable(why)
        waiting = self._batcher.refuse_all(error)
        while self._interrupted:
            batch = self._interrupted.pop()
            self.running.difference_update(one.item.job for one in batch)
            self._fail(batch, error)
            waiting += len(batch)
        self._interruption.clear()
        if waiting:
            log.warning("set %s: %d jobs were given up: %s", self._set, waiting, error.cause)

    def party_lost(self, party: int, why: str, again: bool) -> None:
        """The fleet says that a party has gone, or was started ``again``: then it no longer holds anybody's job."""
        self.why = f"party {party} of set {self._set}: {why}"
        self._fleet.fronts[party].cut()
        for triple in self.open.values():
            triple.lost = True
            triple.over.set()
        if again:
            self._refuse(self.why)

    def models_changed(self) -> None:
        """Triples hold the models that they were opened with: those that are idle are replaced now, others after it."""
        for triple in self.open.values():
            if triple.models != self._fleet.digests():
                triple.over.set()

    async def settle(self, wait_s: float = 2.0) -> None:
        """Let what goes on in the background end, or end it."""
        if self._patience is not None:
            self._patience.cancel()
        if left := set(self._background):
            await asyncio.wait(left, timeout=wait_s)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
