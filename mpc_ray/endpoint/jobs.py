"""What a party checks before it touches a share, and the jobs that it holds until their run.

In this order: the authorisation's form, the client's enrolled key, its signature, this party's own policy, the model,
the envelope (HPKE, bound to the job and to this party), its content's digest, the shapes of its shares; last the
journal, so that a bad envelope does not burn a job's id. Everything is this operator's own: a gateway that lies about
any of it is refused here.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc_ray.channel.packed import Message, pack, unpack
from mpc_ray.config import PUBLIC_WEIGHTS, RUNS_ONCE
from mpc_ray.endpoint.models import Known
from mpc_ray.endpoint.said import coded
from mpc_ray.endpoint.standing import Standing
from mpc_ray.errors import AuthorisationError, BadFrame, InputError, ModelError, Overloaded, Refused
from mpc_ray.models.bert import Program
from mpc_ray.models.plan import EncoderPlan
from mpc_ray.parcels import check_parcel
from mpc_ray.trust.answer import KEY_BYTES, seal_answer
from mpc_ray.trust.authorisation import Authorisation, open_envelope, verify
from mpc_ray.trust.clients import ClientKeys
from mpc_ray.trust.policy import Policy
from mpc_ray.trust.replay import ReplayJournal, time_ms
from mpc_ray.trust.secret import Secret

RUNS = 2  # a job runs once, and once more after its triple was lost, unless its protocol is one of RUNS_ONCE
OVERHEAD_BYTES = 16 << 10  # of a job besides its envelope: an authorisation, objects
VERSION = 1  # of what an envelope holds


@dataclass
class Held:
    """One job of one client, opened and checked. ``runs``: attempts below are over; ``gateway``: who brought it."""

    authorisation: Authorisation
    parcel: Message = field(repr=False)
    reply_key: Secret
    nbytes: int
    gateway: str
    runs: int = 0
    running: bool = False

    @property
    def kind(self) -> tuple[str, str, int, str, bool]:
        """Jobs of one kind may run together."""
        a = self.authorisation
        return a.model, a.model_digest, a.length, a.output, a.range_check

    def sealed(self, answer: Message, me: int) -> np.ndarray:
        """This client's answer, which it alone can open."""
        closed = seal_answer(pack(answer), self.reply_key, self.authorisation.digest(), me)
        return np.frombuffer(closed, np.uint8)


@dataclass(frozen=True)
class Bounds:
    """Bytes of all held jobs together, and of the largest envelope."""

    held: int
    envelope: int


