"""Ray Serve's request router by plan: each job goes to the replica of ``Triple`` that the plan has it on.

A replica leads one triple and has a queue of its own, so a job that was handed to it is pinned there; what still waits
in the routers (all queues are full) follows the plan as it changes. The plan lives in one actor; a router keeps each
waiting job's place for ``KEPT_S``. Where the actor does not answer within ``ANSWER_S`` (it is being started, say) the
job goes where Serve itself would send it, the shorter of two queues: counted, and said in the log once a minute.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ray.exceptions import RayError
from ray.serve.request_router import (
    PendingRequest,
    ReplicaID,
    ReplicaResult,
    RequestRouter,
    RunningReplica,
)

from mpc_ray.dispatch.actor import plan_actor
from mpc_ray.dispatch.kinds import BANDWIDTH, RTT_S, group_of
from mpc_ray.planner.jobs import Job, Link, Triple, Worker
from mpc_ray.telemetry import metrics

log = logging.getLogger("mpc_ray.dispatch")

ANSWER_S = 0.1
KEPT_S = 0.25
SAID_S = 60.0
TELL_S = 1.0


class PlanRouter(RequestRouter):
    """``request_router_kwargs``: ``set_name``, ``batch`` (jobs that a triple runs at once), ``regions`` and ``trusts``
    of parties 0, 1 and 2.
    """

    def initialize_state(
        self,
        set_name: str = "",
        batch: int = 8,
        regions: tuple[str, str, str] = ("", "", ""),
        trusts: tuple[str, str, str] = ("0", "1", "2"),
    ) -> None:
        """Called once by Serve."""
        self._set, self._batch = set_name, batch
        self._regions, self._trusts = regions, trusts
        self._plan: Any = None
        self._places: OrderedDict[str, tuple[str, float]] = OrderedDict()  # the oldest first
        self._measuring: dict[str, float] = {}  # when each replica's measurements were passed on
        self._tasks: set[asyncio.Task[None]] = set()
        self._jobs: dict[str, str] = {}  # Serve's id of a request, to the job's
        self._told: frozenset[str] = frozenset()
        self._said = -SAID_S
        self.fallbacks = 0

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The planned replica first, then any other that has room."""
        asked = _asked(pending_request)
        if asked is None or len(candidate_replicas) < 2:
            return [candidate_replicas]
        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        self._pass_on(by_name)
        place = await self._place(asked, frozenset(by_name))
        if place not in by_name:
            return [candidate_replicas]
        return [[by_name[place]], [replica for name, replica in by_name.items() if name != place]]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: ReplicaResult
    ) -> None:
        """The job is in that replica's queue from now on."""
        del result
        asked = _asked(pending_request)
        if asked is not None and self._plan is not None:  # also where its answer came too late to be followed
            self._places.pop(asked[0], None)
            self._jobs[pending_request.metadata.internal_request_id] = asked[0]
            self._plan.pinned.remote(asked[0], replica_id.unique_id)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """The job is over."""
        del replica_id
        job = self._jobs.pop(internal_request_id, None)
        if job is not None and self._plan is not None:
            self._plan.over.remote(job)

    async def _place(self, asked: tuple[str, str, int], names: frozenset[str]) -> str:
        """The planned triple of a job, or "" where Serve is to choose."""
        job, model, tokens = asked
        kept = self._places.get(job)
        now = time.monotonic()
        if kept is not None and now - kept[1] < KEPT_S:
            return kept[0]
        while self._places and now - next(iter(self._places.values()))[1] >= KEPT_S:
            self._places.popitem(last=False)  # requests that were cancelled are never routed
        actor = self._actor()
        if names != self._told:
            self._told = names
            actor.triples.remote([self._triple(name) for name in sorted(names)])
        group = group_of(model, tokens)
        try:
            async with asyncio.timeout(ANSWER_S):
                answer: Mapping[str, Any] = await actor.arrive.remote(group, Job(job, group.name))
        except (TimeoutError, RayError) as error:
            self._plan = None if isinstance(error, RayError) else self._plan
            self._fall_back(type(error).__name__)
            return ""
        place = answer.get("triple")
        if not isinstance(place, str):
            self._fall_back(str(answer.get("error")))
            return ""
        self._places[job] = (place, now)
        self._places.move_to_end(job)
        return place

    def _pass_on(self, replicas: Mapping[str, RunningReplica]) -> None:
        """Tell the plan what the leaders measured (Serve brings it along), each at most once in ``TELL_S``."""
        now = time.monotonic()
        self._measuring = {name: at for name, at in self._measuring.items() if name in replicas}
        for name, replica in replicas.items():
            told = replica.routing_stats
            if not told or self._plan is None or now - self._measuring.get(name, -TELL_S) < TELL_S:
                continue
            self._measuring[name] = now
            task = asyncio.get_running_loop().create_task(self._measured(name, told))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _measured(self, name: str, told: Mapping[str, Any]) -> None:
        try:
            for predicted, seconds in await self._plan.measured.remote(name, told):
                metrics.foretold(predicted, seconds, set=self._set)
        except RayError as error:
            self._fall_back(type(error).__name__)

    def _actor(self) -> Any:
        if self._plan is None:
            self._plan = plan_actor(f"mpc-ray plan {self._set}", self._links(), batch=self._batch)
            self._told = frozenset()
        return self._plan

    def _triple(self, name: str) -> Triple:
        workers = [Worker(f"{name}/{i}", self._regions[i], self._trusts[i]) for i in range(3)]
        return Triple(name, (workers[0], workers[1], workers[2]))

    def _links(self) -> list[Link]:
        """All replicas of a set are as far from each other's parties, so guesses do."""
        pairs = {tuple(sorted((self._regions[i], self._regions[j]))) for i in range(3) for j in range(i + 1)}
        return [Link((a, b), RTT_S, BANDWIDTH) for a, b in sorted(pairs)]

    def _fall_back(self, why: str) -> None:
        self.fallbacks += 1
        now = time.monotonic()
        if now - self._said >= SAID_S:
            self._said = now
            log.warning("set %s: jobs go to the shorter of two queues, not by plan: %s", self._set, why)


def _asked(pending: PendingRequest | None) -> tuple[str, str, int] | None:
    """(id, model, tokens) of a job; None for other calls, and for what is no job of ours."""
    if pending is None or pending.metadata.call_method != "infer" or not pending.args:
        return None
    authorisation = getattr(pending.args[0], "authorisation", None)
    if not isinstance(authorisation, Mapping):
        return None
    name, model = authorisation.get("job"), authorisation.get("model")
    batch, length = authorisation.get("batch"), authorisation.get("length")
    if not (isinstance(name, str) and name and isinstance(model, str)):
        return None
    if not (isinstance(batch, int) and isinstance(length, int) and batch > 0 and length > 0):
        return None
    return name, model, length * min(batch, 1024)
