"""When a party did what in one job: spans of time in lanes, for a profile that people can look at.

The first four lanes are those of the thread that computes; its spans follow one another without gap or overlap, so that
their lengths add up to the job's. What other threads write to peers, encryption included, has a lane a peer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

COMPUTE, DEALER, SEND, WAIT = "compute", "dealer", "send", "wait"
LANES = (COMPUTE, DEALER, SEND, WAIT)
WRITING = "writing to party "
REST = "rest"

Span = tuple[str, str, str, float, float]
"""Lane, name, layer, begin and end in seconds."""


@dataclass
class Timeline:
    """The spans of one job. Seconds are ``time.perf_counter``'s until ``close`` counts them from ``began``."""

    began: float = field(default_factory=time.perf_counter)
    epoch: float = field(default_factory=time.time)
    spans: list[Span] = field(default_factory=list)
    _writes: list[tuple[int, float, float]] = field(default_factory=list)

    def add(self, lane: str, name: str, layer: str, begin: float, end: float) -> None:
        """Of the computing thread."""
        self.spans.append((lane, name, layer, begin, end))

    def written(self, peer: int, begin: float, end: float) -> None:
        """A frame to ``peer`` was written, by whichever thread."""
        self._writes.append((peer, begin, end))

    @contextmanager
    def span(self, lane: str, name: str, layer: str = "") -> Iterator[None]:
        """The block's time."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.add(lane, name, layer, begin, time.perf_counter())

    def close(self) -> dict[str, Any]:
        """JSON-ready: ``epoch`` (the wall clock's seconds when the job began), and in whole microseconds from there
        ``microseconds``, the end, and ``spans``: lane, name, layer, begin, end.

        What no span claimed, between two of them, is the computing thread's ``rest``.
        """
        end = time.perf_counter()
        filled: list[Span] = []
        at = self.began
        for span in sorted(self.spans, key=lambda span: span[3]):
            if span[3] > at:
                filled.append((COMPUTE, REST, "", at, span[3]))
            filled.append(span)
            at = span[4]
        if end > at:
            filled.append((COMPUTE, REST, "", at, end))
        for peer, begin, finish in self._writes:
            if finish <= end:
                filled.append((f"{WRITING}{peer}", "write", "", begin, finish))

        def micros(at: float) -> int:
            return round((at - self.began) * 1e6)

        spans = [
            [lane, name, layer, micros(begin), micros(finish)] for lane, name, layer, begin, finish in filled
        ]
        return {"epoch": self.epoch, "microseconds": micros(end), "spans": spans}
