"""Continuous batching: jobs that wait together run together, and nobody waits for a batch to fill.

Jobs queue by key (model, length, output, range check: what one run must have in common). A triple that is idle
takes at once what waits: the oldest job of all, and behind it the jobs of the same key, oldest first, up to
``max_tokens``. The oldest job always goes first, so no key can starve another.

An idle triple holds back in two cases only, and never for a single caller: for ``delay_s`` after the first arrival,
where other jobs are known to be on their way; and for ``wait_share`` of a run's usual time after the last run, where
fewer wait than were there when it ended, because callers that have just been answered tend to come back at once.
Without the second, eight callers fall into two groups that take turns for ever, and pay the rounds of two runs.

Pure asyncio on the running loop's clock: no network, no threads, no wall time.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mpc_ray.errors import ConfigError, DeadlineExceeded, Overloaded, Unavailable

T = TypeVar("T")
R = TypeVar("R")

RETRY_BOUNDS_S = (0.1, 60.0)
LONGEST_WAIT_S = 0.25
_MEMORY = 0.2  # weight of the newest measurement of service time


@dataclass(frozen=True)
class BatchLimits:
    """``max_tokens``: padded tokens (rows x length) of one batch; a larger single job runs alone. ``max_queue``:
    jobs waiting or on their way. ``delay_s``: how long an idle triple waits for jobs on their way; ``wait_share``: for
    which part of a run's usual time it waits for callers to come back, at most ``LONGEST_WAIT_S``.
    """

    max_tokens: int = 512
    max_queue: int = 256
    delay_s: float = 0.005
    wait_share: float = 0.05

    def __post_init__(self) -> None:
        within = 0 <= self.delay_s <= 1 and 0 <= self.wait_share <= 0.5
        if self.max_tokens < 1 or self.max_queue < 1 or not within:
            raise ConfigError(
                "batching: max_tokens and max_queue are at least 1, delay_s is 0 to 1, wait_share 0 to 0.5",
                remedy="correct the settings of the triple's leader",
            )


@dataclass(eq=False)
class Waiting(Generic[T, R]):
    """One job in the queue, or in a batch. ``deadline`` and ``arrived`` on the loop's clock."""

    item: T = field(repr=False)
    key: Hashable
    tokens: int
    arrived: float
    deadline: float
    done: asyncio.Future[R] = field(repr=False)

    def answer(self, result: R) -> None:
        """Give the caller its result; nothing happens where it has gone."""
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: Exception) -> None:
        """Give the caller an error; nothing happens where it has gone."""
        if not self.done.done():
            self.done.set_exception(error)


class Place(Generic[T, R]):
    """Room kept for one job: first on its way, then waiting. Made by ``Batcher.place``."""

    def __init__(self, batcher: Batcher[T, R]) -> None:
        self._batcher = batcher

    async def compute(self, item: T, key: Hashable, tokens: int, deadline: float) -> R:
        """Wait in the queue, run, and return what the batch's runner answers.

        Raises ``DeadlineExceeded`` when the loop's clock reaches ``deadline`` first (a job that waits then is never
        run), and whatever error the runner gave the job.
        """
        return await self._batcher._compute(self, item, key, tokens, deadline)


