"""The client of a service of three parties: texts in, vectors out; only shares and sealed bytes leave this process.

    with Client("https://gateway.example.org", bundle="minilm.client", signing_key="client.key",
                api_key="…", trust="federation-ca.pem") as client:
        vectors = client.embed(["Only this machine ever sees this sentence."])

``AsyncClient`` is the same for asyncio; ``Client`` runs one in a thread of its own, so it works in any thread and in
notebooks. Both try again by themselves where that is safe, within one deadline, and check what comes back.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from mpc_ray.client.bundle import Bundle
from mpc_ray.client.gateway import Answer, Gateway
from mpc_ray.client.jobs import JobNote, Jobs, Wanted
from mpc_ray.client.parties import Parties, Trust
from mpc_ray.client.problems import Problem
from mpc_ray.client.request import Terms, joined
from mpc_ray.client.retry import Attempts, Deadline, exceeded
from mpc_ray.client.share import prepare
from mpc_ray.errors import (
    ConfigError,
    InputError,
    MpcError,
)
from mpc_ray.models.tokenize import BATCH_TOKENS
from mpc_ray.models.weights import Array
from mpc_ray.telemetry import traces
from mpc_ray.trust.authorisation import SigningKey
from mpc_ray.trust.directory import PartyRecord
from mpc_ray.trust.secret import Secret

FEDERATION = "federation"
MOST_TEXTS = 64  # of one job: what gateways take unless told otherwise


@dataclass(frozen=True)
class Embedded:
    """``vectors``: float64 (texts, hidden), in order."""

    vectors: Array = field(repr=False)
    jobs: tuple[JobNote, ...]


class AsyncClient:
    """Asks the gateway at ``url``. For one event loop; many calls at once share ``concurrency`` jobs under way.

    ``bundle``: the model's client bundle (folder). ``signing_key``: the key enrolled with each operator (file).
    ``api_key``: the gateway's Bearer key. ``trust``: the federation's authority: PEM file, SHA-256 fingerprint, or
    ``tofu`` with ``pin``, the file that keeps what was seen first (``mpc_ray.client.parties.Trust.of``).
    ``set``: this set of parties and no other; else sets are taken in the order of ``regions``, and the next allowed one
    when one does not answer. ``jurisdictions``: where all three operators must be. ``purpose``, ``retention``,
    ``protocol``: signed in every authorisation. ``timeout_s``: for all of a call. ``attempt_timeout_s``: for one
    sending, at most what the gateway allows. ``retries``: further tries of a job. ``verify``, ``server_name``: the
    gateway's HTTPS certificate (``mpc_ray.client.gateway.Gateway``); ``federation``: it is the one that the
    federation's authority gave it.
    Raises ConfigError or ModelError for what cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        bundle: Bundle | str | Path,
        signing_key: SigningKey | str | Path,
        trust: Trust | str | Path,
        api_key: Secret | str | None = None,
        pin: str | Path | None = None,
        pin_parties: bool = False,
        set: str | None = None,
        regions: Sequence[str] = (),
        jurisdictions: Sequence[str] = (),
        purpose: str = "inference",
        retention: str = "job",
        protocol: str = "semi_honest_3pc",
        timeout_s: float = 120.0,
        attempt_timeout_s: float = 60.0,
        retries: int = 8,
        concurrency: int = 4,
        max_batch_tokens: int = BATCH_TOKENS,
        verify: str | Path | ssl.SSLContext | None = None,
        server_name: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if isinstance(regions, str) or isinstance(jurisdictions, str):
            raise ConfigError("regions and jurisdictions are lists of names", remedy='for one: ["eu"]')
        if timeout_s <= 0 or attempt_timeout_s <= 0 or retries < 0 or concurrency < 1:
            raise ConfigError(
                "timeouts must be above 0, retries at least 0, concurrency at least 1", remedy="correct it"
            )
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        self._key = signing_key if isinstance(signing_key, SigningKey) else SigningKey.load(Path(signing_key))
        self._timeout_s, self._attempt_s, self._retries = timeout_s, attempt_timeout_s, retries
        self._tokens = max(1, min(max_batch_tokens, MOST_TEXTS * self.bundle.lengths[0]))
        known = trust if isinstance(trust, Trust) else Trust.of(trust, pin, pin_parties=pin_parties)
        if verify == FEDERATION:
            verify, server_name = _federations(known), server_name or "gateway"
        self._gateway = Gateway(
            url,
            api_key=_secret(api_key),
            verify=verify,
            server_name=server_name,
            connections=concurrency + 4,
            transport=transport,
        )
        self._parties = Parties(self._gateway, known, retries)
        terms = Terms(purpose, tuple(jurisdictions), retention, protocol)
        wanted = Wanted(terms, set, tuple(regions), retries, attempt_timeout_s)
        self._jobs = Jobs(self._gateway, self._parties, self._key, wanted, concurrency)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._gateway.aclose()

    async def embed(self, texts: Sequence[str] | Sequence[Sequence[int]], *, truncate: bool = False) -> Array:
        """Sentence embeddings, float64 (texts, hidden), in order; of texts, or of the model's own token ids.

        The parties learn each job's padded length and number of texts, nothing else. Texts that are too long are an
        InputError, or cut with ``truncate``. Raises RangeExceeded if a text left the calibrated range;
        AuthorisationError or Refused (``code`` says why) if a gateway or party does not allow it; Overloaded,
        Unavailable, ChannelError or DeadlineExceeded once trying again did not help; MpcError if the answers are wrong.
        """
        return (await self.embed_reported(texts, truncate=truncate)).vectors

    async def embed_reported(
        self, texts: Sequence[str] | Sequence[Sequence[int]], *, truncate: bool = False
    ) -> Embedded:
        """``embed``, with which set answered each job, how fast, and after how many tries."""
        deadline = Deadline(self._timeout_s)
        batches = await asyncio.to_thread(
            prepare, self.bundle, texts, truncate=truncate, max_batch_tokens=self._tokens
        )
        with traces.span("client embed", parent=_callers_trace(), batch=sum(b.size for b in batches)):
            try:
                async with asyncio.timeout(deadline.left):
                    done = await _all([self._jobs.run(batch, deadline) for batch in batches])
            except TimeoutError:
                raise exceeded(self._timeout_s) from None
        found = joined(batches, [rows for rows, _ in done], self.bundle.hidden)
        return Embedded(found, tuple(note for _, note in done))

    async def models(self) -> list[dict[str, Any]]:
        """The models that the gateway offers: name, digest, lengths, hidden, sets."""
        return [dict(one) for one in await self._get_list("/v1/models", "data")]

    async def sets(self) -> list[dict[str, Any]]:
        """The sets of parties as the gateway sees them: set, ready, regions, jurisdictions, models."""
        return [dict(one) for one in await self._get_list("/v1/sets", "sets")]

    async def parties(self) -> dict[str, tuple[PartyRecord, PartyRecord, PartyRecord]]:
        """The three parties of each set, from the verified directory."""
        directory = await self._parties.current(Deadline(self._timeout_s))
        return {name: directory.parties(name) for name in directory.sets()}

    async def ready(self) -> bool:
        """Whether the gateway says that it can answer. Never raises."""
        reply = await self._gateway.get("/v2/health/ready", 5.0)
        return isinstance(reply, Answer)

    async def _get_list(self, path: str, key: str) -> list[Any]:
        deadline = Deadline(self._timeout_s)
        attempts = Attempts(self._retries, deadline)
        while True:
            deadline.check()
            reply = await self._gateway.get(path, min(deadline.left, self._attempt_s))
            if isinstance(reply, Answer):
                return _listed(reply.body, key)
            error = reply.error() if isinstance(reply, Problem) else reply.error
            if isinstance(error, ConfigError) or (isinstance(reply, Problem) and not reply.again):
                raise error
            await attempts.again(error, retry_after_s=getattr(reply, "retry_after_s", None))


