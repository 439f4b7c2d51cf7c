"""One batch of texts, from shares to vectors: sealed, sent, and sealed anew for as long as that may help.

What may have reached the gateway is first sent again as it was, under the same Idempotency-Key: it is answered once.
After a definite "no" the job is shared and sealed afresh, under a new authorisation, perhaps to the next allowed set. A
job whose answers are wrong is never tried again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mpc_ray.client.gateway import Answer, Gateway, Lost
from mpc_ray.client.parties import Parties, Sets, allowed_sets
from mpc_ray.client.problems import Problem
from mpc_ray.client.request import Sealed, Terms, opened, seal
from mpc_ray.client.retry import Attempts, Deadline
from mpc_ray.client.share import Batch
from mpc_ray.errors import CertificateError, ChannelError, ConfigError, DeadlineExceeded, Unavailable
from mpc_ray.models.weights import Array
from mpc_ray.telemetry import metrics, traces
from mpc_ray.trust.authorisation import SigningKey

log = logging.getLogger("mpc_ray.client")

INFER = "/v1/private/infer"
STALE_S = 10.0  # an authorisation that expired on its way was at least so old when it was refused
# The set answers no jobs, or lacks the model; another may do.
_SET_CODES = ("set_unavailable", "unavailable", "unknown_set", "unknown_model", "no_slot", "party_failed")


@dataclass(frozen=True)
class JobNote:
    """How one job went: where, how large, how long (seconds), how often it was sent anew."""

    set: str
    texts: int
    length: int
    seconds: float
    retries: int
    timing: dict[str, float]


@dataclass(frozen=True)
class Wanted:
    """Where jobs may go and under which terms; how often and how long they are tried."""

    terms: Terms
    only: str | None
    regions: tuple[str, ...]
    retries: int
    attempt_s: float


class Jobs:
    """Runs batches, ``concurrency`` at once. For one event loop."""

    def __init__(
        self, gateway: Gateway, parties: Parties, key: SigningKey, wanted: Wanted, concurrency: int
    ) -> None:
        self._gateway, self._parties, self._key, self._wanted = gateway, parties, key, wanted
        self._sets = Sets()
        self._room = asyncio.Semaphore(concurrency)

    async def run(self, batch: Batch, deadline: Deadline) -> tuple[Array, JobNote]:
        """The vectors of ``batch``, when there is room, and how it went. Raises as ``AsyncClient.embed``."""
        async with self._room:
            return await self._job(batch, deadline)

    async def _job(self, batch: Batch, deadline: Deadline) -> tuple[Array, JobNote]:
        """One batch, under a new authorisation at every attempt that was answered by a definite "no"."""
        attempts, began = Attempts(self._wanted.retries, deadline), time.perf_counter()
        while True:
            directory = await self._parties.current(deadline)
            allowed = allowed_sets(
                directory,
                only=self._wanted.only,
                regions=self._wanted.regions,
                jurisdictions=self._wanted.terms.jurisdictions,
            )
            chosen = self._sets.choose(allowed)
            with metrics.timed("seal", set=chosen):
                sealed = await asyncio.to_thread(
                    seal, batch, directory, chosen, self._wanted.terms, self._key
                )
            reply = await self._deliver(sealed, attempts, deadline)
            if isinstance(reply, Answer):
                self._sets.worked(chosen)
                rows, timing = await asyncio.to_thread(opened, sealed, reply.body, batch)
                seconds = time.perf_counter() - began
                return rows, JobNote(chosen, batch.size, batch.length, seconds, attempts.failed, timing)
            await self._after(reply, sealed, attempts, deadline, allowed)

    async def _deliver(self, sealed: Sealed, attempts: Attempts, deadline: Deadline) -> Answer | Problem:
        """Send the same bytes until the gateway says something definite: it answers them once, however often sent."""
        lost = False
        while True:
            deadline.check()
            timeout = min(deadline.left, self._wanted.attempt_s)
            headers = {
                "Idempotency-Key": sealed.idempotency_key,
                "X-Request-Timeout-Ms": str(max(1, int(timeout * 1000))),
                "traceparent": traces.current(),
            }
            reply = await self._gateway.post(INFER, sealed.body, timeout, headers)
            if isinstance(reply, Answer):
                return reply
            if isinstance(reply, Problem):
                if lost and reply.code in ("replayed", "expired"):
                    # The parties had it, and its answer is gone with a gateway that died. A job has no effect but its
                    # answer, so it may be asked anew.
                    return Problem(503, "unknown_job", reply.cause, reply.remedy, retry_after_s=0.0)
                return reply
            if isinstance(reply.error, ConfigError):
                raise reply.error
            lost = lost or isinstance(reply, Lost)
            await attempts.again(reply.error)
            if sealed.expired():
                return Problem(503, "unknown_job", reply.error.cause, reply.error.remedy, retry_after_s=0.0)

    async def _after(
        self,
        problem: Problem,
        sealed: Sealed,
        attempts: Attempts,
        deadline: Deadline,
        allowed: Sequence[str],
    ) -> None:
        """What to do about a definite "no": return when the job may be sealed and sent anew, else raise."""
        error, chosen = problem.error(), sealed.authorisation.set
        if problem.code == "bad_envelope" and await self._parties.refresh(deadline):
            await attempts.again(error, at_once=True)  # a party's keys were rotated
            return
        if problem.code == "expired" and sealed.age_s > STALE_S:
            await attempts.again(error, at_once=True)  # it waited too long on its way
            return
        of_set = problem.code in _SET_CODES
        if not problem.again and not (of_set and len(allowed) > 1):
            raise error
        if of_set:
            elsewhere = self._sets.failed(chosen, problem.sets, allowed)
            await self._refresh_quietly(deadline)
            if elsewhere:
                await attempts.again(error, at_once=True)
                log.info("set %s answers no jobs (%s): going on with the next one", chosen, problem.code)
                return
            if not problem.again:
                raise error
        await attempts.again(error, retry_after_s=problem.retry_after_s)

    async def _refresh_quietly(self, deadline: Deadline) -> None:
        """Parties may have moved. Where the directory cannot be had now, the one we hold is still good."""
        try:
            await self._parties.refresh(deadline)
        except (Unavailable, ChannelError, DeadlineExceeded) as error:
            if isinstance(error, CertificateError):
                raise
            log.debug("the directory was not fetched: %s", error)
