"""One triple as the gateway sees it: three links, opened together, running one batch at a time, ended together.

A triple belongs to its three links: when they close, each party ends its slot. It is never repaired. Whatever goes
wrong in a run ends it, and ``RunFailed`` says whether the same jobs may run once more on a fresh one: only where every
party either lost another or was stopped by us. A party that found something wrong with what it received (``BadFrame``,
a shape, a range) is never asked to compute the same again: repeating a failed check can tell an attacker something.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field

from mpc_ray.channel.link import JSON, Message
from mpc_ray.channel.packed import finite
from mpc_ray.errors import (
    UNEQUAL_COPIES,
    BadFrame,
    ChannelError,
    CheatingDetected,
    MpcError,
    PeerLost,
    Unavailable,
)
from mpc_ray.serve.interface import Three
from mpc_ray.serve.links import Front

log = logging.getLogger("mpc_ray.serve.triple")

_STOPPED_BY_US = frozenset({"aborted", "unknown_triple"})
_LOST_JOBS = frozenset({"unknown_job", "attempt", "already_running"})
_AFTERMATH_S = 5.0  # how long the other two may take to answer once one has failed
_CLOSE_S = 2.0


@dataclass(frozen=True)
class Ran:
    """A batch's answers, in the order of its jobs, and what it cost the party that sent most."""

    answers: tuple[Three, ...] = field(repr=False)
    rounds: int
    bytes_sent: int
    seconds: float
    worn: bool


class RunFailed(Exception):
    """A run that did not end well at all three parties; the triple is useless now.

    ``error`` is what callers see, ``again`` whether the same jobs may run once more, ``reason`` a word for the counts.
    """

    def __init__(self, error: MpcError, *, again: bool, reason: str) -> None:
        super().__init__(error.cause)
        self.error, self.again, self.reason = error, again, reason


class OneTriple:
    """Made by ``open_triple``. Not for several batches at once.

    Who leads it sets ``over`` when it should be replaced, and ``lost`` when it cannot be used any more.
    """

    def __init__(self, fronts: Sequence[Front], models: Mapping[str, str]) -> None:
        self.id = os.urandom(16).hex()
        self.models = dict(models)
        self.over = asyncio.Event()
        self.lost = False
        self._fronts = fronts
        self._lines = tuple(front.line() for front in fronts)

    async def run(self, jobs: Sequence[str], attempt: int, *, timeout: float, traceparent: str = "") -> Ran:
        """Run ``jobs`` (32 hexadecimal digits each) at all three parties, in this order. ``RunFailed`` otherwise."""
        header: dict[str, JSON] = {"cmd": "run", "triple": self.id, "jobs": list(jobs), "attempt": attempt}
        if traceparent:
            header["traceparent"] = traceparent
        asked = [asyncio.ensure_future(line.ask(header, timeout=timeout)) for line in self._lines]
        try:
            await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
            await self._stop_the_rest(asked)
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            for one in asked:
                one.cancel()
        failures = {
            party: outcome for party, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)
        }
        if failures:
            raise _judged(failures)
        return _joined(jobs, [outcome for outcome in outcomes if isinstance(outcome, Message)])

    async def close(self) -> None:
        """End it everywhere, politely where a party still answers. Raises nothing."""
        ask: list[Awaitable[Message]] = [
            line.ask({"cmd": "close", "triple": self.id}, timeout=_CLOSE_S)
            for line in self._lines
            if line.connected
        ]
        outcomes = await asyncio.gather(*ask, return_exceptions=True)
        self.cut()
        for outcome in outcomes:
            if isinstance(outcome, MpcError) and not isinstance(outcome, ChannelError):
                log.info("closing a triple: %s", outcome)

    def cut(self) -> None:
        """Close its links now: what runs fails at once, and the parties end their slots."""
        for line in self._lines:
            line.close()

    async def _stop_the_rest(self, asked: Sequence[asyncio.Future[Message]]) -> None:
        """One party failed: none must compute on. The answers of those that did still say what they saw."""
        if not any(not one.done() or one.exception() for one in asked):
            return
        pending = [one for one in asked if not one.done()]
        aborts = [
            asyncio.ensure_future(front.control.ask({"cmd": "abort", "triple": self.id}, timeout=_CLOSE_S))
            for front in self._fronts
        ]
        await asyncio.wait(aborts)
        if pending:
            await asyncio.wait(pending, timeout=_AFTERMATH_S)
        for one, line in zip(asked, self._lines, strict=True):
            if not one.done():
                line.cut()
        for abort in aborts:
            if error := abort.exception():
                log.info("abort: %s", error if isinstance(error, MpcError) else type(error).__name__)

    async def _open(self, timeout: float) -> None:
        header: dict[str, JSON] = {
            "cmd": "open",
            "triple": self.id,
            "models": list[JSON](sorted(self.models)),
            "timeout_s": timeout,
        }
        asked = [asyncio.ensure_future(line.ask(header, timeout=timeout)) for line in self._lines]
        try:
            await asyncio.wait(asked, return_when=asyncio.FIRST_EXCEPTION)
            if any(one.done() and one.exception() for one in asked):
                await asyncio.wait(asked, timeout=_CLOSE_S)  # the other two may know better why
        finally:
            for one in asked:
                one.cancel()
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
        errors = [outcome for outcome in outcomes if isinstance(outcome, MpcError)]
        if errors:
            raise min(errors, key=_telling)
        if any(isinstance(outcome, BaseException) for outcome in outcomes):
            raise Unavailable(
                "the parties did not all answer while a triple was opened", remedy="see their logs"
            )


