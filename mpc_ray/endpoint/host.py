"""The child process that holds slots: the operator's own Ray with actors, or plain processes where there is no Ray.

The front starts it in a session of its own and speaks to it in JSON lines: settings first, then ``start`` and ``kill``
of slots; it answers ``up`` once, then a ``beat`` twice a second. It watches what it has started, and ends as soon as
something is broken: the front then sweeps up what is left and starts a new one. When the front is gone (its pipe ends)
it ends too.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from mpc_ray.commands import failure
from mpc_ray.errors import ConfigError, MpcError
from mpc_ray.party_settings import check_device
from mpc_ray.telemetry import logs

log = logging.getLogger("mpc_ray.endpoint.host")

BEAT_S = 0.5
ENDING_S = 3.0


class Host(Protocol):
    """What holds slots. The constructor starts it; every call is from one thread."""

    said: str
    """In a few words: what it is."""

    def start(self, name: str) -> None:
        """Start the slot ``name``; it dials the front when it is ready."""

    def kill(self, name: str) -> None:
        """End that slot at once. One that is gone already is no error."""

    def check(self) -> None:
        """Raise ``MpcError`` when what holds the slots is broken. Takes milliseconds."""

    def stop(self) -> None:
        """End everything that the constructor started."""


class ProcessHost:
    """Slots as processes of this machine."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.said = "processes, no Ray"
        self._settings = settings
        self._slots: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        words = [sys.executable, "-P", "-m", "mpc_ray.endpoint.slot", "--socket", self._settings["socket"]]
        words += ["--name", name, "--protocol", self._settings["protocol"]]
        words += ["--executor", self._settings["executor"], "--trace-file", self._settings["trace_file"]]
        self._slots[name] = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sys.stderr)

    def kill(self, name: str) -> None:
        slot = self._slots.pop(name, None)
        if slot is not None:
            slot.kill()
            slot.wait()

    def check(self) -> None:
        for slot in self._slots.values():
            slot.poll()  # a slot that ended is no zombie; the front knows by its connection

    def stop(self) -> None:
        for name in list(self._slots):
            self.kill(name)


def run(settings: Mapping[str, Any], requests: queue.Queue[dict[str, Any] | None], answers: TextIO) -> None:
    """Serve the front until its requests end. Raises ``MpcError`` when the host cannot start, or breaks."""

    def say(content: Mapping[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    host = _host(settings)
    broken = False
    try:
        say({"up": host.said})
        while True:
            try:
                request = requests.get(timeout=BEAT_S)
            except queue.Empty:
                broken = True
                host.check()
                broken = False
                say({"beat": True})
                continue
            match request:
                case None:
                    return
                case {"do": "start", "slot": str(name)}:
                    host.start(name)
                case {"do": "kill", "slot": str(name)}:
                    host.kill(name)
                case _:
                    raise ConfigError("an unknown request", remedy="use one version everywhere")
    finally:
        if not broken:  # else the front, which is told why, ends what is left of it at once
            _at_most(ENDING_S)
            host.stop()


def _host(settings: Mapping[str, Any]) -> Host:
    check_device(settings["device"])
    match settings["kind"]:
        case "process":
            return ProcessHost(settings)
        case "ray":
            from mpc_ray.endpoint.ray_host import RayHost

            return RayHost(settings)
    raise ConfigError(f"unknown host {str(settings['kind'])[:16]!r}", remedy="one of: ray, process")


def _at_most(seconds: float) -> None:
    """Ending may hang when what we end is broken: then the process ends without it, and the front sweeps up."""

    def leave() -> None:
        time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


def main() -> None:
    """The host's process: settings and requests on stdin, answers on stdout, everything else goes to the log."""
    logs.setup("host")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever prints goes to the log, not among the answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the front's terminal: the front ends us
    settings = json.loads(sys.stdin.readline())
    requests: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            requests.put(json.loads(line))
        requests.put(None)
        time.sleep(ENDING_S + 1)
        os._exit(1)  # still starting, or hung: the front is gone, so nobody else would end us

    threading.Thread(target=read, daemon=True).start()
    status = 0
    try:
        run(settings, requests, answers)
    except Exception as error:
        log.error(
            "%s",
            error if isinstance(error, MpcError) else type(error).__name__,
            exc_info=not isinstance(error, MpcError),
        )
        status = 1
        with contextlib.suppress(OSError):  # the front is gone too
            answers.write(json.dumps(failure(error)) + "\n")
            answers.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
