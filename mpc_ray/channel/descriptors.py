"""Open files: each connection is one, and a process that has no more can neither accept nor read its own files."""

from __future__ import annotations

import logging

log = logging.getLogger("mpc_ray.channel.descriptors")

BESIDES = 256  # files of the process itself: libraries, logs, databases, Ray's sockets


def allow(connections: int, setting: str) -> bool:
    """Let this process have so many connections besides its own files; it never lowers what is allowed.

    False, and a warning that names ``setting``, where the system allows fewer: then strangers could use them up.
    """
    try:
        import resource
    except ImportError:  # Windows, where the client and its proxy may run: no such limit
        return True
    needed = connections + BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return True
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        log.warning(
            "this process may open %d files, and %s asks for %d: raise LimitNOFILE or ulimit -Hn, or lower it",
            most,
            setting,
            needed,
        )
    return most >= needed
