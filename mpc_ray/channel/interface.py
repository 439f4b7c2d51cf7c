"""What a channel, a one-way stream and an outlet are: the three small interfaces of this folder.

A *channel* is what a protocol sees. It is made of one *stream* for each direction of each pair of parties,
and of one *outlet* for each peer, which decides whether the calling thread or another one writes a frame.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mpc_ray.channel.meter import Meter

Address = tuple[str, int]
"""Host name or number, and port."""


class Channel(Protocol):
    """One party's connections to its two peers. One thread computes, sends and receives; any may ``fail``."""

    me: int
    meter: Meter

    def begin(self, job: bytes, attempt: int) -> None:
        """Start a job (16 bytes): its frames carry this name and attempt, and no others are accepted."""

    def send(self, peer: int, step: int, clock: int, parts: Sequence[memoryview]) -> None:
        """Send one frame. ``parts`` are "B" views, not copied: leave them alone until ``flush``."""

    def receive(self, peer: int, step: int, into: Sequence[memoryview]) -> int:
        """Fill ``into``, of exactly the lengths this step must have; return the frame's Lamport clock."""

    def flush(self) -> None:
        """Wait until everything sent has left: only now may the sent buffers change."""

    def close(self) -> None:
        """Flush, end the threads, close the connections. Calling it twice is allowed."""

    def worn(self) -> bool:
        """Whether a connection's key nears its bound, so that the parties should dial again before the next job."""

    def fail(self, error: BaseException) -> None:
        """End the channel with ``error``; the first error wins, and both peers see it at once."""


class Stream(Protocol):
    """Bytes in one direction between two ends. Used by one thread at a time, except ``shutdown``."""

    records: int
    """TLS records written under the present key (0 where there are none)."""

    def send(self, parts: Sequence[memoryview], end: float) -> None:
        """Write all parts before ``end`` (``time.monotonic``), else ``TimeoutError``; ``OSError`` when
        broken.
        """

    def receive(self, into: memoryview, end: float) -> None:
        """Fill ``into`` before ``end``; ``TimeoutError``, ``OSError``, or ``EOFError`` when the other end
        closed.
        """

    def shutdown(self) -> None:
        """Wake whoever waits, at both ends. Any thread may call it, more than once."""

    def close(self) -> None:
        """Give the descriptor back. Only when no thread uses the stream any more."""


class Writer(Protocol):
    """What an outlet needs of a stream."""

    def send(self, parts: Sequence[memoryview], end: float) -> None:
        """As ``Stream.send``."""


class Outlet(Protocol):
    """Where a channel puts the frames for one peer."""

    def put(self, job: Sequence[memoryview], nbytes: int) -> None:
        """Write the frame now, or hand it over to a thread."""

    def flush(self, end: float) -> None:
        """Wait until all that was put has been written; ``TimeoutError`` after ``end``."""

    def last_words(self, job: Sequence[memoryview]) -> None:
        """Write a last small frame if that is possible without waiting; never raises."""

    def stop(self) -> None:
        """End the thread, if there is one. After ``Stream.shutdown`` it ends at once."""


def byte_view(array: npt.NDArray[Any]) -> memoryview:
    """The bytes of a C-contiguous array of any shape (also empty or 0-d) as a flat "B" view, without a
    copy.
    """
    if not array.flags.c_contiguous:
        raise ValueError("byte_view needs a C-contiguous array")
    return array.reshape(-1).view(np.uint8).data


def remaining(end: float) -> float | None:
    """Seconds until ``end``; ``None`` when ``end`` is infinite. ``TimeoutError`` when it has passed."""
    if math.isinf(end):
        return None
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("deadline passed")
    return left
