"""Three operators, a gateway, a client's proxy: docs/deployment.md, part A, typed as a person types it.

Every step is a command of ``mpc-ray``. Services run under ``mpc-ray supervise``, each with a log of its own. All of it
lies in one short folder; leaving ``World`` ends every process whose command line or environment names that folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from mpc_ray.bench.ports import free_ports

OPERATORS = (("alpha", "us-east-1", "US"), ("beta", "eu-west-1", "IE"), ("gamma", "ap-northeast-1", "JP"))
SET = "world"
MODEL = "all-MiniLM-L6-v2"
PROGRAM = [sys.executable, "-P", "-m", "mpc_ray.cli.main"]
READY_S = 120.0


class Failed(Exception):
    """A step did not do what it should; the text says which, and what it printed."""


class World:
    """The whole deployment. ``say`` takes one line of progress at a time."""

    def __init__(self, say: Callable[[str], None], *, slots: int = 1) -> None:
        self.say = say
        self.slots = slots
        # Ray's socket paths must stay below 108 bytes.
        self.home = Path(
            tempfile.mkdtemp(prefix="mr-", dir="/tmp" if len(tempfile.gettempdir()) > 20 else None)
        )
        self.logs = self.home / "logs"
        self.logs.mkdir()
        self.left_over: list[str] = []
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = dict(
            zip(
                (*(f"{o}-{k}" for o, _, _ in OPERATORS for k in ("peer", "gateway")), "https", "proxy"),
                free_ports(8),
                strict=True,
            )
        )
        self.api_key = ""

    def remove(self) -> None:
        """Delete the folder with everything in it."""
        shutil.rmtree(self.home, ignore_errors=True)

    # -- one command at a time -------------------------------------------------------------------------------------

    def environ(self) -> dict[str, str]:
        """What every process of the world has in its environment; TMPDIR keeps what they write inside it."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MPC_"))}
        tmp = self.home / "t"
        tmp.mkdir(exist_ok=True)
        return clean | {"TMPDIR": str(tmp), "MPC_TEST_WORLD": str(self.home), "RAY_USAGE_STATS_ENABLED": "0"}

    def run(self, *words: str) -> dict[str, Any]:
        """Run ``mpc-ray WORDS --json`` to its end; the object that it printed."""
        done = subprocess.run(
            [*PROGRAM, *words, "--json"],
            cwd=self.home,
            env=self.environ(),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        with (self.logs / "commands.log").open("a") as log:
            log.write(f"$ mpc-ray {' '.join(words)}\n{done.stdout}{done.stderr}")
        if done.returncode:
            raise Failed(
                f"mpc-ray {' '.join(words[:2])}: exit {done.returncode}: {done.stderr.strip()[-600:]}"
            )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def serve(self, name: str, *words: str) -> None:
        """Start a service under ``mpc-ray supervise``; its output goes to logs/NAME.log."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.services[name] = subprocess.Popen(
                [*PROGRAM, "supervise", *words],
                cwd=self.home,
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def config(self, name: str, settings: Mapping[str, Any]) -> str:
        path = self.home / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
        return str(path)

    # -- looking at it ----------------------------------------------------------------------------------------------

    def wait(self, what: str, ready: Callable[[], bool], timeout_s: float = READY_S) -> float:
        """Seconds until ``ready()``. Raises Failed with the ends of all logs when a service ends or time is up."""
        began = time.monotonic()
        while time.monotonic() - began < timeout_s:
            if ready():
                return time.monotonic() - began
            for name, process in self.services.items():
                if process.poll() is not None:
                    raise Failed(
                        f"{name} ended with {process.returncode} while waiting for {what}\n{self.tail(name)}"
                    )
            time.sleep(0.1)
        ends = "\n".join(
            f"--- {path.name}\n{self.tail(path.stem)}" for path in sorted(self.logs.glob("*.log"))
        )
        raise Failed(f"{what}: not within {timeout_s:g} s\n{ends}")

    def tail(self, name: str, lines: int = 12) -> str:
        path = self.logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes of the world whose command line has all of ``words``."""
        found = []
        for process in psutil.process_iter():
            try:
                command = " ".join(process.cmdline())
                mine = str(self.home) in command or process.environ().get("MPC_TEST_WORLD") == str(self.home)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
            if mine and all(word in command for word in words):
                found.append(process)
        return found

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.ports['https']}"

    @property
    def proxy_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['proxy']}"

    def close(self) -> None:
        """End everything: politely, then not. ``left_over`` names what had to be killed and should have ended."""
        for process in self.services.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 30
        for process in self.services.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        end = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.2)
        self.left_over = [" ".join(_cmdline(p))[:120] for p in left]
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [process.name()]
    except psutil.Error:
        return ["ended"]
