"""One endpoint on its operator's own Ray, two on processes: a real run, and what is killed comes back by itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from cluster import (  # type: ignore[import-not-found]
    PROGRAM,
    Three,
    agreed,
    at_all,
    environ,
    events,
    open_triple,
    run,
    sealed,
    three_endpoints,
    wait_until,
)

from mpc_ray.channel import Message
from mpc_ray.errors import MpcError
from mpc_ray.models.bert_float import embed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Ray's processes are told apart by /proc")

TEXTS = ["hello world"]
BACK_S = 90.0  # how long it takes is the rehearsal's to measure


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    with three_endpoints(tmp_path_factory.mktemp("ray"), start=False) as made:
        made.start("eu", 0, host="ray")
        made.start("eu", 1)
        made.start("eu", 2)
        made.wait()
        yield made


def computes(three: Three) -> None:
    links = three.links()
    try:
        triple = open_triple(links)
        job = three.job(TEXTS)
        agreed(at_all(links, job.submit))
        got = job.read(sealed(agreed(run(links, triple, [job])), job))
        assert np.abs(got - embed(three.bert, TEXTS)[list(job.batch.indices)]).max() < 2e-3
        agreed(at_all(links, lambda i: Message({"cmd": "close", "triple": triple})))
    finally:
        for link in links:
            link.close()


def ready(three: Three) -> bool:
    try:
        status = three.status("eu", 0)
    except MpcError:
        return False
    return bool(status["ready"]) and status["slots"]["free"] == 1


def mine(three: Three, *words: str) -> list[psutil.Process]:
    """Processes below party 0's front whose name or command line has all of ``words``."""
    found = []
    for process in psutil.Process(three.pid("eu", 0)).children(recursive=True):
        try:
            text = " ".join((process.name(), *process.cmdline()))
        except psutil.Error:
            continue
        if all(word in text for word in words):
            found.append(process)
    return found


def test_a_slot_on_ray_computes_with_slots_of_other_kinds(three: Three) -> None:
    said = [event for event in events(three.log("eu", 0)) if event.get("event") == "ready"]
    assert len(said) == 1 and "its own Ray at" in said[0]["host"]
    computes(three)


@pytest.mark.parametrize("what", ["ray::SlotActor", "raylet", "gcs_server"])
def test_what_is_killed_comes_back(three: Three, what: str) -> None:
    victims = mine(three, what) if what != "raylet" else [p for p in mine(three) if p.name() == "raylet"]
    assert victims, f"no {what} is running"
    before = {p.pid for p in mine(three)}
    victims[0].kill()
    assert wait_until(lambda: not ready(three), 20), "its death was not noticed"
    assert wait_until(lambda: ready(three), BACK_S), three.tail("eu", 0)
    if what != "ray::SlotActor":  # a new Ray: nothing of the old one is left
        assert wait_until(lambda: not before & {p.pid for p in three.processes()}, 10)
    computes(three)


def test_it_ends_without_touching_another_ray(three: Three, tmp_path: Path) -> None:
    """Something that looks like a Ray of somebody else runs on; of ours nothing is left, politely or not."""
    other = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", "raylet", "/tmp/ray/session_x"]
    )
    try:
        ours = {p.pid for p in mine(three)}
        assert len(ours) > 4
        assert three.kill("eu", 0, signal.SIGTERM) == 0
        assert wait_until(lambda: not any(psutil.pid_exists(pid) for pid in ours), 5)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_killed_front_takes_its_ray_along(three: Three) -> None:
    three.start("eu", 0, host="ray")
    three.wait_for("eu", 0)
    ours = {p.pid for p in mine(three)}
    three.kill("eu", 0, signal.SIGKILL)
    assert wait_until(lambda: not any(psutil.pid_exists(pid) for pid in ours), 15), [
        p.cmdline()[:3] for p in three.processes() if p.pid in ours
    ]


def test_an_open_ray_is_refused(three: Three, tmp_path: Path) -> None:
    """A cluster that demands no token: named, and the party ends, with exit code 2."""
    token = tmp_path / "token"
    token.write_text("ab" * 32)
    server = subprocess.Popen(
        [sys.executable, "-c", OPEN_GCS], stdout=subprocess.PIPE, text=True, env=environ(three.root)
    )
    try:
        assert server.stdout is not None
        address = f"127.0.0.1:{server.stdout.readline().strip()}"
        config = three.config("eu", 0, host="ray", ray={"address": address, "token": str(token)})
        began = time.monotonic()
        done = subprocess.run(
            check=False,
            args=[*PROGRAM, "party", "--config", str(config), "--json"],
            env=environ(three.root),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2, done.stderr
        assert "is open: it demands no token" in json.loads(done.stdout)["cause"]
        assert time.monotonic() - began < 30
    finally:
        server.kill()
        server.communicate()


OPEN_GCS = """
import time, grpc
from concurrent.futures import ThreadPoolExecutor
class All(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
server = grpc.server(ThreadPoolExecutor(2), handlers=(All(),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
time.sleep(60)
"""
