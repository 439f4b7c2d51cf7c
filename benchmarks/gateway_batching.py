"""What continuous batching is worth: requests a second with it and without, 8 clients at once, one text each.

    python benchmarks/gateway_batching.py --seconds 30

Three real endpoints on this machine (their slots are processes) and one leader of a triple, as in a gateway. Each
client seals a text, waits for its answer, opens and checks it, and sends the next. The two modes differ in one setting,
the tokens in a batch: as many as one request has, or 512. They take turns, so that a busy machine harms both.
"""

import argparse
import asyncio
import base64
import json
import statistics
import sys
import time

from mpc_ray.bench.machine import machine
from mpc_ray.bench.operators import Place, make_operators
from mpc_ray.bench.passage import SENTENCES
from mpc_ray.client.bundle import Bundle
from mpc_ray.client.request import Terms, opened, seal
from mpc_ray.client.share import prepare as share
from mpc_ray.errors import MpcError
from mpc_ray.model import DEMO_MODEL, prepare
from mpc_ray.serve.interface import Job
from mpc_ray.serve.triple import leader as leader_of

SET = "bench"
TARGET = 2.0


def job_of(sealed, timeout_s):
    """A sealed request as a gateway hands it to the leader."""
    body = json.loads(sealed.body)
    a, b, c = map(base64.b64decode, body["envelopes"])
    return Job(body["authorisation"], base64.b64decode(body["signature"]), (a, b, c), timeout_s)


def body_of(answers):
    """What a gateway would answer."""
    sealed = [base64.b64encode(one).decode() for one in answers.sealed]
    return json.dumps({"job": answers.job, "answers": sealed, "timing": dict(answers.timing)}).encode()


async def client(leader, operators, batches, until, done):
    """One client, request after request, until its time is over. ``done`` gets (seconds, timing) of each."""
    turn = 0
    while time.perf_counter() < until:
        batch = batches[turn % len(batches)]
        turn += 1
        began = time.perf_counter()
        sealed = await asyncio.to_thread(seal, batch, operators.directory, SET, Terms(), operators.client)
        answers = await leader.infer(job_of(sealed, 60.0))
        await asyncio.to_thread(opened, sealed, body_of(answers), batch)
        done.append((time.perf_counter() - began, answers.timing))


async def measure(operators, batches, tokens, clients, seconds):
    """All requests of one mode: (seconds it took, [(seconds, timing)])."""
    settings = {"max_tokens": tokens, "max_queue": 4 * clients}
    leader = leader_of(operators.gateway, operators.directory, SET, settings=settings)
    await leader.start(wait_s=180.0)
    try:
        for _ in range(900):
            if leader.ready:
                break
            operators.check()
            await asyncio.sleep(0.2)
        await client(leader, operators, batches, time.perf_counter() + 0.01, [])  # one to warm up
        done = []
        began = time.perf_counter()
        until = began + seconds
        mine = [batches[i:] + batches[:i] for i in range(clients)]
        await asyncio.gather(*(client(leader, operators, mine[i], until, done) for i in range(clients)))
        return time.perf_counter() - began, done
    finally:
        await leader.stop()


def figures(took, done):
    """What is reported of one mode."""
    waits = sorted(seconds for seconds, _ in done)
    return {
        "requests": len(done),
        "requests_per_second": len(done) / took,
        "latency_s": {"p50": statistics.median(waits), "p95": waits[int(0.95 * (len(waits) - 1))]},
        "jobs_per_run": 1 / statistics.mean(1 / timing["batch"] for _, timing in done),
        "run_s": statistics.mean(timing["run_s"] for _, timing in done),
        "queue_s": statistics.mean(timing["queue_s"] for _, timing in done),
        "rounds_per_run": statistics.mean(timing["rounds"] for _, timing in done),
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=DEMO_MODEL, help="folder in Hugging Face layout, or a name")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each turn of each mode")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=512, help="in a batch, with batching")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="one way between two operators, added")
    a = parser.parse_args()
    if min(a.clients, a.turns) < 1 or a.seconds <= 0:
        parser.error("--clients, --turns and --seconds are above 0")
    place = Place("here", ("IE", "DE", "FR"), apart_s=a.latency_ms / 1000)
    try:
        with make_operators(prepare(a.model, (32,)), {SET: place}, name="model") as operators:
            operators.start_all()
            bundle = Bundle.load(operators.bundle)
            batches = [one for one in (share(bundle, [text])[0] for text in SENTENCES) if one.length == 32]
            modes = {"one at a time": 32, "batched": a.tokens}
            results = {name: [0.0, []] for name in modes}
            for turn in range(a.turns):
                for name, tokens in modes.items():
                    took, done = asyncio.run(measure(operators, batches, tokens, a.clients, a.seconds))
                    results[name][0] += took
                    results[name][1] += done
                    print(f"turn {turn + 1}, {name}: {len(done)} in {took:.1f} s", file=sys.stderr)
    except MpcError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    found = {name: figures(took, done) for name, (took, done) in results.items()}
    gain = found["batched"]["requests_per_second"] / found["one at a time"]["requests_per_second"]
    print(f"\n{a.clients} clients, one text of at most 32 tokens each, model {a.model}", file=sys.stderr)
    print(
        f"{'':14} {'requests/s':>10} {'p50 s':>7} {'p95 s':>7} {'jobs/run':>9} {'run s':>7}", file=sys.stderr
    )
    for name, one in found.items():
        print(
            f"{name:14} {one['requests_per_second']:10.2f} {one['latency_s']['p50']:7.2f} "
            f"{one['latency_s']['p95']:7.2f} {one['jobs_per_run']:9.1f} {one['run_s']:7.2f}",
            file=sys.stderr,
        )
    print(f"batching gives {gain:.2f} times the throughput (target {TARGET:g})", file=sys.stderr)
    settings = {"clients": a.clients, "seconds": a.seconds, "turns": a.turns, "latency_ms": a.latency_ms}
    print(
        json.dumps(
            {
                "model": a.model,
                **settings,
                "modes": found,
                "gain": gain,
                "target": TARGET,
                "machine": machine(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
