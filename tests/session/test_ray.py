"""Sessions on Ray: one small cluster with three logical GPUs for all tests, and a Ray of our own in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_ray.channel import Message
from mpc_ray.errors import ChannelError, ConfigError, DeviceError, PeerLost, PlacementError
from mpc_ray.launch_ray import RayLauncher
from mpc_ray.party_settings import PartySettings
from mpc_ray.scheduler import place
from mpc_ray.session import Session

ray = pytest.importorskip("ray")
SUM = [6, 60]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    os.environ.pop("RAY_ADDRESS", None)
    context = ray.init(
        address="local",
        num_cpus=4,
        num_gpus=3,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=78 << 20,
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def session(cluster: str, stub: str) -> Iterator[Session]:
    with Session(launcher="ray", executor=stub) as session:
        yield session
    assert ray.is_initialized()  # a Ray that we did not start is left as it was


def actors(session: Session) -> list[Any]:
    assert isinstance(session.launcher, RayLauncher)
    return session.launcher.actors


def kill_idle(session: Session, party: int) -> None:
    """Kill an actor and wait until it is dead: ``ray.kill`` returns before."""
    pid = session.stats()[party]["pid"]
    ray.kill(actors(session)[party])
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.01)


def good(session: Session, job: Any) -> bool:
    return all(answer.tensors["y"].tolist() == SUM for answer in session.run(job()))


def test_three_actors_round_trip(session: Session, job: Any) -> None:
    assert good(session, job)
    assert len({row["pid"] for row in session.stats()}) == 3
    assert session.trust.startswith("three actors on 1 node of one Ray cluster: whoever controls it")


@pytest.mark.parametrize("party", range(3))
def test_an_actor_killed_in_a_job_is_named_and_survived(session: Session, job: Any, party: int) -> None:
    offset = Message({"cmd": "load", "model": "m"}, {"offset": np.array([100, 0])})
    session.share("m", lambda: [offset] * 3)
    victim = actors(session)[party]
    killed: list[float] = []

    def kill(what: str, part: float) -> None:
        if what == "adding" and not killed:
            ray.kill(victim)
            killed.append(time.monotonic())

    session.progress, before = kill, session.progress
    try:
        with pytest.raises(PeerLost) as caught:
            session.run(job(who=(party + 1) % 3, how="sleep", seconds=0.2, rounds=20, model="m"))
    finally:
        session.progress = before
    assert time.monotonic() - killed[0] < 5
    assert caught.value.peer == f"party {party}"
    assert [a.tensors["y"].tolist() for a in session.run(job(model="m"))] == [[106, 60]] * 3
    session.forget("m")


def test_an_actor_killed_while_idle_is_named_by_the_next_call(session: Session, job: Any) -> None:
    kill_idle(session, 1)
    with pytest.raises(PeerLost) as caught:
        session.run(job())
    assert caught.value.peer == "party 1"
    assert good(session, job)


def test_logical_gpus_are_reserved_for_each_party(session: Session, stub: str) -> None:
    session.stop()  # its three parties hold three of four CPUs
    launcher = RayLauncher(num_gpus=1)
    settings = PartySettings(me=0, executor=stub, session="00" * 16, digest="00" * 32)
    triple = launcher.start(settings, 30)
    try:
        assert ray.available_resources().get("GPU", 0) == 0
        assert {len(ray.get(a.gpus.remote())) for a in launcher.actors} == {1}
    finally:
        triple.close()
        launcher.close()
    assert ray.is_initialized()


def test_more_gpus_than_there_are_is_a_device_error(cluster: str) -> None:
    launcher = RayLauncher(num_gpus=2)
    started = time.monotonic()
    with pytest.raises(DeviceError, match="need 6 GPU, the cluster has 3"):
        launcher.start(PartySettings(me=0, session="00" * 16, digest="00" * 32), 30)
    assert time.monotonic() - started < 2


def test_what_cannot_fit_is_a_placement_error_at_once(cluster: str) -> None:
    started = time.monotonic()
    with pytest.raises(PlacementError, match="cannot hold three parties"):
        place(cpus=2, gpus=0, reserve=True, deadline=time.monotonic() + 30)
    assert time.monotonic() - started < 2


def test_what_stays_busy_is_a_placement_error_at_the_deadline(session: Session, job: Any) -> None:
    assert good(session, job)  # three of four CPUs are taken
    with pytest.raises(PlacementError, match="too busy"):
        place(cpus=1, gpus=0, reserve=True, deadline=time.monotonic() + 0.5)


def test_a_detached_triple_is_left_running_and_found_again(session: Session, stub: str, job: Any) -> None:
    session.stop()
    given: dict[str, Any] = {"launcher": "ray", "executor": stub, "name": "blue", "detached": True}
    with Session(**given) as first:
        assert good(first, job)
        pids = [row["pid"] for row in first.stats()]
        with pytest.raises(ChannelError, match="serves another client"):
            Session(**given)
        assert good(first, job)
    assert ray.get_actor("party-2", namespace="blue")
    with Session(**given) as second:
        assert [row["pid"] for row in second.stats()] == pids
        assert good(second, job)
        kill_idle(second, 0)
        with pytest.raises(PeerLost, match="party 0"):
            second.run(job())
        assert good(second, job)
        second.stop()
    with pytest.raises(ValueError, match="party-1"):
        ray.get_actor("party-1", namespace="blue")


def test_a_name_in_use_is_a_config_error(session: Session, stub: str) -> None:
    session.stop()
    launcher = RayLauncher(name="red", num_cpus=0.1)
    settings = PartySettings(me=0, executor=stub, session="00" * 16, digest="00" * 32)
    triple = launcher.start(settings, 30)
    with pytest.raises(ConfigError, match="named red"):
        launcher.start(settings, 30)
    triple.close()
    launcher.start(settings, 30).close()


def test_an_actor_that_dies_while_starting_is_named(session: Session) -> None:
    session.stop()
    started = time.monotonic()
    with pytest.raises(PeerLost) as caught:
        Session(launcher="ray", executor="stub_executor:StillbornExecutor")
    assert caught.value.peer == "party 1"
    assert time.monotonic() - started < 10


NODES = """
import os, sys
sys.path.append(os.environ["STUB_AT"])
import ray
from ray.cluster_utils import Cluster
from mpc_ray.launch_ray import RayLauncher
from mpc_ray.party_settings import PartySettings
small = dict(object_store_memory=78 << 20, include_dashboard=False, temp_dir=os.environ["TMPDIR"] + "/r")
cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1, **small))
for party in (2, 0, 1):
    cluster.add_node(num_cpus=1, object_store_memory=78 << 20, labels={"party": str(party)}, wait=False)
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
launcher = RayLauncher()
settings = PartySettings(me=0, executor="stub_executor:StubExecutor", session="00" * 16, digest="00" * 32)
triple = launcher.start(settings, 40)
labels = [ray.get(actor.labels.remote()).get("party") for actor in launcher.actors]
print(labels, launcher.trust, sep="|")
triple.close()
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Ray's sockets live there, and their paths end at 107 bytes."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mpc-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_each_party_goes_to_the_node_that_its_operator_labelled(short_folder: Path) -> None:
    (short_folder / "ray").mkdir()  # the cluster's own notes
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"STUB_AT": os.path.dirname(__file__), "TMPDIR": str(short_folder)}
    child = subprocess.run(
        [sys.executable, "-P", "-c", NODES],
        capture_output=True,
        text=True,
        timeout=90,
        env=environment,
        check=True,
    )
    line = next(line for line in child.stdout.splitlines() if "|" in line)
    assert line.startswith(
        "['0', '1', '2']|three actors on 3 nodes of one Ray cluster: safe from a break-in at one"
    )


