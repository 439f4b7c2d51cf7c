"""Keeping the host of the slots alive: started, listened to, and started again whenever it breaks.

Each host has a private folder of its own with a short path. When it has ended, whatever still runs and names that
folder is ended too, and nothing else: another Ray on this machine is never touched.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpc_ray.commands import error_of
from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.endpoint.ray_host import make_token
from mpc_ray.endpoint.slots import Slots
from mpc_ray.endpoint.sweep import MARK, sweep
from mpc_ray.errors import ChannelError, ConfigError, DeviceError, MpcError

log = logging.getLogger("mpc_ray.endpoint.hosting")

UP_S = 90.0  # a Ray that has not started by then will not
SILENT_S = 10.0  # beats come twice a second
SHORTEST_S, LONGEST_S = 0.2, 5.0
HEALTHY_S = 30.0
LATE_S = 180.0  # the first slot of a release compiles its kernels; one that has not come by then will not
SHORT_LIFE_S = 5.0


class Hosting:
    """Supervises the host child. ``fatal(error)`` is called when starting again would not help.

    ``said``: what it is, while it is up; ``why``: what was wrong the last time.
    """

    def __init__(
        self,
        config: PartyConfig,
        set_name: str,
        me: int,
        home: Path,
        slots: Slots,
        fatal: Callable[[MpcError], None],
    ) -> None:
        self.said = ""
        self.why = ""
        self._config, self._set, self._me, self._home = config, set_name, me, home
        self._slots, self._fatal = slots, fatal
        self._child: subprocess.Popen[str] | None = None
        self._writing = threading.Lock()
        self._over = threading.Event()
        self._count = 0
        self._started: dict[str, float] = {}
        self._short_lives = 0
        self._thread = threading.Thread(target=self._run, name="hosting", daemon=True)
        self._thread.start()

    def lost(self, name: str) -> None:
        """A slot has left, or never came: end what may be left of it, and start another."""
        self._tell({"do": "kill", "slot": name})
        lived = time.monotonic() - self._started.pop(name, 0.0)
        if self._over.is_set() or not self.said:
            return
        self._short_lives = self._short_lives + 1 if lived < SHORT_LIFE_S else 0
        if self._short_lives < 2:
            self._start_slot()
            return
        pause = min(SHORTEST_S * 2.0**self._short_lives, LONGEST_S)
        count = self._count
        threading.Timer(pause, lambda: self._start_slot() if count == self._count else None).start()

    def close(self) -> None:
        """End the host and everything in it; seconds at most."""
        self._over.set()
        child = self._child
        if child is not None:
            with contextlib.suppress(OSError):
                assert child.stdin is not None
                child.stdin.close()
        self._thread.join(10)

    def _run(self) -> None:
        pause = SHORTEST_S
        while not self._over.is_set():
            began = time.monotonic()
            folder = self._home / f"h{self._count}"
            self._count += 1
            try:
                if self._homeless():
                    return
                self._one(folder)
            except (ConfigError, DeviceError) as error:
                if not self._over.is_set():
                    self._fatal(error)
                return
            except MpcError as error:
                self.why = error.cause
                log.error("the host of the slots: %s", error)
            except Exception as error:  # no room for its folder, no process to be had: that may pass
                self.why = f"its host could not be started: {_reason(error)}"
                log.exception("the host of the slots: %s", _reason(error))
            finally:
                self.said = ""
                self._slots.drop_all()
                sweep(str(folder), self._child, politely=self._over.is_set())
                shutil.rmtree(folder, ignore_errors=True)
            pause = SHORTEST_S if time.monotonic() - began > HEALTHY_S else min(2 * pause, LONGEST_S)
            if not self._over.wait(pause):
                log.warning("the host of the slots is started again")

    def _one(self, folder: Path) -> None:
        """One life of a host: returns or raises when it has ended."""
        folder.mkdir(mode=0o700)
        config, ray = self._config, self._config.ray
        environ = dict(os.environ)
        if config.host == "ray":
            token = ray.token if ray.token is not None else folder / "token"
            if ray.token is None:
                make_token(folder / "token")
            environ |= {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(token),
                "RAY_USAGE_STATS_ENABLED": "0",
            }
            for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):  # the second would win over the token in the file
                environ.pop(name, None)
        threads = str(config.threads)
        environ |= {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, MARK: str(folder)}
        settings: dict[str, Any] = {
            "kind": config.host,
            "socket": str(self._slots.path),
            "folder": str(folder),
            "protocol": config.protocol,
            "executor": config.executor,
            "trace_file": str(config.trace_file or ""),
            "threads": config.threads,
            "device": config.device,
            "num_gpus": config.num_gpus or (1.0 if config.device == "cuda" else 0.0),
            "slots": config.slots,
            "address": ray.address or "",
            "num_cpus": ray.num_cpus,
            "party": self._me,
            "set": self._set,
        }
        child = self._child = subprocess.Popen(
            [sys.executable, "-P", "-m", "mpc_ray.endpoint.host", str(folder)],  # the folder: for ``sweep``
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True, start_new_session=True,
        )  # fmt: skip
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()

        def read() -> None:
            assert child.stdout is not None
            for line in child.stdout:
                lines.put(line)
            lines.put("")

        threading.Thread(target=read, name="host's answers", daemon=True).start()
        self._tell(settings)
        patience = UP_S
        while not self._over.is_set():
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                log.error("the host of the slots is silent for %d s", int(patience))
                return
            if not line:
                return
            said = json.loads(line)
            if "error" in said:
                raise error_of(self._me, said)
            patience = SILENT_S
            for late in self._slots.overdue(LATE_S):
                log.error("a slot did not come within %d s", int(LATE_S))
                self.lost(late)
            if "up" in said:
                self.said, self.why = str(said["up"]), ""
                log.info("slots are %s", self.said)
                for _ in range(config.slots):
                    self._start_slot()
        with contextlib.suppress(subprocess.TimeoutExpired):  # then it is swept up
            child.wait(timeout=8)

    def _start_slot(self) -> None:
        if self._over.is_set() or not self.said or self._homeless():
            return
        name = self._slots.expect()
        self._started[name] = time.monotonic()
        self._tell({"do": "start", "slot": name})

    def _homeless(self) -> bool:
        """Whether the slots' socket is gone, which only a new front makes again: then this one ends."""
        gone = not self._over.is_set() and not self._slots.path.exists()
        if gone:
            self._fatal(
                ChannelError(
                    f"the party's temporary folder {self._home} was removed",
                    remedy="start the party again, and keep what cleans temporary files up away from it",
                )
            )
        return gone

    def _tell(self, content: dict[str, Any]) -> None:
        child = self._child
        if child is None or child.stdin is None:
            return
        with self._writing, contextlib.suppress(OSError, ValueError):  # it has ended: its reader knows
            child.stdin.write(json.dumps(content) + "\n")
            child.stdin.flush()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
