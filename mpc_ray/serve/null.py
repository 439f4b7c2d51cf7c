"""A triple that computes nothing: to measure what the gateway itself costs, and to try it without parties."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from mpc_ray.serve.interface import Answers, Job

ANSWER_BYTES = 2048


class NullTriple:
    """Answers any job with ``answer_bytes`` random bytes from each party after ``seconds``. Nobody can open them.

    It checks nothing and reads nothing of the job but its id.
    """

    def __init__(
        self,
        set: str = "null",
        *,
        models: tuple[Mapping[str, Any], ...] = (),
        answer_bytes: int = ANSWER_BYTES,
        seconds: float = 0.0,
    ) -> None:
        self.set = set
        self.answered = 0
        self._models = models
        self._answer_bytes = answer_bytes
        self._seconds = seconds

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def infer(self, job: Job) -> Answers:
        """Random bytes. Raises nothing."""
        await asyncio.sleep(self._seconds)
        self.answered += 1
        data = os.urandom(3 * self._answer_bytes)
        parts = [data[i * self._answer_bytes : (i + 1) * self._answer_bytes] for i in range(3)]
        timing = {"queue_s": 0.0, "run_s": self._seconds, "rounds": 0, "batch": 1}
        return Answers(job.id, (parts[0], parts[1], parts[2]), self.set, timing)

    async def status(self) -> Mapping[str, Any]:
        """Always ready."""
        return {
            "set": self.set,
            "ready": True,
            "queue": 0,
            "triples": 1,
            "models": [dict(model) for model in self._models],
            "parties": [
                {"party": i, "ready": True, "version": "", "certificate_not_after": 0} for i in range(3)
            ],
        }
