"""What a party checks before it touches a share, and the jobs that it holds until their run.

In this order: the authorisation's form, the client's enrolled key, its signature, this party's own policy, the model,
the envelope (HPKE, bound to the job and to this party), its content's digest, the shapes of its shares; last the
journal, so that a bad envelope does not burn a job's id. Everything is this operator's own: a gateway that lies about
any of it is refused here.
"""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpc_ray.channel.packed import Message, pack, unpack
from mpc_ray.errors import AuthorisationError, InputError, ModelError, MpcError, Overloaded
from mpc_ray.models.bert import Program
from mpc_ray.models.plan import EncoderPlan
from mpc_ray.parcels import check_parcel
from mpc_ray.trust.answer import KEY_BYTES, seal_answer
from mpc_ray.trust.authorisation import Authorisation, open_envelope, verify
from mpc_ray.trust.clients import ClientKeys
from mpc_ray.trust.hpke import PrivateKeys
from mpc_ray.trust.policy import Policy
from mpc_ray.trust.records import PartyRecord
from mpc_ray.trust.replay import ReplayJournal, time_ms
from mpc_ray.trust.secret import Secret

RUNS = 2  # a job runs once, and once more after its triple was lost


@dataclass(frozen=True)
class Standing:
    """What this party goes by: read anew when its folder changes."""

    federation: str
    records: tuple[PartyRecord, PartyRecord, PartyRecord]
    keys: PrivateKeys = field(repr=False)


@dataclass
class Held:
    """One job of one client, opened and checked. ``runs``: how many attempts it may have used up."""

    authorisation: Authorisation
    parcel: Message = field(repr=False)
    reply_key: Secret
    nbytes: int
    runs: int = 0
    running: bool = False

    @property
    def kind(self) -> tuple[str, int, str, bool]:
        """Jobs of one kind may run together."""
        a = self.authorisation
        return a.model, a.length, a.output, a.range_check

    def sealed(self, answer: Message, me: int) -> np.ndarray:
        """This client's answer, which it alone can open."""
        closed = seal_answer(pack(answer), self.reply_key, self.authorisation.digest(), me)
        return np.frombuffer(closed, np.uint8)