def test_an_address_where_nobody_listens(cluster: str) -> None:
    with pytest.raises(ConfigError, match="another Ray cluster"):
        RayLauncher(address="127.0.0.1:1")


OWN = """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.path.append(os.environ["STUB_AT"])
from mpc_ray.errors import ChannelError, ConfigError, DeviceError
from mpc_ray.launch_ray import RayLauncher, ray_quiet
from mpc_ray.session import Session
import numpy as np
from mpc_ray.channel import Message
with ray_quiet() as out:
    said = []
    for settings in ({"device": "cuda"}, {"ray_address": "127.0.0.1:1"}, {"detached": True, "name": "x"}):
        started = time.monotonic()
        try:
            Session(launcher="ray", executor="stub_executor:StubExecutor", **settings)
        except (ChannelError, ConfigError, DeviceError) as error:
            said.append([type(error).__name__, time.monotonic() - started])
    with Session(launcher="ray", executor="stub_executor:StubExecutor") as session:
        import ray
        x = [Message({"cmd": "run", "job": "00" * 16, "attempt": 0}, {"x": np.array([i])}) for i in range(3)]
        total = session.request(x)[0].tensors["y"].tolist()
        ray.kill(session.launcher.actors[0])
        time.sleep(0.5)
        mode = os.environ["RAY_AUTH_MODE"]
        ours = signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    down = not ray.is_initialized()
    print(json.dumps({"said": said, "total": total, "down": down, "mode": mode, "ours": ours}), file=out)
print("after")
"""


def test_a_ray_of_our_own_is_quiet_closed_and_shut_down() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment["STUB_AT"] = os.path.dirname(__file__)
    child = subprocess.run(
        [sys.executable, "-P", "-c", OWN],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=True,
    )
    first, second = child.stdout.splitlines()
    answer = json.loads(first)
    assert second == "after"
    assert [name for name, _ in answer["said"]] == ["DeviceError", "ChannelError", "ConfigError"]
    assert all(seconds < 5 for _, seconds in answer["said"])
    assert (answer["total"], answer["down"], answer["mode"], answer["ours"]) == ([3], True, "token", True)
