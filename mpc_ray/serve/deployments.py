"""The gateway on Ray Serve.

    serve deploy configs/serve.yaml           # import_path: mpc_ray.serve.deployments:build, args: {config: …}
    serve run mpc_ray.serve.deployments:build config=configs/gateway.yaml

One replica of ``Triple`` leads one triple, across three clusters over mutual TLS; Ray carries only sealed bytes to
it. ``Gateway`` is the ingress: the same application that ``mpc-ray gateway`` hosts under uvicorn.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from mpc_ray.errors import ConfigError, Unavailable
from mpc_ray.serve.actor import ActorState, state_of
from mpc_ray.serve.app import create_app
from mpc_ray.serve.awaited import call, led
from mpc_ray.serve.cluster import refuse_open, refuse_proxy
from mpc_ray.serve.config import GatewayConfig, SetSettings
from mpc_ray.serve.driver import LEADER
from mpc_ray.serve.handle import HandleTriples
from mpc_ray.serve.interface import Answers, Job
from mpc_ray.serve.leaders import sets_to_lead
from mpc_ray.serve.wire import Failed, failed
from mpc_ray.trust.folder import open_folder

HEADROOM = 8  # in a leader whose queue is full, for jobs that it refuses itself and for questions how it is
WAIT_S = 0.5
TOKENS = 64  # of a job, about, where jobs that run together are counted
PLAN_ROUTER = "mpc_ray.dispatch.router.PlanRouter"
MEASURED_S = 1.0
PACE: Mapping[str, float] = {"upscale_delay_s": 5, "downscale_delay_s": 120}  # a triple is dear to open
UNREADY_S = 60.0  # a leader that finds no triple for so long is replaced: it mends itself within seconds


class Arguments(BaseModel):
    """What ``args`` of the YAML file, or NAME=VALUE of ``serve run``, may say."""

    model_config = ConfigDict(extra="forbid")

    config: Path = Field(description="the gateway's YAML file, on every node")
    replicas: int = Field(default=2, ge=1, le=64, description="of the gateway; two survive a rolling update")
    sets: tuple[str, ...] = Field(
        default=(), description="only these sets, in this order; none: as the file says"
    )
    leader: str = Field(default=LEADER, pattern=r"^[\w.]+:\w+$", description="who makes the leader of a set")

    @field_validator("sets", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """``serve run`` knows texts only: "eu,us"."""
        return tuple(value.split(",")) if isinstance(value, str) else value


@serve.deployment(
    name="Triple",
    health_check_period_s=2,
    health_check_timeout_s=10,
    graceful_shutdown_wait_loop_s=0.2,
    graceful_shutdown_timeout_s=30,
    ray_actor_options={"num_cpus": 0.1},
)
class Triple:
    """Leads one triple of one set. A replica counts as started once its triple is open."""

    async def __init__(self, config: str, one: str, leader: str) -> None:  # type: ignore[misc]  # Serve awaits it
        module, _, name = leader.partition(":")
        make = getattr(importlib.import_module(module), name)
        settings = SetSettings.model_validate_json(one)
        given = GatewayConfig.model_validate_json(config)
        self._leader = led(settings.name, given.folder, partial(make, given, settings, triples=1))
        self._unready = 0.0
        await call(self._leader, "start")
        while not (await self._leader.status()).get("ready"):
            await asyncio.sleep(WAIT_S)

    async def infer(self, job: Job) -> Answers | Failed:
        """One job. A failure is an answer: Ray keeps the text of exceptions."""
        try:
            return await self._leader.infer(job)
        except Exception as error:  # noqa: BLE001 - a failure is an answer
            return failed(error)

    async def status(self) -> Mapping[str, Any] | Failed:
        try:
            return await self._leader.status()
        except Exception as error:  # noqa: BLE001 - a failure is an answer
            return failed(error)

    async def record_routing_stats(self) -> Mapping[str, Any]:
        """Serve asks, and brings it to the routers: what the plan goes by."""
        found = getattr(self._leader, "measured", None)
        return found() if found is not None else {}

    async def check_health(self) -> None:
        """Serve asks; an error replaces this replica."""
        now = asyncio.get_running_loop().time()
        if (await self._leader.status()).get("ready"):
            self._unready = 0.0
            return
        self._unready = self._unready or now
        if now - self._unready > UNREADY_S:
            raise Unavailable("no triple could be opened", remedy="see the parties' logs")

    async def __del__(self) -> None:
        if hasattr(self, "_leader"):
            await call(self._leader, "stop")


@serve.deployment(
    name="Gateway",
    max_ongoing_requests=1000,  # the application refuses what is too much, with 429
    health_check_period_s=2,
    health_check_timeout_s=10,
    graceful_shutdown_wait_loop_s=0.2,
    graceful_shutdown_timeout_s=70,
    ray_actor_options={"num_cpus": 0.1},
)
@serve.ingress()
class Gateway:
    """The application in a replica: its triples behind handles, its state in one actor."""

    async def __init__(self, config: str, sets: dict[str, DeploymentHandle]) -> None:  # type: ignore[misc]
        await asyncio.to_thread(refuse_open)
        self._config = GatewayConfig.model_validate_json(config)
        self._triples = {name: HandleTriples(name, handle) for name, handle in sets.items()}
        self._state: ActorState = await state_of(self._config)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._config, self._triples, self._state)


def triple(config: GatewayConfig, one: SetSettings, leader: str = LEADER) -> Application:
    """The deployment of one set's triples, between ``min_triples`` and ``max_triples`` of them."""
    queue = config.batching.max_queue
    scale: dict[str, Any] = {"num_replicas": one.min_triples}
    if one.max_triples > one.min_triples:
        scale = {
            "autoscaling_config": {
                "min_replicas": one.min_triples,
                "max_replicas": one.max_triples,
                "target_ongoing_requests": max(1, queue // 4),
                **PACE,
            }
        }
    if one.max_triples > 1:  # with one there is nothing to choose
        scale["request_router_config"] = RequestRouterConfig(
            request_router_class=PLAN_ROUTER,
            request_router_kwargs=_places(config, one.name),
            request_routing_stats_period_s=MEASURED_S,
        )
    deployment: Any = Triple  # what the decorator makes of it
    bound: Application = deployment.options(
        name=f"Triple-{one.name}", max_ongoing_requests=queue + HEADROOM, max_queued_requests=queue, **scale
    ).bind(config.model_dump_json(), one.model_dump_json(), leader)
    return bound


def _places(config: GatewayConfig, set_name: str) -> dict[str, Any]:
    """Where the three parties of a set are, and whose, for the plan."""
    records = open_folder(config.folder).directory().listed(set_name)
    return {
        "set_name": set_name,
        "batch": max(1, config.batching.max_tokens // TOKENS),
        "regions": tuple(record.region for record in records),
        "trusts": tuple(record.operator for record in records),
    }


def build(args: Mapping[str, Any] | Arguments) -> Application:
    """The whole gateway. Serve gives ``args`` as it finds them. Raises ConfigError, CertificateError: the deployment
    fails and says so.
    """
    refuse_proxy()
    arguments = args if isinstance(args, Arguments) else _read(args)
    config = GatewayConfig.load(arguments.config)
    if arguments.sets:
        known = {one.name: one for one in config.sets}
        only = tuple(known.get(name) or SetSettings(name=name) for name in arguments.sets)
        config = config.model_copy(update={"sets": only})
    sets = {one.name: triple(config, one, arguments.leader) for one in sets_to_lead(config)}
    deployment: Any = Gateway
    bound: Application = deployment.options(num_replicas=arguments.replicas).bind(
        config.model_dump_json(), sets
    )
    return bound


def _read(args: Mapping[str, Any]) -> Arguments:
    try:
        return Arguments.model_validate(dict(args))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"args of mpc_ray.serve.deployments:build: {where}: {first['msg']}",
            remedy=f"known are: {', '.join(Arguments.model_fields)}; configs/serve.yaml is an example",
        ) from None
