"""Exact counts of what a party sends: bytes by label, phase and layer, frames, rounds.

Bytes are those of the frames (header and payload), before TLS, which adds 22 bytes a record of at most 16
KiB. The channel counts every frame as it sends it; who fills a frame says what its payload was for. What
nobody claimed shows up as ``unattributed``: 0 in a correct run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypedDict

HEADERS = "frame headers"
OFFLINE = "offline"
ONLINE = "online"


class Entry(TypedDict):
    """Bytes sent under one label, phase and layer."""

    label: str
    phase: str
    layer: str
    bytes: int


class Snapshot(TypedDict):
    """A copy of all counts. ``rounds`` is the largest Lamport clock of any frame sent or received."""

    bytes_sent: int
    bytes_sent_offline: int
    bytes_sent_online: int
    bytes_sent_to: dict[int, int]
    bytes_received: int
    frames_sent: int
    rounds: int
    unattributed: int
    split: list[Entry]


class Meter:
    """Counts of one party. Each call costs well under a microsecond; calls may come from several threads."""

    def __init__(self) -> None:
        self.written: Callable[[int, float, float], None] | None = None
        """Hears of each frame written: peer, begin and end (``time.perf_counter``). Any thread may call it."""
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Everything back to zero."""
        with self._lock:
            self.bytes_sent = 0
            self.bytes_received = 0
            self.frames_sent = 0
            self.rounds = 0
            self._to: dict[int, int] = {}
            self._split: dict[tuple[str, str, str], int] = {}

    def frame(self, peer: int, header: int, payload: int, clock: int) -> None:
        """A frame went to ``peer``. Its header is attributed here (online), its payload by ``attribute``."""
        with self._lock:
            self.frames_sent += 1
            self.rounds = max(self.rounds, clock)
            self._add(peer, header + payload)
            self._claim(HEADERS, ONLINE, "", header)

    def received(self, nbytes: int, clock: int) -> None:
        """A frame of ``nbytes``, header included, arrived."""
        with self._lock:
            self.bytes_received += nbytes
            self.rounds = max(self.rounds, clock)

    def attribute(self, label: str, phase: str, nbytes: int, layer: str = "") -> None:
        """Say what ``nbytes`` of sent payload were for. ``phase`` is ``offline`` or ``online``."""
        with self._lock:
            self._claim(label, phase, layer, nbytes)

    def count(self, peer: int, nbytes: int, label: str, phase: str, layer: str = "") -> None:
        """Bytes that went to ``peer`` outside a channel's frames: counted and attributed at once."""
        with self._lock:
            self._add(peer, nbytes)
            self._claim(label, phase, layer, nbytes)

    def snapshot(self) -> Snapshot:
        """A copy of all counts, JSON-ready; entries of ``split`` in the order of their first appearance."""
        with self._lock:
            split = [
                Entry(label=label, phase=phase, layer=layer, bytes=n)
                for (label, phase, layer), n in self._split.items()
            ]
            offline = sum(entry["bytes"] for entry in split if entry["phase"] == OFFLINE)
            return Snapshot(
                bytes_sent=self.bytes_sent,
                bytes_sent_offline=offline,
                bytes_sent_online=self.bytes_sent - offline,
                bytes_sent_to=dict(self._to),
                bytes_received=self.bytes_received,
                frames_sent=self.frames_sent,
                rounds=self.rounds,
                unattributed=self.bytes_sent - sum(entry["bytes"] for entry in split),
                split=split,
            )

    def _add(self, peer: int, nbytes: int) -> None:
        self.bytes_sent += nbytes
        self._to[peer] = self._to.get(peer, 0) + nbytes

    def _claim(self, label: str, phase: str, layer: str, nbytes: int) -> None:
        if phase not in (OFFLINE, ONLINE):
            raise ValueError(f"phase is {phase!r}, not {OFFLINE!r} or {ONLINE!r}")
        key = (label, phase, layer)
        self._split[key] = self._split.get(key, 0) + nbytes
