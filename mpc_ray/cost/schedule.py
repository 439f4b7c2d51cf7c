"""A pass of an encoder as its rounds: what each party computed, sent and waited for in each of them.

Bytes and rounds are exact: they are what a run's channel counted. Seconds are a processor's, not a clock's, so that
other work on the machine does not count. A schedule is of one shape, length and batch, and of one protocol and variant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mpc_ray.errors import ConfigError


@dataclass(frozen=True)
class Step:
    """One round of one party. ``sent`` and ``awaits``: of the next party and of the one after it.

    ``compute``: seconds up to sending; ``meanwhile``: work done while peers compute; ``transport``: what sending,
    encryption and receiving took of the processor. ``sent``: bytes of the frame, header included, 0 for none.
    ``functions``: those that sent.
    """

    compute: float
    meanwhile: float
    transport: float
    sent: tuple[int, int]
    awaits: tuple[bool, bool]
    functions: tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """``steps``: of each party, one for each round and a last one without messages. ``cores``: those it was run on."""

    protocol: str
    variant: str
    shape: str
    seq: int
    batch: int
    weights: str
    cores: int
    rounds: int
    steps: tuple[tuple[Step, ...], ...]
    made: Mapping[str, Any]  # the machine, for people

    @property
    def bytes_sent(self) -> tuple[int, ...]:
        """Of each party, frame headers included, before TLS."""
        return tuple(sum(sum(step.sent) for step in party) for party in self.steps)

    def to_json(self) -> dict[str, Any]:
        """The inverse of ``from_json``."""
        found = asdict(self)
        found["steps"] = [[step_json(step) for step in party] for party in self.steps]
        return found

    @staticmethod
    def from_json(found: Mapping[str, Any]) -> Schedule:
        """Raises ConfigError for what this release did not write."""
        try:
            steps = tuple(tuple(step_of(step) for step in party) for party in found["steps"])
            if len(steps) != 3 or len({len(party) for party in steps}) != 1:
                raise ValueError("three parties have as many rounds")
            return Schedule(**{**found, "steps": steps})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"a schedule is not one of this release: {error!r}",
                remedy="measure it again: mpc-ray bench predict --refresh",
            ) from None


def step_json(step: Step) -> list[Any]:
    """A step as a party sends it to its client, and as files hold it."""
    times = [round(seconds, 7) for seconds in (step.compute, step.meanwhile, step.transport)]
    return [*times, list(step.sent), list(step.awaits), list(step.functions)]


def step_of(found: Sequence[Any]) -> Step:
    """The inverse of ``step_json``; ValueError or TypeError for anything else."""
    compute, meanwhile, transport, (first, second), (a, b), functions = found
    return Step(
        float(compute),
        float(meanwhile),
        float(transport),
        (int(first), int(second)),
        (bool(a), bool(b)),
        tuple(str(name) for name in functions),
    )
