"""The channel within one process: three parties in threads, joined by queues of bytes.

Same frames, checks, counts and deadlines as over TLS. Sending copies the frame once and never blocks until
``DEPTH`` frames wait, which lock-step protocols never reach.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from mpc_ray.channel.framed import SLOWEST, FramedChannel
from mpc_ray.channel.interface import Writer, remaining

DEPTH = 64
"""Frames that may wait in one direction of one pair."""


class LocalStream:
    """One direction between two threads: both ends hold the same object."""

    def __init__(self, depth: int = DEPTH) -> None:
        self.records = 0
        self._depth = depth
        self._chunks: deque[memoryview] = deque()
        self._shut = False
        self._change = threading.Condition()

    def send(self, parts: Sequence[memoryview], end: float) -> None:
        """Copy the parts into the queue, as one piece."""
        data = memoryview(b"".join(parts))
        with self._change:
            if not self._change.wait_for(
                lambda: self._shut or len(self._chunks) < self._depth, remaining(end)
            ):
                raise TimeoutError("the queue stayed full")
            if self._shut:
                raise BrokenPipeError(32, "the other end closed")
            if data:
                self._chunks.append(data)
                self._change.notify_all()

    def receive(self, into: memoryview, end: float) -> None:
        """Fill ``into``; what was sent before a ``shutdown`` is still delivered."""
        got = 0
        while got < len(into):
            with self._change:
                if not self._change.wait_for(lambda: self._shut or bool(self._chunks), remaining(end)):
                    raise TimeoutError("nothing came")
                if not self._chunks:
                    raise EOFError("the other end closed")
                chunk = self._chunks[0]
                taken = min(len(chunk), len(into) - got)
                if taken == len(chunk):
                    self._chunks.popleft()
                    self._change.notify_all()
                else:
                    self._chunks[0] = chunk[taken:]
            into[got : got + taken] = chunk[:taken]
            got += taken

    def shutdown(self) -> None:
        """Wake both ends."""
        with self._change:
            self._shut = True
            self._change.notify_all()

    def close(self) -> None:
        """Nothing to give back."""


class DirectOutlet:
    """Writes every frame in the calling thread: enough where a write only appends to a queue."""

    def __init__(self, stream: Writer, timeout: float) -> None:
        self._stream = stream
        self._timeout = timeout

    def put(self, job: Sequence[memoryview], nbytes: int) -> None:
        """Write now."""
        self._stream.send(job, time.monotonic() + self._timeout + nbytes / SLOWEST)

    def flush(self, end: float) -> None:
        """Nothing waits: what was put has been copied."""

    def last_words(self, job: Sequence[memoryview]) -> None:
        """Write if there is room."""
        try:
            self._stream.send(job, time.monotonic() + 0.01)
        except OSError:  # full or closed: the peer sees the shutdown instead
            pass

    def stop(self) -> None:
        """No thread to end."""


def local_channels(
    timeout: float = 60.0, session: bytes | None = None
) -> tuple[FramedChannel, FramedChannel, FramedChannel]:
    """Three joined channels, for parties 0, 1, 2 in three threads. ``timeout`` in seconds bounds every
    wait.
    """
    name = session or os.urandom(16)
    pipes = {(a, b): LocalStream() for a in range(3) for b in range(3) if a != b}

    def outlet(peer: int, stream: Writer, failed: Callable[[BaseException], object]) -> DirectOutlet:
        return DirectOutlet(stream, timeout)

    def channel(me: int) -> FramedChannel:
        peers = [p for p in range(3) if p != me]
        outgoing = {p: pipes[me, p] for p in peers}
        return FramedChannel(me, name, outgoing, {p: pipes[p, me] for p in peers}, outlet, timeout)

    return channel(0), channel(1), channel(2)
