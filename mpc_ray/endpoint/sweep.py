"""Ending what a folder of ours still has running, and nothing else: another Ray on this machine is never touched."""

from __future__ import annotations

import contextlib
import os
import subprocess

import psutil

GRACE_S = 2.0
MARK = "MPC_PARTY_HOME"
"""In the environment of all that a host starts: workers of Ray hide their command line."""


def sweep(folder: str, child: subprocess.Popen[str] | None = None, *, politely: bool = True) -> None:
    """End every process that names ``folder`` or something in it, on its command line or as ``MARK``, and ``child``;
    all with their children. ``politely``: they have 2 s to end by themselves.
    """
    victims: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it ended while we looked, or is another user's
            if process.pid == os.getpid():
                continue
            if (child is not None and process.pid == child.pid) or _names(process, folder):
                for one in (process, *process.children(recursive=True)):
                    victims[one.pid] = one
    victims.pop(os.getpid(), None)
    for how in ("terminate", "kill") if politely else ("kill",):
        for process in victims.values():
            with contextlib.suppress(psutil.Error):
                getattr(process, how)()
        _, left = psutil.wait_procs(list(victims.values()), timeout=GRACE_S)
        victims = {process.pid: process for process in left}
    if child is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1)


def _names(process: psutil.Process, folder: str) -> bool:
    def within(word: str) -> bool:
        return word == folder or f"{folder}/" in word

    return any(map(within, process.cmdline())) or within(process.environ().get(MARK, ""))
