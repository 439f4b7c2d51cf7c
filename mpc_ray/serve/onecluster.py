"""All three endpoints of a set in one Ray cluster, for development: three actors, each on the node of its party.

Nodes may be labelled ``party: "0"``, "1", "2" (and ``region``, ``trust``); the planner places the three, and each
actor is pinned to its node. An actor holds a whole endpoint: its front with keys, policy and journal, and slots as
processes beside it. Everything else is as between operators: mutual TLS between parties and to the gateway, addresses
from the signed directory, jobs sealed to each party. But one person runs the cluster and could read all three: this
shows how it works, and protects nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mpc_ray.commands import error_of, failure
from mpc_ray.errors import ChannelError, ConfigError, PlacementError
from mpc_ray.scheduler import Placement, place
from mpc_ray.serve.config import GatewayConfig, SetSettings
from mpc_ray.serve.interface import Answers, Job
from mpc_ray.serve.triple import TripleLeader
from mpc_ray.serve.triple import leader as leader_over_tls
from mpc_ray.trust.directory import Directory
from mpc_ray.trust.folder import open_folder
from mpc_ray.trust.records import PartyRecord

log = logging.getLogger("mpc_ray.serve.onecluster")

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PLACE_S = 30.0
READY_S = 120.0
STOP_S = 15.0


class EndpointActor:
    """One party's endpoint inside an actor. Failures are answers: Ray would keep an exception's text in task events."""

    def __init__(self) -> None:
        self._closing = contextlib.ExitStack()
        self._front: Any = None

    def start(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Listen and start the slots; returns at once."""
        try:
            from mpc_ray.endpoint.config import PartyConfig
            from mpc_ray.endpoint.front import Front

            self._front = Front(PartyConfig(**settings))
            self._closing.callback(self._front.close)
        except Exception as error:  # noqa: BLE001 - an answer
            return failure(error)
        return {"ok": True}

    def waiting(self) -> dict[str, Any]:
        """What the party waits for before it can compute, and the labels of the node it is on."""
        import ray

        if self._front.error is not None:
            return failure(self._front.error)
        labels = ray.get_runtime_context().get_node_labels()
        return {"ok": True, "waiting": self._front.waiting(), "labels": dict(labels), "pid": os.getpid()}

    def stop(self) -> dict[str, Any]:
        """End the endpoint and its slots."""
        self._closing.close()
        return {"ok": True}


