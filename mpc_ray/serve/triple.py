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
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpc_ray.dispatch.seen import follow, forecast
from mpc_ray.errors import AuthorisationError, Refused
from mpc_ray.serve.batching import Batcher
from mpc_ray.serve.fleet import Fleet
from mpc_ray.serve.interface import Answers, Job
from mpc_ray.serve.links import Front
from mpc_ray.serve.queued import Done, Queued, unavailable
from mpc_ray.serve.runner import Runner
from mpc_ray.serve.submit import Submission
from mpc_ray.serve.triple_settings import TripleSettings
from mpc_ray.telemetry import metrics
from mpc_ray.trust.authorisation import Authorisation

if TYPE_CHECKING:
    from mpc_ray.trust.directory import Directory

log = logging.getLogger("mpc_ray.serve.triple")

_CLOCKS_S = 5.0  # how far a client's clock may be off before its expiry shortens our patience


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
        every_s = self.settings.status_every_s
        self.fleet = Fleet(set_name, fronts, frozenset(models), every_s=every_s)
        self._batcher: Batcher[Queued, Done] = Batcher(self.settings.batch)
        self._runner = Runner(self.fleet, self._batcher, self.settings)
        self._under_way: set[str] = set()  # jobs between submission and answer
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """Whether jobs are taken: a triple is open, or is just being replaced by a newer one."""
        return self._runner.ready

    @property
    def counts(self) -> Mapping[str, int]:
        """Since the start: jobs, batches, rounds, bytes sent (by the party that sent most), aborts, reruns."""
        return self._runner.counts

    def measured(self) -> Mapping[str, Any]:
        """What the plan is told: which jobs run, and the newest runs (``dispatch.seen``)."""
        return self._runner.seen.told()

    async def start(self, wait_s: float = 30.0) -> None:
        """Begin to watch the parties and to open triples; returns when the first is open or has failed to open, after
        ``wait_s`` seconds at most. Raises nothing: parties that are not up yet are waited for in the background.
        """
        if self._tasks:
            return
        follow(self.set, self._runner.seen)
        metrics.predict_with(forecast)
        await self.fleet.look()
        work = (self.fleet.watch, *[self._runner.lead] * self.settings.triples)
        self._tasks = [asyncio.create_task(_for_ever(one)) for one in work]
        try:
            async with asyncio.timeout(wait_s):
                await self._runner.tried.wait()
        except TimeoutError:
            log.warning("set %s: no triple within %g s", self.set, wait_s)

    async def stop(self, wait_s: float = 30.0) -> None:
        """Take no more jobs, let those that were taken finish for up to ``wait_s``, close everything."""
        try:
            async with asyncio.timeout(wait_s):
                await self._batcher.drain()
        except TimeoutError:
            self._runner.give_up("the gateway stopped before the job was run")
        await self._runner.settle()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for front in self.fleet.fronts:
            front.close()

    async def infer(self, job: Job) -> Answers:
        """Submit, queue and run one job, as ``Triples.infer`` says. Cancelled, it takes the job back."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        asked = Authorisation.from_json(dict(job.authorisation))
        left = asked.expires_ms / 1000 - time.time() + _CLOCKS_S
        deadline = began + min(job.timeout_s, max(0.0, left))
        self._check(asked)
        with self._once(asked.job), self._batcher.place() as place:
            timeout = max(0.0, min(self.settings.submit_timeout_s, deadline - began))
            sent = Submission(self.fleet.fronts, self.set, job, timeout=timeout, deadline=deadline)
            try:
                with metrics.timed("submit", set=self.set):
                    await sent.taken()
                submit_s = loop.time() - began
                key = (asked.model, asked.model_digest, asked.length, asked.output, asked.range_check)
                metrics.queue(self._batcher.waiting + 1, set=self.set)
                queued = Queued(asked.job, asked.model, asked.length, job.traceparent)
                done = await place.compute(queued, key, asked.batch * asked.length, deadline)
            except BaseException:
                if (
                    asked.job not in self._runner.running
                ):  # else whoever runs it knows what the parties still hold
                    self._runner.later(sent.take_back())
                raise
        self._runner.counts["jobs"] += 1
        return Answers(asked.job, done.sealed, self.set, {"submit_s": submit_s, **done.timing})

    async def status(self) -> Mapping[str, Any]:
        """As ``Triples.status`` says, from what is known here. Besides: ``why`` it is not ready, ``differing`` models,
        which are not the same at all three parties, and ``counts`` of what was done.
        """
        return {
            "set": self.set,
            "ready": self.ready,
            "why": "" if self.ready else self._runner.why,
            "queue": self._batcher.waiting,
            "triples": len(self._runner.open),
            "models": list(self.fleet.models.values()),
            "differing": sorted(self.fleet.differing),
            "parties": [state.public() for state in self.fleet.parties],
            "counts": dict(self.counts),
        }

    def _check(self, asked: Authorisation) -> None:
        """Refuse here what the parties would refuse, or what nobody can run now."""
        if asked.set != self.set:
            raise Refused(
                f"the job is sealed to set {asked.set}, and this is {self.set}",
                remedy="send it to the set it is sealed to",
                code="wrong_set",
            )
        if not self.ready:
            raise unavailable(self._runner.why)
        model = self.fleet.models.get(asked.model)
        if model is None or model["digest"] != asked.model_digest:
            raise Refused(
                f"the three parties of set {self.set} do not hold that model in that version",
                remedy="ask /v1/models for what they hold, and fetch the model's current bundle",
                code="unknown_model",
            )

    @contextlib.contextmanager
    def _once(self, job: str) -> Iterator[None]:
        """A job is under way once: else the end of a second request would drop the first one's job at the parties."""
        if job in self._under_way:
            raise AuthorisationError(
                "this job is being computed already",
                remedy="sign a new job for a new request",
                code="replayed",
            )
        self._under_way.add(job)
        try:
            yield
        finally:
            self._under_way.discard(job)


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """A fault of our own is logged, and does not leave a set without triples."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("a fault in the leader of a set")
            await asyncio.sleep(1.0)


def leader(
    folder: Path,
    directory: Directory,
    set: str,
    *,
    models: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
) -> TripleLeader:
    """A leader of ``set``, not started, over mutual TLS to the gateway addresses of its three party records.

    ``folder`` holds the gateway's ``tls.pem``, ``tls.key`` and ``ca.pem``. Raises ConfigError if the directory has no
    such set or a setting is unknown, CertificateError.
    """
    from mpc_ray.serve.dial import fronts  # the endpoint's side of the wire, which fakes need not have

    chosen = TripleSettings.of(settings or {})
    return TripleLeader(
        set, fronts(folder, directory, set, submit_links=chosen.submit_links), models=models, settings=chosen
    )
