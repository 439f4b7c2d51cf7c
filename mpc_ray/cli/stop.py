"""Being told to stop: SIGTERM (docker stop, systemd, a time-out in CI) ends the program as Ctrl-C does.

Ray takes SIGTERM over while it starts (``launch_ray`` gives it back): its handler calls ``sys.exit(SIGTERM)``, and
``by_ray`` recognises that way out.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

CTRL_C_EXIT = 130  # as shells say it: 128 + SIGINT
PIPE_EXIT = 141  # 128 + SIGPIPE
TERM_EXIT = 143  # 128 + SIGTERM

_terminated = threading.Event()


def watch() -> None:
    """From now on SIGTERM raises KeyboardInterrupt in the main thread, once."""
    _terminated.clear()
    # Read when Ray is imported. A stack for each SIGTERM, as if it were a crash, is noise in front of the error.
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
    signal.signal(signal.SIGTERM, _stop)


def leave() -> None:
    """The program is ending: SIGTERM has nothing to add."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def by_ray(leaving: SystemExit) -> bool:
    """Whether this is the exit that Ray's handler of SIGTERM makes; if so it counts as ours."""
    if leaving.code != signal.SIGTERM:
        return False
    _terminated.set()
    return True


def interrupted() -> tuple[str, int]:
    """What stopped the program, and the exit code."""
    return ("SIGTERM", TERM_EXIT) if _terminated.is_set() else ("Ctrl-C", CTRL_C_EXIT)


def _stop(number: int, frame: FrameType | None) -> None:
    # Cleaning up is under way after the first; `timeout` and many a supervisor send two at once.
    _terminated.set()
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