class Jobs:
    """The jobs that party ``me`` holds. Any thread may call any method.

    ``plan_of(name)`` is (digest of the public record, its plan); it raises ModelError for a model that is not here.
    """

    def __init__(
        self,
        me: int,
        standing: Callable[[], Standing],
        clients: ClientKeys,
        journal: ReplayJournal,
        policy: Policy,
        plan_of: Callable[[str], tuple[str, EncoderPlan]],
        *,
        held_bytes: int,
        envelope_bytes: int,
    ) -> None:
        self.me = me
        self._standing, self._clients, self._journal, self._policy = standing, clients, journal, policy
        self._plan_of = plan_of
        self._most, self._largest = held_bytes, envelope_bytes
        self._held: dict[str, Held] = {}
        self._nbytes = 0
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Memory that the held jobs take."""
        return self._nbytes

    def submit(self, header: Mapping[str, Any], envelope: object) -> str:
        """Check a job and hold it; its id. Raises the error that says why it is not taken; nothing is kept then."""
        authorisation = Authorisation.from_json(header.get("authorisation"))
        if not isinstance(envelope, np.ndarray) or envelope.dtype != np.uint8 or envelope.ndim != 1:
            raise _coded(
                InputError("a job without an envelope", remedy="use one version everywhere"), "envelope"
            )
        if envelope.nbytes > self._largest:
            raise _coded(
                InputError(
                    f"an envelope of {envelope.nbytes} bytes, at most {self._largest}",
                    remedy="send fewer texts",
                ),
                "too_large",
            )
        standing = self._standing()
        self.sweep()
        verify(authorisation, _signature(header.get("signature")), self._clients.find(authorisation.client))
        self._policy.check(authorisation, standing.records, time_ms(), federation=standing.federation)
        digest, plan = self._plan_of(authorisation.model)
        if authorisation.model_digest != digest:
            raise _coded(
                ModelError("the job is for another version of this model", remedy="get the present bundle"),
                "wrong_model",
            )
        self._room(envelope.nbytes)
        plaintext = open_envelope(authorisation, self.me, envelope.tobytes(), standing.keys)
        held = self._opened(authorisation, plaintext, plan)
        with self._lock:
            self._room(held.nbytes)
            self._journal.accept(
                authorisation.job, authorisation.client, authorisation.expires_ms, authorisation.issued_ms
            )
            self._held[authorisation.job] = held
            self._nbytes += held.nbytes
        return authorisation.job

    def take(self, ids: Sequence[str], attempt: int) -> list[Held]:
        """The jobs of one run, now running. Raises MpcErrors with a code; nothing is changed then."""
        with self._lock:
            if not ids or len(set(ids)) != len(ids):
                raise _coded(InputError("a run of no job, or of one twice", remedy="name each once"), "batch")
            missing = [one for one in ids if one not in self._held]
            if missing:
                raise _coded(
                    InputError(f"{len(missing)} of the run's jobs are not here", remedy="submit them again"),
                    "unknown_job",
                )
            held = [self._held[one] for one in ids]
            if any(job.running for job in held):
                raise _coded(
                    InputError("a job of this run is running", remedy="wait for it"), "already_running"
                )
            # Less than ``attempt``: the run before was lost before it came here; all three have one number for a run.
            if attempt >= RUNS or any(job.runs > attempt for job in held):
                raise _coded(
                    InputError(
                        f"attempt {attempt} is not the next of these jobs", remedy="submit them again"
                    ),
                    "attempt",
                )
            if len({job.kind for job in held}) > 1:
                raise _coded(InputError("jobs of several kinds in one run", remedy="run them apart"), "batch")
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
                    if done or job.runs >= RUNS:
                        self._let_go(one)

    def drop(self, ids: Sequence[str]) -> int:
        """Forget jobs that wait; how many."""
        with self._lock:
            gone = [one for one in ids if one in self._held and not self._held[one].running]
            for one in gone:
                self._let_go(one)
            return len(gone)

    def sweep(self) -> None:
        """Forget jobs whose authorisation has expired."""
        now = time_ms()
        with self._lock:
            late = [
                k for k, v in self._held.items() if not v.running and v.authorisation.expires_ms + 5000 < now
            ]
            for one in late:
                self._let_go(one)

    def _let_go(self, one: str) -> None:
        self._nbytes -= self._held.pop(one).nbytes

    def _room(self, nbytes: int) -> None:
        if self._nbytes + nbytes > self._most:
            raise _coded(
                Overloaded("this party holds as many jobs as it has memory for", remedy="send them later"),
                "memory",
            )

    def _opened(self, a: Authorisation, plaintext: bytes, plan: EncoderPlan) -> Held:
        """The envelope's content, if it is what the authorisation says."""
        parcel = unpack(plaintext, self._largest)
        header = parcel.header
        key = header.get("reply_key")
        if header.get("v") != 1 or not isinstance(key, str) or len(key) != 2 * KEY_BYTES:
            raise _coded(
                InputError("an envelope of another version", remedy="use one version everywhere"), "inputs"
            )
        try:
            reply_key = Secret(bytes.fromhex(key))
            program = Program(len(plan.layers), plan.embedding_norm is not None, a.output)
            size = check_parcel(self.me, plan, program, parcel, whole=True)
        except (ValueError, KeyError, TypeError):
            raise _coded(
                InputError("an envelope that is no parcel", remedy="use one version everywhere"), "inputs"
            ) from None
        except InputError as error:
            raise _coded(error, "wrong_shape") from None
        if size != (a.batch, a.length):
            raise _coded(
                InputError(
                    "the shares are not of the shape that was authorised", remedy="sign after sharing"
                ),
                "wrong_shape",
            )
        kept = Message({k: header[k] for k in ("shares", "seeds")}, parcel.tensors)
        return Held(a, kept, reply_key, len(plaintext))


def _coded(error: MpcError, code: str) -> MpcError:
    """An error with a word for machines, which ``failure`` passes on."""
    error.code = code  # type: ignore[attr-defined]
    return error


def _signature(text: object) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        raise AuthorisationError(
            "the signature is no base64", remedy="make it with mpc_ray.client", code="malformed"
        ) from None
