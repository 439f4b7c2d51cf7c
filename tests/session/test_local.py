"""Sessions without Ray: threads and processes, from a round trip to parties that die, hang, refuse and crash."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_ray.channel import Message
from mpc_ray.errors import ConfigError, DeviceError, InputError, MpcError, PeerLost
from mpc_ray.launch import ProcessesLauncher
from mpc_ray.session import Session

SUM = [6, 60]


@pytest.fixture(scope="module")
def processes(stub: str) -> Iterator[Session]:
    with Session(launcher="processes", executor=stub) as session:
        yield session


def pids(session: Session) -> list[int]:
    launcher = session.launcher
    assert isinstance(launcher, ProcessesLauncher)
    return launcher.pids


def good(session: Session, job: Any) -> bool:
    return all(answer.tensors["y"].tolist() == SUM for answer in session.run(job()))


@pytest.mark.parametrize("tls", [False, True])
def test_threads_round_trip_model_and_forget(tls: bool, stub: str, job: Any) -> None:
    seen: list[tuple[str, float]] = []
    with Session(launcher="threads", tls=tls, executor=stub, progress=lambda *at: seen.append(at)) as session:
        offset = Message({"cmd": "load", "model": "m"}, {"offset": np.array([100, 0])})
        loaded = session.share("m", lambda: [offset] * 3)
        assert len({str(answer.header["digest"]) for answer in loaded}) == 1
        assert [a.tensors["y"].tolist() for a in session.run(job(model="m"))] == [[106, 60]] * 3
        session.forget("m")
        with pytest.raises(MpcError, match="KeyError inside the party"):
            session.run(job(model="m"))
        assert good(session, job)
        assert "tests only" in session.trust
    assert ("adding", 0.5) in seen


def test_a_closed_session_says_so(stub: str, job: Any) -> None:
    with Session(launcher="threads", tls=False, executor=stub) as session:
        pass
    session.close()
    with pytest.raises(ConfigError, match="closed"):
        session.run(job())


@pytest.mark.parametrize("tls", [False, True])
def test_threads_an_error_names_the_party_and_its_cause(tls: bool, stub: str, job: Any) -> None:
    with Session(launcher="threads", tls=tls, executor=stub) as session:
        with pytest.raises(InputError, match=r"^party 2: the stub refuses \(ask for less\)$"):
            session.run(job(who=2, how="refuse", rounds=2))
        with pytest.raises(MpcError, match=r"^party 1: RuntimeError inside") as caught:
            session.run(job(who=1, how="crash", rounds=2))
        assert "CANARY" not in repr(caught.value)
        assert good(session, job)


def test_threads_a_hang_ends_at_the_deadline(stub: str, job: Any) -> None:
    with Session(launcher="threads", tls=False, executor=stub, job_timeout_s=0.5) as session:
        started = time.monotonic()
        with pytest.raises(PeerLost, match="party 1"):
            session.run(job(who=1, how="sleep", seconds=2, rounds=2))
        assert time.monotonic() - started < 2
        assert good(session, job)


def test_threads_a_silent_peer_is_named_by_the_step_deadline(stub: str, job: Any) -> None:
    with Session(launcher="threads", tls=False, executor=stub, timeout_s=0.3) as session:
        started = time.monotonic()
        with pytest.raises(PeerLost) as caught:
            session.run(job(who=1, how="sleep", seconds=3, rounds=2))
        assert caught.value.peer == "party 1"
        assert time.monotonic() - started < 2.5


def test_a_triple_never_repeats_its_session_name(stub: str, job: Any) -> None:
    with Session(launcher="threads", tls=False, executor=stub) as session:
        offset = Message({"cmd": "load", "model": "m"}, {"offset": np.array([0, 0])})
        digests = {str(session.share("m", lambda: [offset] * 3)[0].header["digest"])}
        with pytest.raises(InputError):
            session.run(job(who=0, how="refuse"))
        digests.add(str(session.share("m", lambda: [offset] * 3)[0].header["digest"]))
    assert len(digests) == 2


def test_threads_take_turns(stub: str, job: Any) -> None:
    with Session(launcher="threads", tls=False, executor=stub) as session:
        results: list[bool] = []
        callers = [threading.Thread(target=lambda: results.append(good(session, job))) for _ in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert results == [True] * 4


def test_processes_round_trip(processes: Session, job: Any) -> None:
    assert good(processes, job)
    stats = processes.stats()
    assert [row["pid"] for row in stats] == pids(processes)
    assert all(row["peak_rss_bytes"] > 10 << 20 for row in stats)
    assert os.getpid() not in pids(processes)
    assert "development" in processes.trust


@pytest.mark.parametrize("party", range(3))
def test_processes_death_in_a_job_is_named_and_survived(processes: Session, job: Any, party: int) -> None:
    made = []

    def make() -> list[Message]:
        made.append(1)
        return [Message({"cmd": "load", "model": "m"}, {"offset": np.array([len(made), 0])})] * 3

    processes.share("m", make)
    started = time.monotonic()
    with pytest.raises(PeerLost) as caught:
        processes.run(job(who=party, how="die", rounds=3, model="m"))
    assert time.monotonic() - started < 5
    assert caught.value.peer == f"party {party}"
    assert [a.tensors["y"].tolist() for a in processes.run(job(model="m"))] == [[8, 60]] * 3
    processes.forget("m")


def test_processes_death_while_idle_and_while_loading(processes: Session, job: Any) -> None:
    os.kill(pids(processes)[2], signal.SIGKILL)
    with pytest.raises(PeerLost) as caught:
        processes.run(job())
    assert caught.value.peer == "party 2"
    load = Message({"cmd": "load", "model": "m", "die": 0}, {"offset": np.array([0, 0])})
    with pytest.raises(PeerLost) as caught:
        processes.share("m", lambda: [load] * 3)
    assert caught.value.peer == "party 0"
    assert good(processes, job)


def test_processes_a_stopped_party_is_named(processes: Session, job: Any) -> None:
    victim = pids(processes)[1]
    processes._job_timeout_s, before = 1.0, processes._job_timeout_s
    try:
        os.kill(victim, signal.SIGSTOP)
        with pytest.raises(PeerLost, match="party 1"):
            processes.run(job(rounds=2))
    finally:
        processes._job_timeout_s = before
    assert good(processes, job)
    assert not os.path.exists(f"/proc/{victim}")


def test_processes_retry_runs_the_job_once_more(stub: str, job: Any) -> None:
    with Session(launcher="processes", executor=stub, retry=True) as session:
        answers = session.run(job(who=1, how="die", once=True, rounds=2))
        assert [a.tensors["y"].tolist() for a in answers] == [SUM] * 3
        with pytest.raises(InputError):  # a refusal is no loss: never run again
            session.run(job(who=1, how="refuse", once=True))


def test_processes_end_with_their_launcher(stub: str) -> None:
    session = Session(launcher="processes", executor=stub)
    children = pids(session)
    session.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)


PARENT = """
import sys, time
from mpc_ray.session import Session
session = Session(launcher="processes", executor="stub_executor:StubExecutor")
print(*session.launcher.pids, flush=True)
time.sleep(float(sys.argv[1]))
"""


def start_parent(seconds: float, logs: Path) -> subprocess.Popen[str]:
    """A process that opens a session and never closes it; its log folder goes into ``logs``."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", PARENT, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(logs)},
    )