async def _all(jobs: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """All results in order. The first error cancels the rest and is raised as it is."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _callers_trace() -> str | None:
    """The caller's own OpenTelemetry span, where there is one and no span of ours is around it."""
    if traces.current() or not trace.get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def _listed(body: bytes, key: str) -> list[Any]:
    try:
        said = json.loads(body)
        found = said[key]
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise MpcError("the gateway's answer is malformed", remedy="check the gateway's URL") from None
    return found


def _federations(trust: Trust) -> ssl.SSLContext:
    """Accepts certificates of the federation's authority alone. ConfigError where only its fingerprint is known."""
    if trust.ca is None:
        raise ConfigError(
            "the gateway's certificate is to be the federation's, and its authority's certificate is not at hand",
            remedy="give the authority's PEM file as trust, or another authority for HTTPS (verify)",
        )
    try:
        return ssl.create_default_context(cadata=trust.ca.decode())
    except (ssl.SSLError, UnicodeDecodeError):
        raise ConfigError(
            "the federation's authority is no PEM certificate", remedy="get its ca.pem"
        ) from None


def _secret(key: Secret | str | None) -> Secret | None:
    if not isinstance(key, str):
        return key
    if not key or not key.isascii() or any(c.isspace() or not c.isprintable() for c in key):
        raise InputError("the API key is malformed", remedy="give it as the gateway's operator sent it")
    return Secret(key.encode())
