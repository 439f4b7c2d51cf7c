"""Handing a sealed job to the three parties, each of which decides for itself, and taking it back.

A job that one party refuses is dropped at the others. A submission that has begun is never broken off: whoever is
cancelled leaves it to end in the background, and the job is dropped after it, not before.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Sequence

import numpy as np

from mpc_ray.channel.link import JSON, Message
from mpc_ray.errors import ChannelError, DeadlineExceeded, MpcError, Unavailable
from mpc_ray.serve.interface import Job
from mpc_ray.serve.links import Front
from mpc_ray.telemetry import traces

DROP_S = 5.0


class Submission:
    """One job on its way to the three ``fronts``; it starts when it is made. Times on the running loop's clock."""

    def __init__(
        self, fronts: Sequence[Front], set_name: str, job: Job, *, timeout: float, deadline: float
    ) -> None:
        self._fronts = fronts
        self._job = job.id
        self._deadline = deadline
        self._sending = asyncio.ensure_future(_send(fronts, set_name, job, timeout))

    async def taken(self) -> None:
        """Return when all three took the job.

        Raises the refusal of the first party that refused; ``Unavailable`` where a party could not be asked, which
        says nothing about the job; ``DeadlineExceeded``.
        """
        try:
            async with asyncio.timeout_at(self._deadline):
                outcomes = await asyncio.shield(self._sending)
        except TimeoutError:
            raise DeadlineExceeded(
                "the parties had not taken the job at its deadline", remedy="allow more time"
            ) from None
        errors = [outcome for outcome in outcomes if isinstance(outcome, MpcError)]
        if refusals := [error for error in errors if not isinstance(error, ChannelError)]:
            raise refusals[0]
        if errors:
            raise Unavailable(
                errors[0].cause, remedy="send the request again under a new authorisation", retry_after_s=1.0
            )

    async def take_back(self) -> None:
        """Drop the job where it was taken, once the submission has ended; what cannot be dropped expires there."""
        outcomes = await self._sending
        took = [party for party, outcome in enumerate(outcomes) if isinstance(outcome, Message)]
        await drop(self._fronts, [self._job], took)


async def drop(fronts: Sequence[Front], jobs: Sequence[str], parties: Iterable[int] = range(3)) -> None:
    """Have ``parties`` forget ``jobs``. Raises nothing: a party that cannot be reached forgets them at their expiry."""
    header: dict[str, JSON] = {"cmd": "drop", "jobs": list(jobs)}
    asked = (fronts[party].submit(header, timeout=DROP_S) for party in parties)
    await asyncio.gather(*asked, return_exceptions=True)


async def _send(fronts: Sequence[Front], set_name: str, job: Job, timeout: float) -> list[Message | MpcError]:
    """Each party's answer, or its error."""
    header: dict[str, JSON] = {
        "cmd": "submit",
        "authorisation": dict(job.authorisation),
        "signature": base64.b64encode(job.signature).decode(),
    }
    with traces.span("submit", parent=job.traceparent, job=job.id, set=set_name) as span:
        header["traceparent"] = span.traceparent
        asked = (
            front.submit(header, {"envelope": np.frombuffer(envelope, np.uint8)}, timeout=timeout)
            for front, envelope in zip(fronts, job.envelopes, strict=True)
        )
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
    found: list[Message | MpcError] = []
    for outcome in outcomes:
        if not isinstance(outcome, Message | MpcError):
            raise outcome  # a fault of our own: nobody's refusal
        found.append(outcome)
    return found
