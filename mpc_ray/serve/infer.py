"""One request from its headers to its answer: ``POST /v1/private/infer``."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from starlette.requests import Request
from starlette.responses import Response

from mpc_ray.errors import AuthorisationError, DeadlineExceeded, MpcError, Overloaded, Unavailable
from mpc_ray.serve.apikeys import ApiKey, Claim
from mpc_ray.serve.bodies import CLOSE, Bodies, Room
from mpc_ray.serve.body import read_json
from mpc_ray.serve.check import Checks, new_turn
from mpc_ray.serve.config import Limits
from mpc_ray.serve.interface import Answers, Job, Triples
from mpc_ray.serve.problems import ProblemError, problem_of
from mpc_ray.serve.schema import InferAnswer, encode
from mpc_ray.serve.state import Ask, State
from mpc_ray.telemetry import logs, metrics, traces

log = logging.getLogger("mpc_ray.serve")

MAX_BEARER = 256
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_MILLISECONDS = re.compile(r"[1-9][0-9]{0,8}")
LEFT = 499  # the caller has gone: nobody reads this answer


@dataclass(frozen=True)
class Wish:
    """What the headers of a request ask for. ``end`` on the loop's clock."""

    end: float
    idempotency: str
    traceparent: str

    @property
    def left(self) -> float:
        return max(0.0, self.end - asyncio.get_running_loop().time())


@dataclass
class Place:
    """What one request has here: ``room`` for its body, and a task that goes on when its caller has left."""

    room: Room | None = None
    keep: asyncio.Task[Response] | None = None


