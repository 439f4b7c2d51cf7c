"""What the gateway itself costs: requests at a steady rate, TLS on, to a triple that computes nothing.

    python benchmarks/gateway_overhead.py --seconds 30 --rate 20

Three ways to host the same application, one after the other, each in a process of its own:

    uvicorn         mpc-ray gateway --standalone: the leader within the process
    uvicorn+serve   mpc-ray gateway: the leader in a replica of Ray Serve, behind a handle
    serve           serve deploy: Ray Serve's own proxy, a replica of the gateway, a replica of the leader

Milliseconds are the client's, from the first byte sent to the last received over an open connection; requests are
signed before the clock starts. The client shares the machine's cores with what it measures. ``--length`` gives requests
as large as one text of so many tokens has them (MiniLM's width); 0 sends small ones. Targets: p50 8 and p95 15 under
uvicorn, 15 and 40 under Serve.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import psutil

from mpc_ray.bench.machine import machine
from mpc_ray.bench.ports import free_ports
from mpc_ray.serve.apikeys import KeyStore
from mpc_ray.trust.authorisation import Authorisation, SigningKey
from mpc_ray.trust.authority import FederationAuthority
from mpc_ray.trust.folder import install, request_gateway, request_party

NAME = "gateway_overhead"
MODES = ("uvicorn", "uvicorn+serve", "serve")
TARGETS = {"uvicorn": (8.0, 15.0), "uvicorn+serve": (8.0, 15.0), "serve": (15.0, 40.0)}
HIDDEN = 384
WARM_UP = 60
END_S = 90.0  # Serve gives requests under way up to 70 s
RUN = "MPC_RAY_BENCHMARK_RUN"  # in the environment of all that one run starts: by it they are found again
NULL = "mpc_ray.serve.leaders:null_leader"
# Where the proxy and the replicas live: without them Serve hops between threads, and its proxy through Ray's actors.
FAST = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_PROXY_USE_GRPC": "1",
}


def prepare(root):
    """A federation of one set and a gateway of it; its configuration file, an API key, a signing key."""
    authority = FederationAuthority.init(root / "ca", "benchmark")
    requests = [request_gateway(root / "gw", name="one")]
    for index, place in enumerate(("IE", "FR", "DE")):
        fields = {"set": "eu", "index": index, "operator": f"operator-{index}", "region": f"eu-{index}"}
        ports = {"peer": f"127.0.0.1:{50100 + index}", "gateway": f"127.0.0.1:{50200 + index}"}
        requests.append(request_party(root / f"p{index}", jurisdiction=place, **fields, **ports))
    install(root / "gw", authority.sign(requests), fingerprint=authority.fingerprint)
    (root / "gateway.yaml").write_text("folder: gw\nport: 0\n")
    bearer = KeyStore(root / "gw").create("benchmark", per_minute=1_000_000).bearer
    return bearer, SigningKey.generate()


def body(key, length):
    """One signed request, as large as a text of ``length`` tokens makes it."""
    now = time.time_ns() // 1_000_000
    a, b, c = (secrets.token_hex(32) for _ in range(3))
    authorisation = Authorisation(
        secrets.token_hex(16), "benchmark", "eu", key.id, "null", "0" * 64, "semi_honest_3pc", 1, length or 16,
        "embedding", True, "benchmark", (), "job", now, now + 60_000, (a, b, c),
    )  # fmt: skip
    large = 2000 + 8 * length * HIDDEN  # a tensor is random at one party and masked at the two others
    return json.dumps(
        {
            "authorisation": authorisation.to_json(),
            "signature": base64.b64encode(key.sign(authorisation)).decode(),
            "envelopes": [base64.b64encode(os.urandom(size)).decode() for size in (2000, large, large)],
        }
    ).encode()


def host(mode, root):
    """Serve until standard input ends; the address is printed on one line."""
    from mpc_ray.serve.config import GatewayConfig

    config = GatewayConfig.load(root / "gateway.yaml")

    def until_told(url):
        print(json.dumps({"url": url}), file=sys.__stderr__, flush=True)
        sys.stdin.read()

    if mode == "serve":
        from mpc_ray.serve.cluster import joined

        with joined(config.ray):
            from ray import serve

            from mpc_ray.serve.deployments import Arguments, build

            certificate, private = map(str, config.certificate)
            (port,) = free_ports(1)
            serve.start(
                proxy_location="HeadOnly",
                http_options={
                    "host": "127.0.0.1",
                    "port": port,
                    "ssl_certfile": certificate,
                    "ssl_keyfile": private,
                },
                logging_config={"log_level": "WARNING", "enable_access_log": False},
            )
            app = build(Arguments(config=root / "gateway.yaml", leader=NULL, replicas=2))
            serve.run(app, name="gateway", route_prefix="/")
            until_told(f"https://127.0.0.1:{port}")
            serve.shutdown()
        return
    from mpc_ray.serve.driver import triples_on_ray
    from mpc_ray.serve.host import hosted
    from mpc_ray.serve.leaders import chosen_sets, null_leader
    from mpc_ray.trust.folder import open_folder

    (one,) = chosen_sets(config, open_folder(config.folder).directory())
    local = contextlib.nullcontext({"eu": null_leader(config, one, triples=1)})
    with (
        local if mode == "uvicorn" else triples_on_ray(config, NULL) as triples,
        hosted(config, triples) as server,
    ):
        until_told(server.url)


async def drive(url, context, bearer, key, length, rate, seconds):
    """Latencies in ms of requests sent every 1/rate s, and how many failed."""
    headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}
    limits = httpx.Limits(max_keepalive_connections=64)
    taken, failed = [], 0

    async with httpx.AsyncClient(
        base_url=url, verify=context, headers=headers, limits=limits, timeout=30
    ) as http:
        while (await http.get("/v2/health/ready")).status_code != 200:
            await asyncio.sleep(0.2)

        async def one(content):
            nonlocal failed
            begun = time.perf_counter()
            answer = await http.post("/v1/private/infer", content=content)
            if answer.status_code == 200:
                taken.append((time.perf_counter() - begun) * 1000)
            else:
                failed += 1

        loop = asyncio.get_running_loop()
        for count in (WARM_UP, round(rate * seconds)):
            taken.clear()
            under_way, begin = [], loop.time()
            for index in range(count):
                content = body(key, length)
                await asyncio.sleep(max(0.0, begin + index / rate - loop.time()))
                under_way.append(asyncio.create_task(one(content)))
            await asyncio.gather(*under_way)
    return sorted(taken), failed


@contextlib.contextmanager
def served(mode, root):
    """The gateway in a process of its own, for the time of the block: the process, and its address.

    However the block ends, nothing that was started for it goes on running.
    """
    command = [sys.executable, __file__, "--host", mode, "--root", str(root)]
    run = secrets.token_hex(16)
    environ = os.environ | (FAST if mode != "uvicorn" else {}) | {RUN: run}
    log = root / f"{mode}.log"
    with open(log, "wb") as out:
        server = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.PIPE,
            env=environ,
            start_new_session=True,  # Ctrl-C is for us: the gateway is ended in order
        )
        try:
            lines = []
            for line in server.stderr:
                if line.startswith(b'{"url"'):
                    break
                lines.append(line)
            else:
                raise SystemExit(f"{mode} did not start:\n{b''.join(lines[-20:]).decode()}")
            threading.Thread(target=server.stderr.read, daemon=True).start()  # a full pipe would stop it
            yield server, json.loads(line)["url"]
        finally:
            server.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(END_S)
            end_all(run)
            server.wait()


def end_all(run):
    """Kill what has ``run`` in its environment, wherever in the tree of processes it is by now; how many there were."""
    ended = 0
    while found := [process for process in psutil.process_iter() if belongs(process, run)]:
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=10)
        ended += len(found)
    return ended


def belongs(process, run):
    """Whether a process that is not yet dead was started in this run, by somebody of it."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(RUN) == run
    except psutil.Error:
        return False


