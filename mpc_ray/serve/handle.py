"""Triples behind Ray Serve: what the application sees of a ``Triple`` deployment.

What Ray says in its own way is said in ours: its back-pressure is Overloaded (429), a dead replica Unavailable
(503), a late one DeadlineExceeded (504). Shares are sealed long before they come here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from mpc_ray.errors import DeadlineExceeded, Overloaded, Unavailable
from mpc_ray.serve.interface import Answers, Job
from mpc_ray.serve.wire import Failed, error_of

STATUS_S = 2.0


class HandleTriples:
    """A ``Triples`` over a handle. One hop: 2 to 6 ms."""

    def __init__(self, set_name: str, handle: DeploymentHandle) -> None:
        self.set = set_name
        self._handle = handle

    async def infer(self, job: Job) -> Answers:
        answers: Answers = await self._call("infer", job.timeout_s, job)
        return answers

    async def status(self) -> Mapping[str, Any]:
        status: Mapping[str, Any] = await self._call("status", STATUS_S)
        return status

    async def _call(self, method: str, timeout_s: float, *arguments: Any) -> Any:
        response = getattr(self._handle, method).remote(*arguments)
        try:
            async with asyncio.timeout(timeout_s):
                answer = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except TimeoutError:
            response.cancel()
            raise DeadlineExceeded(
                f"set {self.set} did not answer within {timeout_s:g} s",
                remedy="allow more time, or send less at once",
            ) from None
        except BackPressureError:
            raise Overloaded(
                f"the queue of set {self.set} is full", remedy="slow down", retry_after_s=1.0
            ) from None
        except (RayError, RayServeException):
            raise Unavailable(
                f"a leader of set {self.set} died or is being replaced",
                remedy="send the request again under a new authorisation",
                retry_after_s=2.0,
            ) from None
        if isinstance(answer, Failed):
            raise error_of(answer)
        return answer
