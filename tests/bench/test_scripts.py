"""The scripts of benchmarks/, as far as they run without the peer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[2]


def test_compare_takes_medians_and_ratios(load_script: Any) -> None:
    theirs = {"party0_bytes_sent": 800, "party0_send_actions": 2000, "peak_rss_bytes": [9, 8, 7]}
    peer = [
        {**theirs, "seconds": s, "mean_abs_error": 0.01, "max_abs_error": 0.1} for s in (30.0, 20.0, 90.0)
    ]
    costs = {"bytes_sent": [50, 100, 60], "rounds": 100, "peak_rss_bytes": [1, 3, 2]}
    ours = [
        {**costs, "seconds_median": s, "first_seconds": 2 * s, "mean_abs_error": 0.001, "max_abs_error": 0.05}
        for s in (3.0, 2.0, 9.0)
    ]
    rows = load_script("compare").comparison(peer, ours)
    assert rows["seconds"] == {"peer": 30.0, "ours": 3.0, "ratio": 10.0}
    assert rows["seconds, first pass"]["ratio"] == 5.0
    assert rows["bytes sent by one party"]["ratio"] == 8.0
    assert rows["peak memory of one party"]["ratio"] == 3.0
    assert rows["mean error"]["ratio"] == pytest.approx(10.0)


def test_compare_measures_the_shapes_of_the_project(load_script: Any) -> None:
    from mpc_ray.bench.shapes import SHAPES

    ours = {name: (s.layers, s.hidden, s.heads, s.ffn) for name, s in SHAPES.items()}
    measured = load_script("compare").SHAPES
    assert measured == ours


def test_protocols_measures_the_functions_and_protocols_of_the_project(load_script: Any) -> None:
    from mpc_ray.bench.cases import OPS
    from mpc_ray.bench.ops import EXECUTORS

    script = load_script("protocols")
    assert set(script.FUNCTIONS) == set(OPS)
    assert set(script.PROTOCOLS) == set(EXECUTORS)
    run = {
        "rounds": 1234,
        "bytes_sent": [1_000_000, 2_500_000, 0],
        "seconds_median": 0.5,
        "mean_abs_error": 1e-4,
    }
    line = script.table({"gelu": {"aby3": run}}).splitlines()[-1]
    assert line == "| gelu | – | 1,234 · 2.5 · 0.5 · 1.0e-04 | – |"


def test_a_million_sentences_are_priced(load_script: Any) -> None:
    cost = load_script("privacy_cost")
    assert cost.computing(0.36, cores=2, core_hour=0.05) == pytest.approx(10.0)
    assert cost.traffic(0.5)["two regions"] == pytest.approx(1e6 * 0.5 * 0.02)


def test_cpu_time_by_kernel_adds_up() -> None:
    """In a process of its own: it puts a clock around every kernel."""
    words = [sys.executable, str(ROOT / "benchmarks" / "cpu_time.py"), "--shape", "1x32x2x64", "--seq", "8"]
    answer = subprocess.run(
        [*words, "--runs", "1", "--json"], capture_output=True, text=True, check=False, timeout=170
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    by_kernel = found["cpu_seconds_by_kernel"]
    assert {"ring.matmul_packed", "lookup.lookup_sums", "PRF: expand", "TLS: encrypt and write"} <= set(
        by_kernel
    )
    assert found["calls_by_kernel"]["python and torch"] == 3  # one job at each party
    assert found["calls_by_kernel"]["ring.matmul_packed"] == 3 * 4  # four matrices a layer
    assert 0 < sum(by_kernel.values()) <= 1.05 * found["cpu_seconds"]  # what other threads do is in neither


@pytest.mark.parametrize(
    "name",
    [
        "batching",
        "compare",
        "cpu_time",
        "gateway_batching",
        "predict",
        "privacy_cost",
        "protocols",
        "recompute",
        "soak",
        "spu_encoder",
    ],
)
def test_a_script_explains_itself(name: str) -> None:
    answer = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    assert "usage" in answer.stdout


@pytest.fixture
def soak(load_script: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return load_script("soak")


def test_soak_counts_a_request_without_an_answer_and_goes_on(soak: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.headers.get("x-fails"):
            raise httpx.PoolTimeout("")
        return httpx.Response(200)

    async def sent() -> Any:
        async with httpx.AsyncClient(base_url="http://gw", transport=httpx.MockTransport(answer)) as http:
            mix = soak.Mix(http, None, 16)
            await mix.post("honest", b"{}", **{"x-fails": "1"})
            await mix.post("honest", b"{}")
            return mix

    mix = asyncio.run(sent())
    assert mix.seen == {"honest: PoolTimeout": 1, "honest: 200": 1}
    assert len(mix.taken) == 1


def test_soak_fails_on_lost_requests_and_server_errors_only(soak: Any) -> None:
    seen = {"honest: 200": 9, "replay: 409": 1, "honest: 504": 2, "honest: ReadTimeout": 3, "cut off: -": 4}
    assert soak.failures(seen | {"any: not sent": 5}) == {
        "any: not sent": 5,
        "honest: 504": 2,
        "honest: ReadTimeout": 3,
    }


def test_soak_says_whose_the_memory_is(soak: Any) -> None:
    ray = ["ray::ServeReplica:gateway:Gateway.handle", "/x/ray/gcs/gcs_server", "python"]
    assert soak.kind_of(ray) == "ServeReplica:gateway:Gateway"
    assert soak.kind_of(["/x/ray/gcs/gcs_server", "--log_dir=/tmp"]) == "gcs_server"
    assert soak.kind_of(["/bin/python", "/x/benchmarks/gateway_overhead.py"]) == "gateway_overhead.py"
    samples = [(float(i), 30.0 + i, Counter(head=10 + i, proxy=20)) for i in range(20)]
    assert soak.by_process(samples) == {"head": (10.5, 28.5), "proxy": (20, 20)}


def test_a_benchmark_ends_what_its_gateway_left_running(load_script: Any) -> None:
    overhead = load_script("gateway_overhead")
    left = [
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            env=os.environ | {overhead.RUN: run},
            start_new_session=True,
        )
        for run in ("this", "another")
    ]
    try:
        assert overhead.end_all("this") == 1
        assert not psutil.pid_exists(left[0].pid)
        assert psutil.Process(left[1].pid).is_running()
        assert overhead.end_all("this") == 0
    finally:
        for process in left:
            process.kill()
            process.wait()