def measure(mode, root, bearer, key, arguments):
    """One way of hosting: start it, load it, end it."""
    with served(mode, root) as (_, url):
        context = ssl.create_default_context(cafile=str(root / "gw" / "ca.pem"))
        context.check_hostname = False  # the federation's certificates name parties, not addresses
        taken, failed = asyncio.run(
            drive(url, context, bearer, key, arguments.length, arguments.rate, arguments.seconds)
        )

    def quantile(part):
        return round(taken[min(len(taken) - 1, int(part * len(taken)))], 2) if taken else None

    p50, p95 = TARGETS[mode]
    found = {"mode": mode, "requests": len(taken), "failed": failed}
    found |= {"p50_ms": quantile(0.5), "p95_ms": quantile(0.95), "p99_ms": quantile(0.99)}
    met = bool(taken) and not failed and found["p50_ms"] <= p50 and found["p95_ms"] <= p95
    return found | {"target_p50_ms": p50, "target_p95_ms": p95, "met": met}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument(
        "--length", type=int, default=0, choices=(0, 16, 32, 64, 128), help="tokens a request is for"
    )
    parser.add_argument("--mode", choices=MODES, action="append", help="only this one; may be given again")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    parser.add_argument("--host", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.host:
        host(arguments.host, arguments.root)
        return
    with tempfile.TemporaryDirectory(prefix="mpc-ov-") as folder:
        root = Path(folder)
        bearer, key = prepare(root)
        rows = [measure(mode, root, bearer, key, arguments) for mode in arguments.mode or MODES]
    result = {
        "benchmark": NAME,
        "rate": arguments.rate,
        "seconds": arguments.seconds,
        "length": arguments.length,
    }
    result |= {"rows": rows, "machine": machine()}
    if arguments.json:
        print(json.dumps(result))
        return
    print(
        f"{arguments.rate:g} requests/s for {arguments.seconds:g} s, TLS on, a triple that computes nothing"
    )
    print(f"{'':14} {'p50':>7} {'p95':>7} {'p99':>7}   target p50, p95   failed")
    for row in rows:
        times = " ".join(
            f"{row[name] if row[name] is not None else '-':>7}" for name in ("p50_ms", "p95_ms", "p99_ms")
        )
        print(
            f"{row['mode']:14} {times}   {row['target_p50_ms']:g}, {row['target_p95_ms']:g} "
            f"{'met' if row['met'] else 'MISSED'}   {row['failed']}"
        )
    print(json.dumps(result["machine"]))


if __name__ == "__main__":
    main()
