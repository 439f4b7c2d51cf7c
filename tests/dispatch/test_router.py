"""Ray Serve with the router by plan: jobs go where the plan says, and on when a replica dies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import asyncio, json, os, sys, time
import ray
from ray import serve
from ray.serve.config import RequestRouterConfig
from mpc_ray.dispatch.actor import plan_actor
from mpc_ray.dispatch.router import PlanRouter
from mpc_ray.dispatch.seen import Seen
from mpc_ray.planner.jobs import Link
from mpc_ray.serve.interface import Job
from mpc_ray.telemetry import metrics

ray.init(address="local", num_cpus=4, include_dashboard=False, object_store_memory=78 << 20,
         _temp_dir=os.environ["RAY_HOME"], namespace="mpc-ray", log_to_driver=False, logging_level="ERROR")
serve.start(proxy_location="Disabled")

@serve.deployment(num_replicas=2, max_ongoing_requests=32, health_check_period_s=1, health_check_timeout_s=5,
                  ray_actor_options={"num_cpus": 0.1},
                  request_router_config=RequestRouterConfig(request_router_class=PlanRouter,
                                                            request_router_kwargs={"set_name": "eu", "batch": 4},
                                                            request_routing_stats_period_s=0.3))
class Triple:
    def __init__(self):
        self.me = serve.get_replica_context().replica_id.unique_id
        self.seen = Seen()
    async def infer(self, job):
        await asyncio.sleep(0.3)
        self.seen.add(model="m", length=32, rows=1, jobs=1, rounds=137, nbytes=10**6, seconds=0.3)
        return self.me
    async def record_routing_stats(self):
        return self.seen.told()
    async def die(self):
        os._exit(1)

handle = serve.run(Triple.bind(), name="t", route_prefix=None)

def job(i, length=32):
    return Job({"job": f"{i:032x}", "model": "m", "batch": 1, "length": length}, b"", (b"", b"", b""))

async def several(first, count, length=32):
    done = await asyncio.gather(*(handle.infer.remote(job(first + i, length)) for i in range(count)),
                                return_exceptions=True)
    return [one if isinstance(one, str) else type(one).__name__ for one in done]

async def main():
    plan = plan_actor("mpc-ray plan eu", [Link(("", ""), 1e-3, 1e8)], batch=4)
    said = {"warm": await several(0, 2)}
    for _ in range(100):
        if len((await plan.status.remote())["triples"]) == 2: break
        await asyncio.sleep(0.1)
        await several(1000 + _ * 2, 1)
    before = await plan.status.remote()
    said["served"] = await several(10, 16)
    for _ in range(400):  # a job whose router did not wait for the plan is forgotten after half a minute
        after = await plan.status.remote()
        if after["waiting"] == 0: break
        await asyncio.sleep(0.1)
    said["placed"] = after["placed"] - before["placed"]
    said["waiting"] = after["waiting"]
    for i in range(40):  # a router passes on what Serve brought it when it routes
        said["error"] = (await plan.status.remote())["prediction_error"]
        said["exported"] = metrics.exposition()[0].decode().count("prediction_error_ratio_bucket")
        if said["error"] > 0 and said["exported"]: break
        await asyncio.sleep(0.3)
        await several(2000 + i, 1)
    handle.die.remote()
    await asyncio.sleep(0.2)
    said["again"] = []
    for i in range(40):
        said["again"] += await several(5000 + 10 * i, 2)
        if len((await plan.status.remote())["triples"]) == 2 and i > 3 and len(set(said["again"][-6:])) >= 1: break
        await asyncio.sleep(0.3)
    said["other"] = await several(9000, 1, length=0)
    return said

said = asyncio.run(main())
with open(os.environ["OUT"], "w") as file: json.dump(said, file)
serve.shutdown()
ray.shutdown()
"""


@pytest.fixture(scope="module")
def said() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="dr-", ignore_cleanup_errors=True) as folder:
        out = Path(folder, "out.json")
        environ = os.environ | {"RAY_HOME": folder, "OUT": str(out), "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(
            [sys.executable, "-P", "-c", PROGRAM],
            env=environ, capture_output=True, text=True, timeout=170, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        yield json.loads(out.read_text())


def test_jobs_go_where_the_plan_says_and_leave_it_when_they_are_over(said: dict[str, Any]) -> None:
    assert said["placed"] == 16 and said["waiting"] == 0
    served = said["served"]
    assert len(set(served)) == 2, "both replicas had work"
    assert 4 <= served.count(served[0]) <= 12


def test_a_replica_that_dies_costs_nothing_but_what_it_held(said: dict[str, Any]) -> None:
    assert said["again"][-2:] and not set(said["again"][-2:]) & {"RayActorError", "ActorDiedError"}


def test_what_leaders_measured_reaches_the_plan_and_its_error_the_metrics(said: dict[str, Any]) -> None:
    assert said["error"] > 0 and said["exported"] > 0


def test_what_is_no_job_goes_where_serve_sends_it(said: dict[str, Any]) -> None:
    assert len(said["other"][0]) > 4
