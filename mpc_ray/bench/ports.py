"""Ports for programs that are started later: a benchmark's, an example's, a test's."""

from __future__ import annotations

import contextlib
import secrets
import socket

# Below what systems hand out by themselves (Linux: from 32768), above what Ray gives its workers (10002 to 19999):
# nobody gets one of these by chance between now and its use.
FIRST, LAST = 20_000, 32_000
TRIES = 1000


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """``count`` different ports of ``host`` that nobody listens on now. OSError where there are no such ports."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        for _ in range(TRIES):
            if len(found) == count:
                return found
            port = FIRST + secrets.randbelow(LAST - FIRST)
            with contextlib.suppress(OSError):  # somebody listens there, ourselves perhaps
                held.enter_context(socket.create_server((host, port), reuse_port=False))
                found.append(port)
    raise OSError(f"{count} free ports were not found on {host}")
