"""Idempotency keys: one body, one result, however often the caller asks.

A caller that lost its connection sends the same bytes again under the same key. While the first request is
under way the second waits for its result; once it succeeded the second gets the stored (sealed) answer; once
it failed the second is computed. Another body under a key that is in use is a conflict.

What is stored are answers sealed to the client, bounded in bytes and time; the oldest go first.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from mpc_ray.errors import DeadlineExceeded, MpcError

Where: TypeAlias = tuple[str, str]  # the API key's id, the Idempotency-Key
GRACE_S = 1.0  # a turn is lost this long after its caller's deadline: whoever had it died
MAX_LEFT = 10_000


class Conflict(MpcError):
    """An Idempotency-Key that is in use for another body."""

    code = "idempotency_conflict"
    exit_code = 2


@dataclass(frozen=True, eq=False)
class _Turn:
    digest: bytes
    turn: str
    until: float
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class _Stored:
    digest: bytes
    answer: bytes = field(repr=False)
    until: float


class Idempotency:
    """All keys of one gateway. For one event loop; ``clock`` counts seconds. ``on_lost(turn)`` is called for a turn
    whose owner did not finish it in time.
    """

    def __init__(
        self,
        keep_s: float,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        on_lost: Callable[[str], object] = lambda turn: None,
    ) -> None:
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._on_lost = on_lost
        self._running: dict[Where, _Turn] = {}
        self._turns: dict[str, Where] = {}
        self._stored: OrderedDict[Where, _Stored] = OrderedDict()  # in the order in which they end
        self._left: OrderedDict[str, None] = OrderedDict()  # turns whose caller left before they began
        self.stored_bytes = 0

    async def begin(self, where: Where, digest: bytes, turn: str, timeout_s: float) -> bytes | None:
        """The stored answer, or None: then it is this ``turn``'s to compute and to ``finish``.

        Waits for a turn that is under way, at most ``timeout_s``. Raises Conflict, DeadlineExceeded.
        """
        end = self._clock() + timeout_s
        while True:
            self._sweep()
            known = self._stored.get(where) or self._running.get(where)
            if known is None:
                if turn in self._left:
                    raise DeadlineExceeded("the caller left while it waited")
                self._running[where] = _Turn(digest, turn, end + GRACE_S)
                self._turns[turn] = where
                return None
            if known.digest != digest:
                raise Conflict(
                    "this Idempotency-Key is in use for another body",
                    remedy="use a new key for a new request",
                )
            if isinstance(known, _Stored):
                return known.answer
            await self._wait(known, end)

    def finish(self, turn: str, answer: bytes | None) -> None:
        """End a turn, with its answer or, where it failed, with None. Ending it before it begins prevents it."""
        where = self._turns.pop(turn, None)
        if where is None:
            self._left[turn] = None
            if len(self._left) > MAX_LEFT:
                self._left.popitem(last=False)
            return
        running = self._running.pop(where)
        if answer is not None and len(answer) <= self._max_bytes:
            self._stored[where] = _Stored(running.digest, answer, self._clock() + self._keep_s)
            self.stored_bytes += len(answer)
            while self.stored_bytes > self._max_bytes:
                self._forget_oldest()
        running.ended.set()

    def bound(self, keep_s: float, max_bytes: int) -> None:
        """Change the bounds, for what is stored from now on."""
        self._keep_s, self._max_bytes = keep_s, max_bytes

    async def _wait(self, running: _Turn, end: float) -> None:
        try:
            async with asyncio.timeout(max(min(end, running.until) - self._clock(), 0.0)):
                await running.ended.wait()
        except TimeoutError:
            if self._clock() >= end - 1e-3:
                raise DeadlineExceeded(
                    "the request with the same Idempotency-Key is not done yet",
                    remedy="send the same request again later",
                ) from None

    def _sweep(self) -> None:
        now = self._clock()
        while self._stored and next(iter(self._stored.values())).until <= now:
            self._forget_oldest()
        for where, running in list(self._running.items()):
            if running.until <= now:
                del self._running[where], self._turns[running.turn]
                running.ended.set()
                self._on_lost(running.turn)

    def _forget_oldest(self) -> None:
        _, stored = self._stored.popitem(last=False)
        self.stored_bytes -= len(stored.answer)
