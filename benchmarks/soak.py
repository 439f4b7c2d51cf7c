"""Hours of honest and hostile requests: is the gateway's memory flat?

    python benchmarks/soak.py --minutes 60 --rate 20

Of each hundred requests 60 are honest, 20 are sent twice under one Idempotency-Key, 5 each are replays, malformed, of
unknown keys, and cut off while their body is sent. The gateway runs in a process of its own (--mode as in
gateway_overhead.py) with a triple that computes nothing; its memory is what the process and all its children have for
themselves alone (unique set size: the proportional one changes when others leave the machine). The first fifth is a
warm-up. The slope is a least-squares line through the rest; flat is a growth over the whole run of less than ``--most``
MiB, or of less than the line's own uncertainty (two standard errors). Milliseconds are the honest requests' after the
warm-up. A request that got no answer counts as one under the error's name; at most UNDER_WAY are under way, and what
would have been sent beside them counts as "not sent". Either fails the run, as answers 500 to 504 do. Whatever ends the
run, a signal too, ends every process that it started.
"""

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import ssl
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
from gateway_overhead import MODES, body, prepare, served

from mpc_ray.bench.machine import machine

NAME = "soak"
SAMPLES = 1000  # in a run, at most: to read the memory of Serve's processes takes a good part of a second
SAMPLE_S = 2.0  # between two, at least
TIMEOUT_S = 60.0
UNDER_WAY = 256  # of requests; a gateway that stands still must not take the client's memory


def memory(process):
    """Unique set size in MiB of a process and its children, by what they are."""
    sizes = collections.Counter()
    for one in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            sizes[kind_of(one.cmdline())] += one.memory_full_info().uss / (1 << 20)
    return sizes


def kind_of(words):
    """A word for a process: gcs_server, raylet, the class of a Ray actor, the last part of a program's name."""
    first = words[0] if words else "ended"
    if first.startswith("ray::"):
        return first[5:].partition(".")[0]
    scripts = [Path(word).name for word in words[1:] if word.endswith(".py")]
    return scripts[0] if scripts else Path(first).name


def slope(samples):
    """MiB a minute and its standard error, of (seconds, MiB)."""
    count = len(samples)
    if count < 3:
        return 0.0, float("inf")
    times, sizes = zip(*((seconds / 60, size) for seconds, size in samples), strict=True)
    mean_t, mean_s = sum(times) / count, sum(sizes) / count
    spread = sum((t - mean_t) ** 2 for t in times)
    rise = sum((t - mean_t) * (s - mean_s) for t, s in zip(times, sizes, strict=True)) / spread
    rest = sum((s - mean_s - rise * (t - mean_t)) ** 2 for t, s in zip(times, sizes, strict=True))
    return rise, (rest / (count - 2) / spread) ** 0.5