async def open_triple(fronts: Sequence[Front], models: Mapping[str, str], *, timeout: float) -> OneTriple:
    """A fresh triple with ``models`` (name to digest) loaded at all three parties, within ``timeout`` s.

    Raises the most telling of the parties' errors; nothing stays open then.
    """
    triple = OneTriple(fronts, models)
    try:
        await triple._open(timeout)
    except BaseException:
        triple.cut()
        raise
    return triple


def _judged(failures: Mapping[int, BaseException]) -> RunFailed:
    """What became of a run in which some parties failed."""
    errors: list[MpcError] = []
    for party, failure in failures.items():
        if isinstance(failure, MpcError):
            errors.append(failure)
        else:  # cancelled with this gateway, or a fault of our own
            errors.append(ChannelError(f"party {party}: {type(failure).__name__} at the gateway"))
    if cheated := [error for error in errors if isinstance(error, CheatingDetected)]:
        first = min(cheated, key=lambda error: (error.second_hand, error.code == UNEQUAL_COPIES))
        if first.code == UNEQUAL_COPIES:  # a client may have dealt them: no reason to distrust parties
            return RunFailed(
                _try_again(f"a job of this run was dealt unequally, or a party says so: {first.cause}"),
                again=False,
                reason=UNEQUAL_COPIES,
            )
        return RunFailed(first, again=False, reason="cheatingdetected")
    if any(error.code in _LOST_JOBS for error in errors):
        cause = min(errors, key=_telling).cause
        return RunFailed(
            _try_again(f"a party no longer holds a job: {cause}"), again=False, reason="lost_job"
        )
    checks = [
        error for error in errors if not isinstance(error, PeerLost) and error.code not in _STOPPED_BY_US
    ]
    if checks:
        return RunFailed(min(checks, key=_telling), again=False, reason=type(checks[0]).__name__.lower())
    lost = min(errors, key=_telling)
    return RunFailed(_try_again(lost.cause), again=True, reason="peer_lost")


def _telling(error: MpcError) -> int:
    """Which of several errors of one event to show: what a party found wrong before that it lost another."""
    if error.code in _STOPPED_BY_US:
        return 3
    if isinstance(error, PeerLost):
        return 2
    return 1 if type(error) in (ChannelError, MpcError) else 0


def _joined(jobs: Sequence[str], answers: Sequence[Message]) -> Ran:
    """Three answers as one. ``RunFailed`` if a party left a job out."""
    threes: list[Three] = []
    for job in jobs:
        sealed = [answer.tensors.get(f"answer {job}") for answer in answers]
        missing = [
            party for party, one in enumerate(sealed) if one is None or one.dtype != "uint8" or not one.size
        ]
        if missing:
            error = BadFrame(
                f"party {missing[0]}: its answer lacks a job of the batch",
                remedy="install the same release everywhere",
            )
            raise RunFailed(error, again=False, reason="badframe")
        a, b, c = (one.tobytes() for one in sealed if one is not None)
        threes.append((a, b, c))

    def most(name: str) -> float:
        return max(0.0, *(finite(answer.header.get(name)) for answer in answers))

    worn = any(answer.header.get("worn") is True for answer in answers)
    return Ran(tuple(threes), int(most("rounds")), int(most("bytes_sent")), most("seconds"), worn)


def _try_again(cause: str) -> Unavailable:
    return Unavailable(cause, remedy="send the request again under a new authorisation", retry_after_s=1.0)
