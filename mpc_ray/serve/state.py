"""What a gateway must remember between requests, in one place: keys, rates, jobs seen, idempotent answers.

It belongs to one process. Under uvicorn that is the gateway's own (``LocalState``); under Ray Serve it is one
named actor, which every replica asks (``serve.actor``).
"""

from __future__ import annotations

import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mpc_ray.errors import AuthorisationError, Overloaded
from mpc_ray.serve.apikeys import ApiKey, Claim, KeyRing
from mpc_ray.serve.config import GatewayConfig
from mpc_ray.serve.idempotency import Idempotency
from mpc_ray.serve.limits import QuotaExceeded, Rates

MAX_JOBS = 1_000_000  # remembered at once; about 200 bytes each


@dataclass(frozen=True)
class Ask:
    """A request that wants to be computed. ``turn`` is a random name of this attempt, ``idempotency`` "" for none.

    ``digest``: SHA-256 of the body. ``tokens``: batch times length. ``timeout_s``: how long the caller waits.
    """

    key: ApiKey
    job: str
    expires_ms: int
    tokens: int
    turn: str
    timeout_s: float
    idempotency: str = ""
    digest: bytes = field(default=b"", repr=False)


class State(Protocol):
    """What the application asks."""

    async def identify(self, claim: Claim) -> ApiKey | None:
        """The valid API key that is claimed, or None."""
        ...

    async def request(self, key: ApiKey) -> None:
        """Count one request, before anything of its body is read. Raises RateExceeded, QuotaExceeded."""
        ...

    async def admit(self, ask: Ask) -> bytes | None:
        """Count its tokens; None: compute it and ``finish`` its turn; bytes: the answer stored for it.

        Raises QuotaExceeded, Conflict, DeadlineExceeded, AuthorisationError("replayed").
        """
        ...

    async def finish(self, ask: Ask, answer: bytes | None) -> None:
        """End the turn of ``ask``: ``answer`` is the body of the answer, None if there was none."""
        ...


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def check_size(ask: Ask) -> None:
    """Raise QuotaExceeded for a request that is larger than its key may send in a whole day."""
    if 0 < ask.key.tokens_per_day < ask.tokens:
        raise QuotaExceeded(
            "this request has more tokens, padding included, than its API key may send a day",
            remedy="send fewer texts, or ask the gateway's operator for a larger quota",
            retry_after_s=86_400.0,
        )


class Replays:
    """Jobs seen until their authorisations expire. A courtesy: each party has a journal of its own on disk."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._jobs: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._jobs)

    def accept(self, job: str, expires_ms: int) -> None:
        """Remember a job. Raises AuthorisationError for one that is remembered, Overloaded if there are too many."""
        now = self._now_ms()
        while (
            self._jobs and next(iter(self._jobs.values())) < now
        ):  # nearly in the order in which they expire
            self._jobs.popitem(last=False)
        if job in self._jobs:
            raise AuthorisationError(
                "a job of this id was sent before",
                remedy="sign a new authorisation for each request",
                code="replayed",
            )
        if len(self._jobs) >= MAX_JOBS:
            raise Overloaded("too many jobs within a minute", remedy="slow down")
        self._jobs[job] = expires_ms

    def forget(self, job: str) -> None:
        self._jobs.pop(job, None)


class LocalState:
    """The state of a gateway in this process's memory, and its keys in ``folder``. For one event loop."""

    def __init__(
        self,
        folder: Path,
        *,
        idempotency_s: float = 600.0,
        idempotency_bytes: int = 64 << 20,
        skew_ms: int = 5000,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.keys = KeyRing(folder, clock=clock, now_ms=now_ms)
        self.rates = Rates()
        self.replays = Replays(now_ms)
        self._turns: dict[str, str] = {}  # the job of each turn under way
        self.idempotency = Idempotency(idempotency_s, idempotency_bytes, clock, self._lost)
        self._skew_ms = skew_ms

    @classmethod
    def of(cls, config: GatewayConfig) -> LocalState:
        limits = config.limits
        return cls(
            config.folder,
            idempotency_s=limits.idempotency_s,
            idempotency_bytes=limits.idempotency_bytes,
            skew_ms=int(limits.clock_skew_s * 1000),
        )

    async def identify(self, claim: Claim) -> ApiKey | None:
        return self.keys.find(claim)

    async def request(self, key: ApiKey) -> None:
        self.rates.request(key)

    async def admit(self, ask: Ask) -> bytes | None:
        check_size(ask)
        if ask.idempotency:
            where = (ask.key.id, ask.idempotency)
            stored = await self.idempotency.begin(where, ask.digest, ask.turn, ask.timeout_s)
            if stored is not None:
                return stored
        with contextlib.ExitStack() as undo:
            if ask.idempotency:
                undo.callback(self.idempotency.finish, ask.turn, None)
            self.replays.accept(ask.job, ask.expires_ms + self._skew_ms)
            undo.callback(self.replays.forget, ask.job)
            self.rates.tokens(ask.key, ask.tokens)
            undo.pop_all()
        if ask.idempotency:
            self._turns[ask.turn] = ask.job
        return None

    def configure(self, config: GatewayConfig) -> None:
        """Follow changed settings without forgetting anything."""
        limits = config.limits
        self.idempotency.bound(limits.idempotency_s, limits.idempotency_bytes)
        self._skew_ms = int(limits.clock_skew_s * 1000)

    async def finish(self, ask: Ask, answer: bytes | None) -> None:
        if ask.idempotency:
            self._turns.pop(ask.turn, None)
            self.idempotency.finish(ask.turn, answer)
        if answer is None:
            self.replays.forget(ask.job)

    def _lost(self, turn: str) -> None:
        """A replica died with a turn: who repeats the request is no replayer."""
        if (job := self._turns.pop(turn, None)) is not None:
            self.replays.forget(job)

    def close(self) -> None:
        self.keys.close()
