"""The gateway on Ray Serve in a process and a Ray of its own; prints what happened as one JSON object.

python serve_scenario.py FOLDER
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import secrets
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from gateways import Federation, api_key, body, federation, public_certificate

from mpc_ray.bench.ports import free_ports
from mpc_ray.serve.cluster import joined
from mpc_ray.serve.config import RaySettings

LEADER = "scripted:leader"
QUICK = {"upscale_delay_s": 0.2, "downscale_delay_s": 1, "metrics_interval_s": 0.2, "look_back_period_s": 1}


class Caller:
    def __init__(self, of: Federation, url: str, certificate: Path, named: bool = True) -> None:
        self.of = of
        trusted = ssl.create_default_context(cafile=str(certificate))
        trusted.check_hostname = named  # the federation's certificates name no address
        self.seen: collections.Counter[str] = collections.Counter()
        headers = {"authorization": f"Bearer {api_key(of, per_minute=100_000)}"}
        self.http = httpx.AsyncClient(base_url=url, verify=trusted, headers=headers, timeout=30)

    def sent(self, purpose: str = "search", **changes: Any) -> dict[str, Any]:
        return body(self.of, model_digest="0" * 64, purpose=purpose, **changes)

    async def infer(self, purpose: str = "search", **headers: str) -> httpx.Response:
        answer = await self.http.post("/v1/private/infer", json=self.sent(purpose), headers=headers)
        self.seen[self.word(answer)] += 1
        return answer

    @staticmethod
    def word(answer: httpx.Response) -> str:
        if answer.status_code == 200:
            return "ok"
        if answer.headers.get("content-type") != "application/problem+json":
            return f"{answer.status_code} {answer.text[:100]}"  # of Serve's own proxy
        return f"{answer.status_code} {answer.json()['code']}"

    async def until_ready(self, seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while (await self.http.get("/v2/health/ready")).status_code != 200:
            if time.monotonic() > end:
                raise TimeoutError
            await asyncio.sleep(0.1)


async def first(caller: Caller) -> dict[str, Any]:
    """Answers and errors as the application means them, through proxy, replica, actor and handle."""
    await caller.until_ready()
    found: dict[str, Any] = {}
    for purpose in ("search", "refused", "lost", "bug"):
        answer = await caller.infer(purpose)
        found[purpose] = caller.word(answer)
        found["retry_after"] = found.get("retry_after") or answer.headers.get("retry-after")
    found["deadline"] = caller.word(await caller.infer("slow", **{"x-request-timeout-ms": "100"}))
    found["no_key"] = caller.word(
        await caller.http.post("/v1/private/infer", json=caller.sent(), headers={"authorization": "Bearer x"})
    )
    json_type = {"content-type": "application/json"}
    large = await caller.http.post("/v1/private/infer", content=b" " * 300_000, headers=json_type)
    found["large"] = caller.word(large)

    twice, key = json.dumps(caller.sent("slow")), {"idempotency-key": secrets.token_hex(8)}
    headers = key | json_type
    asked = [caller.http.post("/v1/private/infer", content=twice, headers=headers) for _ in range(6)]
    answers = await asyncio.gather(*asked)
    found["idempotent"] = {
        "words": sorted({caller.word(answer) for answer in answers}),
        "bodies": len({answer.content for answer in answers}),
        "stored": sum("idempotency-replayed" in answer.headers for answer in answers),
    }
    slow = await asyncio.gather(*(caller.infer("slow") for _ in range(24)))
    found["pressed"] = dict(collections.Counter(caller.word(answer) for answer in slow))
    few = api_key(caller.of, per_minute=5)
    limited = []
    for _ in range(10):
        answer = await caller.infer("search", authorization=f"Bearer {few}")
        limited.append(caller.word(answer))
        await asyncio.sleep(0.1)
    found["limited"] = dict(collections.Counter(limited))
    return found


async def killed(caller: Caller) -> dict[str, Any]:
    """A leader is killed: its request may fail in a way that can be retried, and service is back."""
    word = caller.word(await caller.infer("dies"))
    begun = time.monotonic()
    while caller.word(await caller.infer()) != "ok":
        await asyncio.sleep(0.1)
    return {"word": word, "back_s": time.monotonic() - begun}


def kill_a_replica() -> None:
    """SIGKILL one of the two replicas of the gateway."""
    mine = psutil.Process().children(recursive=True)
    replicas = [one for one in mine if "ServeReplica:gateway:Gateway" in " ".join(one.cmdline())]
    time.sleep(0.5)  # requests are under way in it
    replicas[0].kill()
    time.sleep(3)


async def under_load(caller: Caller, change: Any, clients: int = 3) -> dict[str, Any]:
    """Requests all the while that ``change`` is rolled out."""
    await caller.until_ready()
    caller.seen.clear()
    done = asyncio.Event()

    async def load() -> None:
        while not done.is_set():
            await caller.infer("slow" if secrets.randbelow(4) == 0 else "search")

    loads = [asyncio.create_task(load()) for _ in range(clients)]
    begun = time.monotonic()
    await asyncio.to_thread(change)
    await asyncio.sleep(1)
    done.set()
    await asyncio.gather(*loads)
    return {"seen": dict(caller.seen), "seconds": time.monotonic() - begun}


def as_driver(of: Federation, settings: Path) -> dict[str, Any]:
    """The same application under uvicorn in this process, its triples behind handles: ``mpc-ray gateway``. They grow
    from one to two under load, and shrink after it.
    """
    from ray import serve

    from mpc_ray.serve import deployments, driver
    from mpc_ray.serve.config import GatewayConfig, SetSettings
    from mpc_ray.serve.host import hosted

    driver.joined = lambda _: contextlib.nullcontext()  # this process is in its Ray already
    deployments.PACE = dict(QUICK)
    config = GatewayConfig.load(settings)
    config = config.model_copy(update={"port": 0, "sets": (SetSettings(name="eu", max_triples=2),)})

    async def running(wanted: int, seconds: float = 60.0) -> int:
        """How many triples run, once it is so many or the time is over."""
        end = time.monotonic() + seconds
        while True:
            status = await asyncio.to_thread(serve.status)
            now = status.applications["mpc-ray-eu"].deployments["Triple-eu"].replica_states.get("RUNNING", 0)
            if now == wanted or time.monotonic() > end:
                return now
            await asyncio.sleep(0.2)

    async def ask(url: str) -> dict[str, Any]:
        caller = Caller(of, url, of.folder / "ca.pem", named=False)
        await caller.until_ready()
        word = caller.word(await caller.infer())
        counts, leaders, done = [await running(1)], set(), asyncio.Event()

        async def load() -> None:
            while not done.is_set():
                answer = await caller.infer("slow")
                if answer.status_code == 200:
                    leaders.add(answer.json()["timing"]["pid"])

        loads = [asyncio.create_task(load()) for _ in range(4)]
        counts.append(await running(2))
        end = time.monotonic() + 20
        while len(leaders) < 2 and time.monotonic() < end:
            await asyncio.sleep(0.2)
        done.set()
        await asyncio.gather(*loads)
        counts.append(await running(1))
        await caller.infer()
        await caller.http.aclose()
        return {"word": word, "counts": counts, "leaders": len(leaders), "seen": dict(caller.seen)}

    with driver.triples_on_ray(config, LEADER) as triples:
        there = list(serve.status().applications)
        with hosted(config, triples) as server:
            found = asyncio.run(ask(server.url))
    end = time.monotonic() + 10
    while serve.status().applications and time.monotonic() < end:
        time.sleep(0.1)
    return {"during": there, "after": list(serve.status().applications), **found}


def main(root: Path) -> None:
    of = federation(root, ("eu",))
    certificate, private = public_certificate(root, "public")
    settings = root / "gateway.yaml"

    def write(batch: int) -> None:
        content = {
            "folder": "gw",
            "limits": {"batch": batch, "body_bytes": 200_000},
            "batching": {"max_queue": 4},
        }
        settings.write_text(json.dumps(content))

    write(64)
    result: dict[str, Any] = {}
    with joined(RaySettings()):
        from ray import serve

        from mpc_ray.serve.deployments import Arguments, build

        (port,) = free_ports(1)
        serve.start(
            proxy_location="HeadOnly",
            http_options={
                "host": "127.0.0.1", "port": port, "ssl_certfile": str(certificate), "ssl_keyfile": str(private)
            },
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )  # fmt: skip

        def deploy() -> None:
            serve.run(build(Arguments(config=settings, leader=LEADER)), name="gateway", route_prefix="/")

        deploy()

        async def scenario() -> None:
            caller = Caller(of, f"https://127.0.0.1:{port}", certificate)
            result["first"] = await first(caller)
            result["killed"] = await killed(caller)
            result["replica_killed"] = await under_load(caller, kill_a_replica, clients=6)
            write(32)
            result["update"] = await under_load(caller, deploy)
            key = {"authorization": caller.http.headers["authorization"]}
            models = (await caller.http.get("/v1/models", headers=key)).json()["data"]
            result["updated"] = [one["max_batch"] for one in models]
            await caller.http.aclose()

        asyncio.run(scenario())
        serve.delete("gateway")
        result["driver"] = as_driver(of, settings)
        serve.shutdown()
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