class Jobs:
    """The jobs that party ``me`` holds. Any thread may call any method.

    ``model(name)`` raises ModelError for a model that is not here. A gateway sees the jobs that it brought, no others.
    """

    def __init__(
        self,
        me: int,
        standing: Callable[[], Standing],
        clients: ClientKeys,
        journal: ReplayJournal,
        policy: Policy,
        protocol: str,
        model: Callable[[str], Known],
        bounds: Bounds,
    ) -> None:
        self.me = me
        self._standing, self._clients, self._journal = standing, clients, journal
        self._policy, self._protocol, self._model, self._bounds = policy, protocol, model, bounds
        self._runs = 1 if protocol in RUNS_ONCE else RUNS
        self._held: dict[str, Held] = {}
        self._nbytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Memory that the held jobs take, and those that are being opened."""
        return self._nbytes

    def __len__(self) -> int:
        return len(self._held)

    def submit(self, header: Mapping[str, Any], envelope: object, gateway: str) -> str:
        """Check a job and hold it; its id. Raises the error that says why it is not taken; nothing is kept then."""
        authorisation = Authorisation.from_json(header.get("authorisation"))
        if not isinstance(envelope, np.ndarray) or envelope.dtype != np.uint8 or envelope.ndim != 1:
            raise coded(InputError("a job without an envelope", remedy=_VERSIONS), "inputs")
        if envelope.nbytes > self._bounds.envelope:
            raise coded(
                InputError(
                    f"an envelope of {envelope.nbytes} bytes, at most {self._bounds.envelope} here",
                    remedy="send fewer texts in one job",
                ),
                "too_large",
            )
        self.sweep()
        standing = self._standing()
        verify(authorisation, _signature(header.get("signature")), self._clients.find(authorisation.client))
        self._policy.check(authorisation, standing.records, time_ms(), federation=standing.federation)
        if authorisation.protocol != self._protocol:
            raise Refused(
                f"the job is refused: this party computes under {self._protocol}",
                remedy="authorise that protocol",
                code="protocol",
            )
        known = self._model(authorisation.model)
        if authorisation.model_digest != known.info.digest:
            raise coded(
                ModelError("the job is for another version of this model", remedy="get the present bundle"),
                "wrong_model",
            )
        if known.info.weights == "public" and self._protocol not in PUBLIC_WEIGHTS:
            raise coded(
                ModelError(
                    f"{self._protocol} keeps weights secret, and this model is stored with public ones",
                    remedy="ask the model's owner to share it with secret weights",
                ),
                "wrong_model",
            )
        with self._reserved(envelope.nbytes + OVERHEAD_BYTES) as keep:
            plaintext = open_envelope(authorisation, self.me, envelope.tobytes(), standing.keys)
            parcel, reply_key = self._opened(authorisation, plaintext, known.plan)
            self._journal.accept(
                authorisation.job, authorisation.client, authorisation.expires_ms, authorisation.issued_ms
            )
            nbytes = envelope.nbytes + OVERHEAD_BYTES
            keep(Held(authorisation, parcel, reply_key, nbytes, gateway))
        return authorisation.job

    def take(
        self, ids: Sequence[str], attempt: int, gateway: str, fits: Callable[[Held], None] = lambda job: None
    ) -> list[Held]:
        """The jobs of one run, now running. ``fits`` is asked for each. Raises MpcErrors; nothing is changed then."""
        self.sweep()
        with self._lock:
            if not ids or len(set(ids)) != len(ids):
                raise coded(InputError("a run of no job, or of one twice", remedy="name each once"), "batch")
            held = [self._held[one] for one in ids if self._is_of(one, gateway)]
            if len(held) < len(ids):
                raise coded(
                    InputError(
                        f"{len(ids) - len(held)} of the run's jobs are not held here",
                        remedy="submit them again",
                    ),
                    "unknown_job",
                )
            if any(job.running for job in held):
                raise coded(
                    InputError("a job of this run is running", remedy="wait for it"), "already_running"
                )
            if (
                not max(job.runs for job in held) <= attempt < self._runs
            ):  # a party that a run never reached joins the next
                raise coded(
                    InputError(
                        f"attempt {attempt} of a job that ran so often already", remedy="submit them again"
                    ),
                    "attempt",
                )
            if len({job.kind for job in held}) > 1:
                raise coded(InputError("jobs of several kinds in one run", remedy="run them apart"), "batch")
            for job in held:
                fits(job)
            for job in held:
                job.running = True
                job.runs = attempt + 1
            return held

    def finished(self, ids: Sequence[str], *, done: bool) -> None:
        """A run is over: jobs that were answered, or may not run again, are let go of."""
        with self._lock:
            for one in ids:
                job = self._held.get(one)
                if job is not None:
                    job.running = False
                    if done or job.runs >= self._runs:
                        self._let_go(one)

    def drop(self, ids: Sequence[str], gateway: str) -> int:
        """Forget jobs that wait; how many."""
        with self._lock:
            gone = [one for one in set(ids) if self._is_of(one, gateway) and not self._held[one].running]
            for one in gone:
                self._let_go(one)
            return len(gone)

    def sweep(self) -> None:
        """Forget jobs whose authorisation has expired."""
        until = time_ms() - round(self._policy.clock_skew_s * 1000)
        with self._lock:
            late = [k for k, v in self._held.items() if not v.running and v.authorisation.expires_ms < until]
            for one in late:
                self._let_go(one)

    def _is_of(self, one: str, gateway: str) -> bool:
        job = self._held.get(one)
        return job is not None and job.gateway == gateway

    def _let_go(self, one: str) -> None:
        self._nbytes -= self._held.pop(one).nbytes

    @contextlib.contextmanager
    def _reserved(self, nbytes: int) -> Iterator[Callable[[Held], None]]:
        """Room for one job while it is opened; ``keep`` makes it a held one. ``Overloaded`` if there is none."""
        with self._lock:
            if self._nbytes + nbytes > self._bounds.held:
                raise coded(
                    Overloaded("this party holds as many jobs as it has memory for", remedy="send it later"),
                    "memory",
                )
            self._nbytes += nbytes
        kept = False

        def keep(job: Held) -> None:
            nonlocal kept
            with self._lock:
                self._held[job.authorisation.job] = job
                kept = True

        try:
            yield keep
        finally:
            if not kept:
                with self._lock:
                    self._nbytes -= nbytes

    def _opened(self, a: Authorisation, plaintext: bytes, plan: EncoderPlan) -> tuple[Message, Secret]:
        """The envelope's content, if it is what the authorisation says."""
        try:
            parcel = unpack(plaintext, self._bounds.envelope)
            header = parcel.header
            key = header.get("reply_key")
            if header.get("v") != VERSION or not isinstance(key, str) or len(key) != 2 * KEY_BYTES:
                raise coded(InputError("an envelope of another version", remedy=_VERSIONS), "inputs")
            reply_key = Secret(bytes.fromhex(key))
            program = Program(len(plan.layers), plan.embedding_norm is not None, a.output)
        except (BadFrame, ValueError):
            raise coded(InputError("an envelope that holds no parcel", remedy=_VERSIONS), "inputs") from None
        try:
            size = check_parcel(self.me, plan, program, parcel, whole=True)
        except InputError as error:
            raise coded(error, "wrong_shape") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise coded(InputError("an envelope that holds no parcel", remedy=_VERSIONS), "inputs") from None
        if size != (a.batch, a.length):
            raise coded(
                InputError(
                    "the shares are not of the shape that was authorised", remedy="sign after sharing"
                ),
                "wrong_shape",
            )
        return Message({k: header[k] for k in ("shares", "seeds")}, parcel.tensors), reply_key


_VERSIONS = "use one version everywhere"


def _signature(text: object) -> bytes:
    try:
        return base64.b64decode(text if isinstance(text, str) else b"!", validate=True)
    except (binascii.Error, ValueError):
        raise AuthorisationError(
            "the signature is no base64", remedy="make it with mpc_ray.client", code="malformed"
        ) from None
