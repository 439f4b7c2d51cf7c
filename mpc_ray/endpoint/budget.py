"""A bound on memory that several threads take together: who finds no room waits for it."""

from __future__ import annotations

import threading


class Budget:
    """``total`` bytes. One request for more than that is served when nobody else has any."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._taken = 0
        self._change = threading.Condition()

    @property
    def taken(self) -> int:
        """Bytes that are taken now."""
        return self._taken

    def take(self, nbytes: int, timeout_s: float) -> None:
        """Wait for room, and take it. ``TimeoutError`` if there was none in time."""
        with self._change:
            fits = self._change.wait_for(
                lambda: not self._taken or self._taken + nbytes <= self._total, timeout_s
            )
            if not fits:
                raise TimeoutError("no memory became free")
            self._taken += nbytes

    def give(self, nbytes: int) -> None:
        """Give back what was taken."""
        with self._change:
            self._taken -= nbytes
            self._change.notify_all()
