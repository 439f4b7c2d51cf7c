"""What waits in a set's queue, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from mpc_ray.errors import Unavailable
from mpc_ray.serve.batching import Waiting
from mpc_ray.serve.interface import Three

RETRY_S = 2.0


@dataclass(frozen=True)
class Queued:
    """What the batcher knows of a job: its id, its model and length, its trace. The envelopes are at the parties."""

    job: str
    model: str
    length: int
    traceparent: str = ""


@dataclass(frozen=True)
class Done:
    """What a batch gave one of its jobs."""

    sealed: Three = field(repr=False)
    timing: Mapping[str, float]


Batch: TypeAlias = list[Waiting[Queued, Done]]


def unavailable(why: str) -> Unavailable:
    """An error that says: not now, and seal it anew, because parties refuse a job that they have seen."""
    return Unavailable(why, remedy="send the request again under a new authorisation", retry_after_s=RETRY_S)
