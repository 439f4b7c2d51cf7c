"""What the gateway asks of the triples of one set, whoever leads them.

The application knows only ``Triples``. Its bodies: ``serve.triple.TripleLeader`` in this process,
``serve.handle.HandleTriples`` behind Ray Serve, ``serve.null.NullTriple``, which computes nothing.
Everything that crosses it is sealed to somebody else or public: it may be pickled by Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

Three: TypeAlias = tuple[bytes, bytes, bytes]


@dataclass(frozen=True)
class Job:
    """One request on its way to a triple.

    ``authorisation`` is the JSON object the client signed (``mpc_ray.trust.authorisation``), ``signature`` its
    Ed25519 signature, ``envelopes[i]`` sealed to party i. ``timeout_s``: seconds the caller still waits, counted
    from the call (clocks differ between hosts, so no instant is given). ``traceparent``: W3C trace context or "".
    """

    authorisation: Mapping[str, Any]
    signature: bytes = field(repr=False)
    envelopes: Three = field(repr=False)
    timeout_s: float = 60.0
    traceparent: str = ""

    @property
    def id(self) -> str:
        """The job's id, 32 hexadecimal digits, or "" if the authorisation has none."""
        return str(self.authorisation.get("job", ""))


@dataclass(frozen=True)
class Answers:
    """``sealed[i]``: party i's answer, readable by the client alone. ``set``: the set that computed it.

    ``timing``: seconds (``queue_s``, ``run_s`` …) and counts (``rounds``, ``batch`` …) by name, for people.
    """

    job: str
    sealed: Three = field(repr=False)
    set: str
    timing: Mapping[str, float] = field(default_factory=dict)


class Triples(Protocol):
    """All triples of one set. Methods may be called from many tasks of one event loop at once."""

    async def infer(self, job: Job) -> Answers:
        """Compute one job.

        Cancelling the task abandons it. Raises MpcErrors only: AuthorisationError and Refused (a party refused it,
        never retried), Overloaded (the queue is full), Unavailable (no triple now), DeadlineExceeded (after
        ``job.timeout_s``), ChannelError (a party was lost, and the one more attempt failed too).
        """
        ...

    async def status(self) -> Mapping[str, Any]:
        """How the set is, without asking anybody far away (cost: microseconds, or one call of a handle).

        ``{"set", "ready": bool, "queue": int, "triples": int, "models": [{"name", "digest", "lengths": [int],
        "hidden": int}], "parties": [{"party": 0, "ready", "version", "certificate_not_after"}]}``
        """
        ...
