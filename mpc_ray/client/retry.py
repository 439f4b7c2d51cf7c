"""When to try again, and how long to wait: full jitter, the gateway's Retry-After, one deadline over everything."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from mpc_ray.errors import DeadlineExceeded, MpcError

FIRST_S = 0.25
MOST_S = 10.0
_random = secrets.SystemRandom()


@dataclass(frozen=True)
class Deadline:
    """``seconds`` from now on for all of a call: sealing, sending, waiting, trying again."""

    seconds: float
    clock: Callable[[], float] = time.monotonic
    end: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "end", self.clock() + self.seconds)

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.end - self.clock())

    def check(self) -> None:
        """Raises DeadlineExceeded once it is over."""
        if self.left <= 0:
            raise exceeded(self.seconds)


def exceeded(seconds: float) -> DeadlineExceeded:
    """The error of a call that took longer than its caller allows."""
    return DeadlineExceeded(
        f"no answer within {seconds:g} s", remedy="allow more time (timeout_s), or send fewer texts at once"
    )


def backoff(tries: int, retry_after_s: float | None = None) -> float:
    """Seconds to wait after ``tries`` failures: uniform up to a bound that doubles each time, after what was asked for.

    Clients that failed together come back apart; none comes back before ``retry_after_s``.
    """
    jitter = _random.uniform(0.0, min(MOST_S, FIRST_S * 2.0**tries))
    return jitter if retry_after_s is None else retry_after_s + min(jitter, 1.0)


@dataclass
class Attempts:
    """How often one job was tried, of ``retries`` times more than once. ``deadline`` is that of the whole call."""

    retries: int
    deadline: Deadline
    failed: int = 0

    async def again(
        self, error: MpcError, *, retry_after_s: float | None = None, at_once: bool = False
    ) -> None:
        """Return when it is time for another try. Raises ``error`` if none is left, or the wait would end too late."""
        if self.failed >= self.retries:
            raise error
        pause = 0.0 if at_once else backoff(self.failed, retry_after_s)
        self.failed += 1
        if pause >= self.deadline.left:
            raise error
        await asyncio.sleep(pause)