def test_processes_leave_no_logs_of_a_session_that_was_not_closed(tmp_path: Path) -> None:
    with start_parent(0, tmp_path) as parent:
        assert parent.stdout is not None
        children = parent.stdout.readline().split()
    assert parent.returncode == 0
    assert len(children) == 3
    assert not list(tmp_path.glob("mpc-ray-*"))


def test_processes_end_when_their_launcher_is_killed(tmp_path: Path) -> None:
    with start_parent(60, tmp_path) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(children) == 3
        assert list(tmp_path.glob("mpc-ray-*"))  # nobody is left to remove it
        parent.kill()
    end = time.monotonic() + 5
    while any(os.path.exists(f"/proc/{pid}") and not zombie(pid) for pid in children):
        assert time.monotonic() < end
        time.sleep(0.02)


def zombie(pid: int) -> bool:
    """Whether a process has ended and waits to be counted by whoever inherited it."""
    return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_processes_a_party_that_dies_while_starting_is_named() -> None:
    started = time.monotonic()
    with pytest.raises(PeerLost) as caught:
        Session(launcher="processes", executor="stub_executor:StillbornExecutor")
    assert caught.value.peer == "party 1"
    assert time.monotonic() - started < 10


def test_asking_for_cuda_where_there_is_none() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(DeviceError, match="cuda"):
        Session(launcher="processes", device="cuda")
    with pytest.raises(DeviceError, match="cuda"):
        Session(launcher="threads", device="cuda")


def test_an_executor_that_does_not_start_is_an_error(stub: str) -> None:
    with pytest.raises(MpcError, match="ModuleNotFoundError"):
        Session(launcher="processes", executor="no_such_module:Executor")