@dataclass
class Inference:
    """Computes requests. One for each application; for one event loop."""

    triples: Mapping[str, Triples]
    state: State
    checks: Checks
    limits: Limits
    under_way: int = 0
    bodies: Bodies = field(init=False)
    _tasks: set[asyncio.Task[Response]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.bodies = Bodies(self.limits.bodies_bytes, self.limits.body_bytes)

    async def __call__(self, request: Request) -> Response:
        """Answer one request. Raises MpcErrors; cancelling it cancels the job, unless it is idempotent.

        Whatever the headers tell is settled before the body is read: who asks, and whether they may send more.
        """
        async with self._place() as place:
            wish = wished(request, self.limits)
            key = await authenticate(request, self.state)
            await self._counted(key)
            place.room = self.bodies.room(key.id)
            task = asyncio.create_task(self._compute(await self._read(request, wish, place.room), key, wish))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return await self._watched(request, task, place, wait=bool(wish.idempotency))

    async def drained(self) -> None:
        """Wait for what is under way, without a caller too. Bounded by the latest deadline."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _counted(self, key: ApiKey) -> None:
        """Count a request of ``key``. A refusal closes the connection: its body is never read."""
        try:
            await self.state.request(key)
        except MpcError as error:
            said = problem_of(error)
            headers = {**said.headers, **CLOSE}
            raise ProblemError(
                said.status, said.code, said.cause, remedy=said.remedy, headers=headers, extra=said.extra
            ) from None

    async def _read(self, request: Request, wish: Wish, room: Room) -> bytes:
        seconds = min(self.limits.body_s, wish.left)
        return await read_json(request, self.limits.body_bytes, seconds, room)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[Place]:
        """A place among those that are computed at once, kept until the task that it keeps, if any, is done."""
        if self.under_way >= self.limits.concurrent:
            raise Busy(self.limits.concurrent)
        self.under_way += 1
        place = Place()

        def leave(_: object = None) -> None:
            self.under_way -= 1
            if place.room is not None:
                place.room.give_back()

        try:
            yield place
        finally:
            if place.keep is not None and not place.keep.done():
                place.keep.add_done_callback(leave)
            else:
                leave()

    async def _watched(
        self,
        request: Request,
        task: asyncio.Task[Response],
        place: Place,
        *,
        wait: bool,
    ) -> Response:
        """The task's answer. If the caller goes, it is cancelled; one that is idempotent goes on to be stored."""
        gone = asyncio.create_task(_disconnected(request), name="disconnect")
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            return Response(status_code=LEFT)
        finally:
            gone.cancel()
            if not task.done():
                if wait:
                    place.keep = task
                    task.add_done_callback(_seen)
                else:
                    task.cancel()
                    await asyncio.wait((task,))

    async def _compute(self, body: bytes, key: ApiKey, wish: Wish) -> Response:
        job, a = self.checks.job(body, key, wish.left)
        digest = hashlib.sha256(body).digest() if wish.idempotency else b""
        del body  # the job has its envelopes, decoded
        ask = Ask(
            key, a.job, a.expires_ms, a.batch * a.length, new_turn(), wish.left, wish.idempotency, digest
        )
        begun = time.perf_counter()
        parent = traces.parse(wish.traceparent)
        with (
            traces.span("infer", parent=parent, job=a.job, set=a.set, batch=a.batch, length=a.length) as span,
            logs.context(job=a.job, set=a.set),
        ):
            try:
                return await self._in_time(ask, replace(job, traceparent=span.traceparent), wish)
            finally:
                log.info("%d x %d tokens: %.3f s", a.batch, a.length, time.perf_counter() - begun)

    async def _in_time(self, ask: Ask, job: Job, wish: Wish) -> Response:
        """As ``_admitted``, within the deadline, and counted by what became of it."""
        code, name = "left", str(job.authorisation["set"])
        try:
            async with asyncio.timeout_at(wish.end):
                response = await self._admitted(ask, job, wish)
            code = "ok"
            return response
        except TimeoutError:
            code = "deadline"
            raise DeadlineExceeded(
                "the job was not done before its deadline", remedy="allow more time, or send less at once"
            ) from None
        except MpcError as error:
            code = problem_of(error).code
            raise
        finally:
            metrics.job(code, set=name)
            if code != "ok":
                log.info("not answered: %s", code)

    async def _admitted(self, ask: Ask, job: Job, wish: Wish) -> Response:
        stored = await self.state.admit(ask)
        if stored is not None:
            return _answer(stored, replayed=True)
        content: bytes | None = None
        try:
            answers = await self.triples[str(job.authorisation["set"])].infer(
                replace(job, timeout_s=wish.left)
            )
            content = render(answers)
        except AuthorisationError as error:
            if not ask.idempotency or error.code != "replayed":
                raise
            # The same bytes were tried before and failed after the parties had accepted the job.
            raise Unavailable(
                "an earlier attempt at this request failed", remedy="send it under a new authorisation"
            ) from None
        finally:
            if content is None or ask.idempotency:
                # Also while this task is being cancelled: else the key would stay in use until its deadline.
                await asyncio.shield(self._finish(ask, content))
        return _answer(content, replayed=False)

    async def _finish(self, ask: Ask, content: bytes | None) -> None:
        """End the turn. Where the state cannot be reached, an answer that is there is given all the same."""
        try:
            await self.state.finish(ask, content)
        except MpcError as error:
            log.warning("a turn was not ended: %s", error)


class Busy(Overloaded):
    """This process computes as many requests as it may. The body is not read."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"{limit} requests are under way here already", remedy="send this one again in a moment"
        )
        self.headers = CLOSE


def wished(request: Request, limits: Limits) -> Wish:
    """What the headers ask for. Raises ProblemError for malformed ones."""
    seconds = limits.timeout_s
    if (text := request.headers.get("x-request-timeout-ms")) is not None:
        most = int(limits.max_timeout_s * 1000)
        if not _MILLISECONDS.fullmatch(text) or int(text) > most:
            raise _bad_header("X-Request-Timeout-Ms", f"send whole milliseconds from 1 to {most}")
        seconds = int(text) / 1000
    key = request.headers.get("idempotency-key", "")
    if ("idempotency-key" in request.headers) and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise _bad_header("Idempotency-Key", "send 1 to 128 visible ASCII characters")
    traceparent = request.headers.get("traceparent", "")
    return Wish(asyncio.get_running_loop().time() + seconds, key, traceparent)


async def authenticate(request: Request, state: State) -> ApiKey:
    """The API key of a request. Raises ProblemError 401."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    challenge = {"WWW-Authenticate": "Bearer", **CLOSE}
    if scheme.lower() != "bearer" or not bearer:
        raise ProblemError(
            401,
            "no_key",
            "this address needs an API key",
            remedy="send Authorization: Bearer mpck_…",
            headers=challenge,
        )
    claim = Claim.of(bearer.strip()) if len(bearer) <= MAX_BEARER else None
    key = await state.identify(claim) if claim is not None else None
    if key is None:
        raise ProblemError(
            401,
            "bad_key",
            "this API key is unknown, expired or revoked",
            remedy="ask the gateway's operator for one: mpc-ray keys create",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"', **CLOSE},
        )
    return key


def render(answers: Answers) -> bytes:
    """The body of an answer."""
    a, b, c = map(encode, answers.sealed)
    body = InferAnswer(job=answers.job, answers=[a, b, c], set=answers.set, timing=dict(answers.timing))
    return body.model_dump_json().encode()


def _answer(content: bytes, *, replayed: bool) -> Response:
    headers = {"Cache-Control": "no-store"}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(content, media_type="application/json", headers=headers)


def _bad_header(name: str, remedy: str) -> ProblemError:
    return ProblemError(
        422,
        "invalid",
        f"the header {name} is malformed",
        remedy=remedy,
        headers=CLOSE,
        extra={"errors": [{"at": f"header.{name}", "kind": "header"}]},
    )


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _seen(task: asyncio.Task[Response]) -> None:
    """Nobody awaits it: an error in it was counted, and asyncio need not complain."""
    if not task.cancelled():
        task.exception()