class OneCluster:
    """The three endpoints of ``folders``, in any order, on the Ray that this process is in. A context manager.

    ``cpus``: processors that each reserves; ``slots``: triples that each can be part of. Raises ConfigError for
    folders that are no set, or a Ray without token authentication; PlacementError; what an endpoint's start raises.
    """

    def __init__(
        self, folders: Sequence[Path], *, cpus: float = 1.0, slots: int = 1, ready_s: float = READY_S
    ) -> None:
        self._folders = _in_order(folders)
        self._settings = [_settings(folder, slots) for folder in self._folders]
        self._cpus = cpus
        self._ready_s = ready_s
        self._placement: Placement | None = None
        self.actors: list[Any] = []
        self.labels: list[dict[str, str]] = []

    def __enter__(self) -> OneCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Place and start the three endpoints, and wait until each is ready. Nothing stays if that fails."""
        import ray

        if not ray.is_initialized():
            raise ConfigError(
                "this process is in no Ray cluster", remedy="call ray.init with an explicit address"
            )
        if os.environ.get("RAY_AUTH_MODE") != "token":
            raise ConfigError(
                "the cluster must have token authentication",
                remedy="set RAY_AUTH_MODE=token before Ray is imported",
            )
        end = time.monotonic() + self._ready_s
        try:
            self._placement = place(
                cpus=self._cpus, gpus=0, reserve=True, deadline=time.monotonic() + PLACE_S
            )
            make: Any = ray.remote(EndpointActor)
            for party in range(3):
                strategy = self._placement.strategy(party)
                options = {"num_cpus": self._cpus, "max_restarts": 0, "scheduling_strategy": strategy}
                self.actors.append(make.options(**options).remote())
            self._ask("start", [(settings,) for settings in self._settings])
            while waits := self._waiting():
                if time.monotonic() > end:
                    raise PlacementError(
                        f"the endpoints are not ready within {self._ready_s:g} s: {'; '.join(waits)}",
                        remedy="see the actors' logs, or wait longer",
                    )
                time.sleep(0.2)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the endpoints and give their room back. Raises nothing: an actor that has died has nothing to end."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        actors, self.actors = self.actors, []
        if not ray.is_initialized():
            return
        with contextlib.suppress(RayError, GetTimeoutError):
            ray.get([actor.stop.remote() for actor in actors], timeout=STOP_S)
        for actor in actors:
            ray.kill(actor)
        placement, self._placement = self._placement, None
        if placement is not None:
            placement.release()

    def _waiting(self) -> list[str]:
        answers = self._ask("waiting", [()] * 3)
        self.labels = [dict(answer["labels"]) for answer in answers]
        return [f"party {i}: {what}" for i, answer in enumerate(answers) for what in answer["waiting"]]

    def _ask(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        asked = [
            getattr(actor, method).remote(*given) for actor, given in zip(self.actors, arguments, strict=True)
        ]
        try:
            answers = ray.get(asked, timeout=self._ready_s)
        except (RayError, GetTimeoutError) as error:
            raise ChannelError(
                f"an endpoint's actor was lost: {type(error).__name__}", remedy="see the cluster's logs"
            ) from None
        for party, answer in enumerate(answers):
            if "error" in answer:
                raise error_of(party, answer)
        return list(answers)


class OneClusterTriples:
    """A ``Triples`` of one set whose three endpoints it starts itself, in the cluster that this process is in."""

    def __init__(self, cluster: OneCluster, leader: TripleLeader) -> None:
        self._cluster = cluster
        self._leader = leader

    async def start(self) -> None:
        """Start the endpoints, then the leader. Raises what ``OneCluster.start`` does."""
        await asyncio.to_thread(self._cluster.start)
        await self._leader.start()

    async def stop(self) -> None:
        """End the leader, then the endpoints."""
        await self._leader.stop()
        await asyncio.to_thread(self._cluster.close)

    async def infer(self, job: Job) -> Answers:
        """The leader's."""
        return await self._leader.infer(job)

    async def status(self) -> Mapping[str, Any]:
        """The leader's."""
        return await self._leader.status()


def leader(config: GatewayConfig, one: SetSettings, *, triples: int) -> OneClusterTriples:
    """For Serve's ``leader`` argument: the set's three party folders lie beside the gateway's. Not started.

    Raises ConfigError where they are not there.
    """
    folder = open_folder(config.folder)
    folders = find_folders(config.folder.resolve().parent, one.name)
    settings = config.batching.model_dump() | {"triples": triples}
    made = leader_over_tls(config.folder, folder.directory(), one.name, models=one.models, settings=settings)
    return OneClusterTriples(OneCluster(folders, slots=triples), made)


def find_folders(parent: Path, set_name: str) -> list[Path]:
    """The folders of parties 0, 1 and 2 of a set among the folders of ``parent``. ConfigError if one is missing."""
    return _in_order([path.parent for path in parent.glob("*/record.json") if _is_of(path.parent, set_name)])


def _is_of(folder: Path, set_name: str) -> bool:
    record = open_folder(folder).record
    return isinstance(record, PartyRecord) and record.set == set_name


def _in_order(folders: Iterable[Path]) -> list[Path]:
    """Party 0's folder first."""
    records = {folder: open_folder(folder).record for folder in folders}
    found = {record.index: folder for folder, record in records.items() if isinstance(record, PartyRecord)}
    sets = {record.set for record in records.values() if isinstance(record, PartyRecord)}
    if sorted(found) != [0, 1, 2] or len(records) != 3 or len(sets) != 1:
        raise ConfigError(
            "the folders are not those of parties 0, 1 and 2 of one set",
            remedy="make them with mpc-ray certs request, and name each once",
        )
    return [found[index] for index in range(3)]


def _settings(folder: Path, slots: int) -> dict[str, Any]:
    """A party's settings: it listens where its record says that it can be reached."""
    directory: Directory = open_folder(folder).directory()
    record = open_folder(folder).record
    assert isinstance(record, PartyRecord)
    record = directory.parties(record.set)[record.index]
    listen = {}
    for what, address in (("peer", record.peer), ("gateway", record.gateway)):
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        listen[what] = {"host": host if host in LOOPBACK else "0.0.0.0", "port": int(port)}
    return {"folder": str(folder.resolve()), "host": "process", "slots": slots, **listen}
