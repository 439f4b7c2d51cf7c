"""``mpc-ray supervise COMMAND…``: run a service and start it again whenever it dies, where there is no systemd.

The service is a child that ends with this process, however this process ends, so that two never run side by side.
Not started again: a service that ended by itself with exit code 0, or that was refused its settings, model or device at
the start (exit codes 2, 3, 6: starting again would not help). What may pass is: a certificate that is refused (exit
code 5: a new one, or the right time, may come), a port, folder or journal that the process before still has (75).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Annotated

import typer

from mpc_ray.errors import ConfigError

FINAL = (0, 2, 3, 6)  # done, wrong usage or setting, model does not fit, no such device
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
HEALTHY_S = 60.0  # after so long up, the next pause is the first again
GRACE_S = 30.0  # from SIGTERM to SIGKILL
_PR_SET_PDEATHSIG = 1

Words = Annotated[list[str], typer.Argument(metavar="COMMAND...", help="a command of mpc-ray, e.g. party")]


def supervise(words: Words) -> None:
    """Run a command of mpc-ray (party, gateway, proxy), and start it again whenever it dies.

    For machines without systemd (configs/systemd has units for those with it). SIGTERM and Ctrl-C end both.
    """
    if words[0] == "supervise":
        raise ConfigError("supervise cannot supervise itself", remedy="name party, gateway or proxy")
    raise typer.Exit(keep_running([sys.executable, "-P", "-m", "mpc_ray.cli.main", *words]))


def keep_running(command: Sequence[str], say: Callable[[str], None] | None = None) -> int:
    """Run ``command`` until it ends for good or we are told to stop; its exit code.

    ``say`` takes one line at each restart (default: standard error).
    """
    say = say or (lambda line: print(line, file=sys.stderr, flush=True))
    die_with_parent = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def bind() -> None:  # in the child, before it becomes the service
        die_with_parent(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we were bound to it
            os._exit(1)

    stopping: list[int] = []
    child: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        stopping.append(number)
        if child and child[0].poll() is None:
            child[0].send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    pause = FIRST_PAUSE_S
    try:
        while True:
            began = time.monotonic()
            # A session of its own: Ctrl-C at the terminal reaches us alone, and we pass it on once.
            child[:] = [  # no thread but this one, so preexec_fn is safe
                subprocess.Popen(list(command), preexec_fn=bind, start_new_session=True)  # noqa: PLW1509
            ]
            if stopping:  # told to stop while it was being started
                child[0].send_signal(signal.SIGTERM)
            code = _wait(child[0], stopping)
            if stopping or code in FINAL:
                return code if code >= 0 else 128 - code
            lived = time.monotonic() - began
            pause = FIRST_PAUSE_S if lived > HEALTHY_S else pause
            say(f"{' '.join(command[-4:])}: ended with {code} after {lived:.1f} s; again in {pause:.1f} s")
            end = time.monotonic() + pause
            while time.monotonic() < end and not stopping:
                time.sleep(0.05)
            if stopping:
                return 128 + stopping[0]
            pause = min(2 * pause, LONGEST_PAUSE_S)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(child: subprocess.Popen[bytes], stopping: list[int]) -> int:
    """The child's exit code; one that ignores SIGTERM for ``GRACE_S`` is killed."""
    told: float | None = None
    while True:
        try:
            return child.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            if stopping and told is None:
                told = time.monotonic()
            if told is not None and time.monotonic() - told > GRACE_S:
                child.kill()