class Mix:
    """Sends one request of the mix at a time, and counts what was answered."""

    def __init__(self, http, key, length):
        self.http, self.key, self.length = http, key, length
        self.seen = collections.Counter()
        self.old = collections.deque(maxlen=50)
        self.taken = []  # ms of honest requests

    async def post(self, kind, content, **headers):
        """One request and its answer; the client's own errors are answers as well."""
        begun = time.perf_counter()
        try:
            answer = await self.http.post("/v1/private/infer", content=content, headers=headers)
        except httpx.HTTPError as error:
            self.seen[f"{kind}: {type(error).__name__}"] += 1
            return
        self.seen[f"{kind}: {answer.status_code}"] += 1
        if kind == "honest" and answer.status_code == 200:
            self.taken.append((time.perf_counter() - begun) * 1000)

    async def one(self):
        draw = random.random()  # noqa: S311 - which kind of request comes next is no secret
        content = body(self.key, self.length)
        if draw < 0.6:
            await self.post("honest", content)
            self.old.append(content)
        elif draw < 0.8:
            name = os.urandom(8).hex()
            await asyncio.gather(
                *(self.post("idempotent", content, **{"Idempotency-Key": name}) for _ in range(2))
            )
        elif draw < 0.85 and self.old:
            await self.post("replay", random.choice(self.old))  # noqa: S311
        elif draw < 0.9:
            await self.post("malformed", content[: len(content) // 2])
        elif draw < 0.95:
            await self.post("unknown key", content, Authorization=f"Bearer mpck_{'0' * 16}_{'A' * 43}")
        else:
            await self.cut(content)

    async def cut(self, content):
        async def half():
            yield content[: len(content) // 2]
            raise ConnectionError

        with contextlib.suppress(ConnectionError, httpx.HTTPError):
            await self.http.post("/v1/private/infer", content=half())
        self.seen["cut off: -"] += 1


async def load(url, context, bearer, key, arguments, process, show):
    """Samples (seconds, MiB, the same by kind of process), what was answered, ms of the honest ones."""
    headers = {"authorization": f"Bearer {bearer}", "content-type": "application/json"}
    samples, end = [], 60 * arguments.minutes
    # As many connections as requests: a slow gateway is to be seen as slow, not as a queue for the client's pool.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(
        base_url=url, verify=context, headers=headers, limits=limits, timeout=TIMEOUT_S
    ) as http:
        await ready(http)
        mix, loop = Mix(http, key, arguments.length), asyncio.get_running_loop()
        begin, under_way = loop.time(), set()

        async def sample():
            while True:
                sizes = await asyncio.to_thread(memory, process)
                samples.append((loop.time() - begin, sizes.total(), sizes))
                size = sizes.total()
                show(
                    f"\r{samples[-1][0] / 60:6.1f} of {arguments.minutes:g} minutes  {size:8.1f} MiB  "
                    f"{sum(mix.seen.values()):>8,} answers "
                )
                await asyncio.sleep(max(SAMPLE_S, end / SAMPLES))

        async with asyncio.TaskGroup() as group:
            sampling = group.create_task(sample())
            index, warm = 0, 0
            while (now := loop.time() - begin) < end:
                if len(under_way) < UNDER_WAY:
                    task = group.create_task(mix.one())
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                else:
                    mix.seen["any: not sent"] += 1
                if now < end / 5:
                    warm = len(mix.taken)
                index += 1
                await asyncio.sleep(max(0.0, begin + index / arguments.rate - loop.time()))
            sampling.cancel()
    return samples, mix.seen, sorted(mix.taken[warm:])


async def ready(http):
    """Until the gateway is. A replica that is not yet there refuses or hangs up."""
    while True:
        with contextlib.suppress(httpx.TransportError):
            if (await http.get("/v2/health/ready")).status_code == 200:
                return
        await asyncio.sleep(0.2)


def failures(seen):
    """Of what was seen, what fails the run: the server's errors, and requests without an answer."""
    bad = ("500", "502", "503", "504")

    def wrong(name):
        what = name.rpartition(": ")[2]
        return what in bad or not (what == "-" or what.isdecimal())

    return {name: count for name, count in sorted(seen.items()) if wrong(name)}


def by_process(samples):
    """For each kind of process the medians of the first and the last tenth of the samples, the largest kinds first."""
    part = max(1, len(samples) // 10)

    def middle(kind, some):
        return round(statistics.median(sizes[kind] for _, _, sizes in some), 1)

    kinds = {kind for _, _, sizes in samples for kind in sizes}
    found = {kind: (middle(kind, samples[:part]), middle(kind, samples[-part:])) for kind in kinds}
    return dict(sorted(found.items(), key=lambda one: -one[1][1]))


def quantile(taken, part):
    """Of sorted values, to two places."""
    return round(taken[min(len(taken) - 1, int(part * len(taken)))], 2) if taken else None


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument(
        "--length", type=int, default=16, choices=(0, 16, 32, 64, 128), help="tokens a request is for"
    )
    parser.add_argument("--mode", choices=MODES, default="uvicorn", help="how the gateway is hosted")
    parser.add_argument("--most", type=float, default=8.0, help="MiB that the run may grow by")
    parser.add_argument("--json", action="store_true", help="one JSON object and nothing else")
    arguments = parser.parse_args()

    def show(line):
        if sys.stderr.isatty():
            print(line, end="", file=sys.stderr, flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    with tempfile.TemporaryDirectory(prefix="mpc-soak-") as folder:
        root = Path(folder)
        bearer, key = prepare(root)
        # Stored answers are kept for half of the warm-up, so that what is measured is a steady state.
        kept_s = max(1.0, min(600.0, 6 * arguments.minutes))
        (root / "gateway.yaml").write_text(f"folder: gw\nport: 0\nlimits: {{idempotency_s: {kept_s}}}\n")
        with served(arguments.mode, root) as (server, url):
            context = ssl.create_default_context(cafile=str(root / "gw" / "ca.pem"))
            context.check_hostname = False  # the federation's certificates name parties, not addresses
            process = psutil.Process(server.pid)
            begun = time.monotonic()
            samples, seen, taken = asyncio.run(load(url, context, bearer, key, arguments, process, show))
            seconds = time.monotonic() - begun
    kept = [sample for sample in samples if sample[0] >= 12 * arguments.minutes]
    rise, error = slope([(seconds, size) for seconds, size, _ in kept])
    span = (kept[-1][0] - kept[0][0]) / 60 if len(kept) > 1 else 0.0
    growth, unsure = rise * span, 2 * error * span
    wrong = failures(seen)
    flat = growth < max(arguments.most, min(unsure, 2 * arguments.most))
    result = {
        "benchmark": NAME,
        "mode": arguments.mode,
        "minutes": round(seconds / 60, 2),
        "answers": dict(sorted(seen.items())),
        "first_mib": round(kept[0][1], 1) if kept else None,
        "last_mib": round(kept[-1][1], 1) if kept else None,
        "curve_mib": [round(samples[len(samples) * part // 12][1], 1) for part in range(12)],
        "by_process_mib": by_process(kept),
        "slope_mib_per_hour": round(60 * rise, 2),
        "growth_mib": round(growth, 2),
        "flat": flat,
        "p50_ms": quantile(taken, 0.5),
        "p95_ms": quantile(taken, 0.95),
        "p99_ms": quantile(taken, 0.99),
        "errors": wrong,
        "machine": machine(),
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"\n{result['minutes']} minutes under {arguments.mode}, {sum(seen.values()):,} answers")
        for name, count in result["answers"].items():
            print(f"  {name:24} {count:>9,}")
        print(f"honest: p50 {result['p50_ms']} ms, p95 {result['p95_ms']} ms, p99 {result['p99_ms']} ms")
        print(
            f"memory {result['first_mib']} -> {result['last_mib']} MiB, "
            f"{result['slope_mib_per_hour']:+} MiB an hour: {'flat' if flat else 'NOT FLAT'}"
        )
        for kind, (first, last) in result["by_process_mib"].items():
            print(f"  {kind:28} {first:8,.1f} -> {last:8,.1f} MiB")
        print(json.dumps(result["machine"]))
    sys.exit(0 if flat and not wrong else 1)


if __name__ == "__main__":
    main()
