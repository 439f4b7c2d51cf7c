"""A service that dies comes back; one that must not come back does not; nothing outlives the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from mpc_ray.cli import supervise
from mpc_ray.cli.supervise import keep_running
from mpc_ray.errors import NotNow

ROOT = Path(__file__).parents[2]
SUPERVISOR = (
    "import sys; from mpc_ray.cli.supervise import keep_running; sys.exit(keep_running(sys.argv[1:]))"
)


def script(folder: Path, body: str) -> list[str]:
    path = folder / "service.py"
    path.write_text(body)
    return [sys.executable, "-P", str(path)]


def counted(folder: Path, exits: list[int]) -> list[str]:
    """A service that ends with each of these codes in turn; minus a signal's number kills itself with it."""
    return script(
        folder,
        "import os, pathlib, sys\n"
        f"runs = pathlib.Path({str(folder / 'runs')!r})\n"
        "n = len(runs.read_text()) if runs.exists() else 0\n"
        "runs.write_text('x' * (n + 1))\n"
        f"code = {exits!r}[n]\n"
        "os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)\n",
    )


def test_it_comes_back_until_it_ends_by_itself(tmp_path: Path) -> None:
    said: list[str] = []
    assert keep_running(counted(tmp_path, [1, -signal.SIGKILL, 0]), said.append) == 0
    assert (tmp_path / "runs").read_text() == "xxx"
    assert len(said) == 2 and "ended with -9" in said[1]


@pytest.mark.parametrize("code", [2, 3, 6])
def test_what_was_refused_is_not_started_again(tmp_path: Path, code: int) -> None:
    assert keep_running(counted(tmp_path, [code, 0]), lambda line: None) == code
    assert (tmp_path / "runs").read_text() == "x"


def test_what_may_pass_is_started_again(tmp_path: Path) -> None:
    """A connection, a certificate; a port or a folder that another process still has."""
    assert keep_running(counted(tmp_path, [5, NotNow.exit_code, 0]), lambda line: None) == 0
    assert (tmp_path / "runs").read_text() == "xxx"


@pytest.mark.parametrize("name", ["party", "gateway", "proxy"])
def test_systemd_is_told_the_same(name: str) -> None:
    unit = (ROOT / "configs" / "systemd" / f"mpc-ray-{name}.service").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and line[0] != "#")
    assert {0, *map(int, settings["RestartPreventExitStatus"].split())} == set(supervise.FINAL)
    assert settings["Restart"] == "on-failure"
    assert settings["StartLimitIntervalSec"] == "0", "systemd gives up after five quick failures otherwise"


def wait_for(path: Path) -> int:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text()):
            return int(text)
        time.sleep(0.02)
    raise AssertionError("the service did not start")


def started(folder: Path, extra: str = "") -> tuple[subprocess.Popen[bytes], int]:
    command = script(
        folder,
        f"{extra}\nimport os, pathlib, time\n"
        f"pathlib.Path({str(folder / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n",
    )
    supervisor = subprocess.Popen([sys.executable, "-P", "-c", SUPERVISOR, *command])
    return supervisor, wait_for(folder / "pid")


def gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_sigterm_ends_both(tmp_path: Path) -> None:
    supervisor, pid = started(tmp_path)
    supervisor.send_signal(signal.SIGTERM)
    assert supervisor.wait(20) == 128 + signal.SIGTERM
    assert gone(pid)


def test_a_killed_supervisor_leaves_nothing(tmp_path: Path) -> None:
    supervisor, pid = started(tmp_path)
    supervisor.kill()
    supervisor.wait()
    assert gone(pid)


def test_a_killed_service_has_another_process(tmp_path: Path) -> None:
    supervisor, pid = started(tmp_path)
    (tmp_path / "pid").unlink()
    os.kill(pid, signal.SIGKILL)
    again = wait_for(tmp_path / "pid")
    assert again != pid
    supervisor.send_signal(signal.SIGTERM)
    supervisor.wait(20)
    assert gone(again)


def test_one_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise, "GRACE_S", 0.3)
    child = subprocess.Popen(
        script(
            tmp_path,
            "import os, pathlib, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n",
        )
    )
    wait_for(tmp_path / "pid")
    child.send_signal(signal.SIGTERM)
    assert supervise._wait(child, [signal.SIGTERM]) == -signal.SIGKILL
