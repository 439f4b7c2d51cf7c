"""The gateway's state as one named Ray actor, and a replica's view of it.

Only digests of API keys, ids of jobs and sealed answers are told to it. The actor is detached: it outlives a
rolling update of the gateway, so that an idempotent request is answered once across versions.

A call costs 2 ms, so a replica does not wait for the actor where it need not: it remembers keys for a moment, and it
reports what it let pass every ``REPORT_S``. The actor answers who has sent too much, and those are refused from
then on: a limit holds to within what a key sends in that time. Requests with an Idempotency-Key do wait.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from mpc_ray.errors import MpcError, Unavailable
from mpc_ray.serve.apikeys import ApiKey, Claim
from mpc_ray.serve.config import GatewayConfig
from mpc_ray.serve.state import Ask, LocalState, Replays, check_size, now_ms
from mpc_ray.serve.wire import Failed, error_of, failed

log = logging.getLogger("mpc_ray.serve")

NAME = "mpc-ray gateway state"
HEAD = "node:__internal_head__"  # the state's files lie on the head node
CALLS = 10_000  # at once: those that wait for another's turn are among them
KNOWN_S = 2.0  # how long a replica remembers a key: a revoked one is refused so much later
KNOWN = 4096
REPORT_S = 0.05
UNREPORTED = 20_000  # requests and their tokens; more than that without an actor, and nothing is let pass


class StateActor:
    """Owns the state; failures are answers, since Ray would keep an exception's text."""

    def __init__(self, config: str) -> None:
        self._config = config
        self._state = LocalState.of(GatewayConfig.model_validate_json(config))

    async def identify(self, claim: Claim) -> ApiKey | None | Failed:
        return await _told(self._state.identify(claim))

    async def admit(self, ask: Ask) -> bytes | None | Failed:
        return await _told(self._state.admit(ask))

    async def finish(self, ask: Ask, answer: bytes | None) -> None | Failed:
        return await _told(self._state.finish(ask, answer))

    async def report(self, uses: Sequence[tuple[ApiKey, int | None]]) -> Mapping[str, Failed]:
        """Count what passed: a key and its tokens, or None for a request; why which keys are to be refused now."""
        refused: dict[str, Failed] = {}
        for key, tokens in uses:
            try:
                if tokens is None:
                    self._state.rates.request(key)
                else:
                    self._state.rates.tokens(key, tokens)
            except MpcError as error:
                refused[key.id] = failed(error)
        return refused

    async def configure(self, config: str) -> None:
        """Follow a new version's settings."""
        if config != self._config:
            self._state.configure(GatewayConfig.model_validate_json(config))
            self._config = config


class ActorState:
    """A ``State`` in a replica, for one event loop."""

    def __init__(self, actor: Any, skew_ms: int = 5000) -> None:
        self._actor = actor
        self._skew_ms = skew_ms
        self._known: OrderedDict[Claim, tuple[ApiKey, float]] = OrderedDict()
        self._replays = Replays(now_ms)
        self._unreported: list[tuple[ApiKey, int | None]] = []
        self._refused: dict[str, tuple[float, Failed]] = {}
        self._reporting: asyncio.Task[None] | None = None

    async def identify(self, claim: Claim) -> ApiKey | None:
        known = self._known.get(claim)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        key: ApiKey | None = await _answer(self._actor.identify.remote(claim))
        self._known.pop(claim, None)
        if key is not None:  # only what is genuine is kept: strangers cannot fill it
            self._known[claim] = (key, time.monotonic() + KNOWN_S)
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return key

    async def request(self, key: ApiKey) -> None:
        self._refuse(key)
        self._later(key, None)

    async def admit(self, ask: Ask) -> bytes | None:
        if not ask.idempotency:
            self._let_pass(ask)
            return None
        try:
            stored: bytes | None = await _answer(self._actor.admit.remote(ask))
        except asyncio.CancelledError:
            self._actor.finish.remote(ask, None)  # a turn that was given, or is given later, is nobody's
            raise
        return stored

    async def finish(self, ask: Ask, answer: bytes | None) -> None:
        if ask.idempotency:
            await _answer(self._actor.finish.remote(ask, answer))
        elif answer is None:
            self._replays.forget(ask.job)

    def _let_pass(self, ask: Ask) -> None:
        """Count here, report later. Raises as ``State.admit``."""
        self._refuse(ask.key)
        check_size(ask)
        self._replays.accept(ask.job, ask.expires_ms + self._skew_ms)
        try:
            self._later(ask.key, ask.tokens)
        except Unavailable:
            self._replays.forget(ask.job)
            raise

    def _refuse(self, key: ApiKey) -> None:
        """Raise what the actor said of a key that sent too much, for as long as it said."""
        until, failure = self._refused.get(key.id, (0.0, None))
        if failure is not None and time.monotonic() < until:
            raise error_of(failure)

    def _later(self, key: ApiKey, tokens: int | None) -> None:
        """Report a request, or tokens, within ``REPORT_S``."""
        if len(self._unreported) >= UNREPORTED:
            raise Unavailable(
                "the gateway's state does not answer", remedy="send the request again", retry_after_s=2.0
            )
        self._unreported.append((key, tokens))
        if self._reporting is None or self._reporting.done():
            self._reporting = asyncio.create_task(self._report(), name="report")

    async def _report(self) -> None:
        while self._unreported:
            await asyncio.sleep(REPORT_S)
            uses, self._unreported = self._unreported, []
            try:
                refused: Mapping[str, Failed] = await self._actor.report.remote(uses)
            except RayError:
                log.warning("the gateway's state did not take a report of %d uses", len(uses))
                self._unreported[:0] = uses
                continue
            now = time.monotonic()
            self._refused = {key: kept for key, kept in self._refused.items() if kept[0] > now}
            for key, failure in refused.items():
                self._refused[key] = (now + float(failure.fields.get("retry_after_s", 1.0)), failure)


async def state_of(config: GatewayConfig) -> ActorState:
    """The state of this cluster's gateway, started if there is none. For an event loop of a process in Ray."""
    text = config.model_dump_json()
    actor = (
        ray.remote(StateActor)
        .options(
            name=NAME,
            namespace=config.ray.namespace,
            lifetime="detached",
            get_if_exists=True,
            max_restarts=-1,
            max_concurrency=CALLS,
            num_cpus=0,
            resources={HEAD: 0.001},
        )
        .remote(text)
    )
    await _answer(actor.configure.remote(text))
    return ActorState(actor, int(config.limits.clock_skew_s * 1000))


async def _told(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except Exception as error:  # noqa: BLE001 - a failure is an answer
        return failed(error)


async def _answer(reference: Any) -> Any:
    try:
        answer = await reference
    except RayError:
        raise Unavailable(
            "the gateway's state is being restarted", remedy="send the request again", retry_after_s=2.0
        ) from None
    if isinstance(answer, Failed):
        raise error_of(answer)
    return answer