class Batcher(Generic[T, R]):
    """The queue of one set. Callers use ``place``; whoever leads a triple uses ``take`` and ``finished``."""

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self._queues: dict[Hashable, deque[Waiting[T, R]]] = {}
        self._coming: set[Place[T, R]] = set()
        self._running = 0
        self._idle_since = -math.inf
        self._expected = 0  # jobs there were when the last batch ended, its own included
        self._batch_s = 0.0  # measured, smoothed
        self._batch_jobs = 1.0
        self._draining = False
        self._sleepers: set[asyncio.Future[None]] = set()

    @property
    def waiting(self) -> int:
        """Jobs in the queue, not those that run."""
        return sum(map(len, self._queues.values()))

    @property
    def running(self) -> int:
        """Batches that have been taken and have not finished."""
        return self._running

    @contextmanager
    def place(self) -> Iterator[Place[T, R]]:
        """Room for one job, given back on leaving the block, whatever stage the job had reached.

        Raises ``Overloaded`` when the queue is full, ``Unavailable`` when it drains.
        """
        if self._draining:
            raise Unavailable(
                "this gateway is shutting down", remedy="send the request to another", retry_after_s=1.0
            )
        if self.waiting + len(self._coming) >= self.limits.max_queue:
            raise Overloaded(
                f"{self.limits.max_queue} jobs wait already",
                remedy="slow down, or add triples",
                retry_after_s=self.retry_after_s(),
            )
        place: Place[T, R] = Place(self)
        self._coming.add(place)
        try:
            yield place
        finally:
            self._coming.discard(place)
            self._changed()

    def retry_after_s(self) -> float:
        """Seconds in which what waits now should have run, from measured service times; 1 before any."""
        if not self._batch_s:
            return 1.0
        batches = 1 + (self.waiting + len(self._coming)) / self._batch_jobs
        low, high = RETRY_BOUNDS_S
        return min(max(batches * self._batch_s, low), high)

    async def take(self) -> list[Waiting[T, R]]:
        """The next batch, as soon as there is one: one key, oldest first, at least one job, all before their
        deadlines. Cancelling it takes nothing.
        """
        clock = asyncio.get_running_loop().time
        while True:
            self._expire(clock())
            head = self._oldest()
            if head is None:
                await self._sleep(math.inf)
                continue
            left = self._company(head) - clock()
            if left > 0:
                await self._sleep(left)
                continue
            self._running += 1
            return self._cut(head.key)

    def finished(self, batch: Sequence[Waiting[T, R]], seconds: float) -> None:
        """A batch taken earlier has ended, well or not. ``seconds``: how long it ran; 0 leaves the estimate alone."""
        self._running -= 1
        self._idle_since = asyncio.get_running_loop().time()
        answered = sum(not waiting.done.cancelled() for waiting in batch)
        self._expected = answered + self.waiting + len(self._coming)
        if seconds > 0:
            weight = _MEMORY if self._batch_s else 1.0
            self._batch_s += weight * (seconds - self._batch_s)
            self._batch_jobs += weight * (len(batch) - self._batch_jobs)
        self._changed()

    def refuse_all(self, error: Exception) -> int:
        """Fail every job that waits; returns how many there were. Later ones are accepted again."""
        refused = [waiting for queue in self._queues.values() for waiting in queue]
        self._queues.clear()
        for waiting in refused:
            waiting.fail(error)
        self._changed()
        return len(refused)

    async def drain(self) -> None:
        """Accept nothing more, and return when nothing is on its way, waiting or running."""
        self._draining = True
        while self.waiting or self._coming or self._running:
            await self._sleep(math.inf)

    async def _compute(self, place: Place[T, R], item: T, key: Hashable, tokens: int, deadline: float) -> R:
        loop = asyncio.get_running_loop()
        waiting: Waiting[T, R] = Waiting(item, key, tokens, loop.time(), deadline, loop.create_future())
        self._coming.discard(place)
        self._queues.setdefault(key, deque()).append(waiting)
        self._changed()
        try:
            async with asyncio.timeout_at(deadline):
                return await waiting.done
        except TimeoutError:
            raise _too_late() from None
        finally:
            waiting.done.cancel()
            self._remove(waiting)

    def _oldest(self) -> Waiting[T, R] | None:
        return min((queue[0] for queue in self._queues.values()), key=lambda w: w.arrived, default=None)

    def _company(self, head: Waiting[T, R]) -> float:
        """Until when the oldest job should wait for others to share its run."""
        if self.limits.max_tokens <= sum(waiting.tokens for waiting in self._queues[head.key]):
            return -math.inf
        until = head.arrived + self.limits.delay_s if self._coming else -math.inf
        if self.waiting < self._expected:
            until = max(until, self._idle_since + min(self.limits.wait_share * self._batch_s, LONGEST_WAIT_S))
        return until

    def _cut(self, key: Hashable) -> list[Waiting[T, R]]:
        queue = self._queues[key]
        batch: list[Waiting[T, R]] = []
        tokens = 0
        while queue and (not batch or tokens + queue[0].tokens <= self.limits.max_tokens):
            batch.append(queue.popleft())
            tokens += batch[-1].tokens
        if not queue:
            del self._queues[key]
        return batch

    def _expire(self, now: float) -> None:
        """Jobs whose time is up, or whose caller has gone, are not run even if their timers are late."""
        for queue in list(self._queues.values()):
            for waiting in [w for w in queue if w.deadline <= now or w.done.done()]:
                waiting.fail(_too_late())
                self._remove(waiting)

    def _remove(self, waiting: Waiting[T, R]) -> None:
        queue = self._queues.get(waiting.key)
        if queue is not None and waiting in queue:
            queue.remove(waiting)
            if not queue:
                del self._queues[waiting.key]
            self._changed()

    def _changed(self) -> None:
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)

    async def _sleep(self, seconds: float) -> None:
        """Until something changes, or for ``seconds``."""
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.add(sleeper)
        try:
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await sleeper
        except TimeoutError:
            pass  # the delay is over: that is an answer too
        finally:
            self._sleepers.discard(sleeper)


def _too_late() -> DeadlineExceeded:
    return DeadlineExceeded(
        "the job waited until its deadline and was not answered",
        remedy="allow more time, or send less at once",
    )
