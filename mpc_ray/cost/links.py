"""A schedule over links: when each frame leaves and arrives, and so when each party is done.

Not rounds times a round trip: a message waits for what its sender had to compute and receive before it, half a round
trip passes on its way, a frame enters its link after the frame before it in the same direction, and what goes to two
peers, or both ways, goes at the same time. Parties that compute at the same time share the machine's cores, if they
are on one machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mpc_ray.cost.schedule import Schedule, Step
from mpc_ray.errors import InputError


@dataclass(frozen=True)
class Link:
    """Between every two parties, each way: ``rtt_s`` there and back, ``bits_per_s`` (None: no limit)."""

    rtt_s: float = 0.0
    bits_per_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.rtt_s < 60 or (self.bits_per_s is not None and not self.bits_per_s > 0):
            raise InputError(
                f"a link of {self.rtt_s * 1e3:g} ms and {self.bits_per_s} bit/s",
                remedy="0 to 60,000 ms, and more than 0 Mbit/s",
            )


def link_of(rtt_ms: float, mbit: float | None) -> Link:
    """From the units that people use. Raises InputError."""
    return Link(rtt_ms / 1e3, None if mbit is None else mbit * 1e6)


@dataclass(frozen=True)
class Prediction:
    """``seconds`` until the slowest party is done; ``by_function`` of that party's, its waiting included."""

    seconds: float
    by_function: dict[str, float]
    rounds: int
    bytes_sent: tuple[int, ...]


@dataclass
class _Party:
    """Where a party stands: computing (``left`` seconds of work, then ``after``), or waiting for frames."""

    steps: tuple[Step, ...]
    index: int = 0
    phase: int = 0  # 0 compute, 1 meanwhile, 2 waiting, 3 transport, 4 done
    left: float = 0.0
    since: float = 0.0  # when this step began
    end: float = 0.0
    by_function: dict[str, float] = field(default_factory=dict)


def predict(schedule: Schedule, link: Link, cores: int | None = None) -> Prediction:
    """Seconds of a pass: from having the shares of the input to the last party's having its summand of the output.

    ``cores``: of the one machine that all three parties share; None gives each party what it needs. The client's way is
    not in it, as it is not in a run's ``seconds``.
    """
    run = _Run(schedule, link, math.inf if cores is None else float(cores))
    last = run.to_the_end()
    slowest = max(run.parties, key=lambda party: party.end)
    return Prediction(last, dict(slowest.by_function), schedule.rounds, schedule.bytes_sent)


class _Run:
    def __init__(self, schedule: Schedule, link: Link, cores: float) -> None:
        self.link, self.cores, self.now = link, cores, 0.0
        self.parties = [_Party(steps) for steps in schedule.steps]
        self._free: dict[tuple[int, int], float] = {}
        self._arrival: dict[tuple[int, int, int], float] = {}
        self._last = 0.0
        for me, party in enumerate(self.parties):
            party.left = party.steps[0].compute
            self._settle(me)

    def to_the_end(self) -> float:
        """Event by event: the end of some work, or an arrival that somebody waits for."""
        while any(party.phase < 4 for party in self.parties):
            working = [p for p in self.parties if p.phase in (0, 1, 3)]
            rate = min(1.0, self.cores / len(working)) if working else 1.0
            due = [p.left / rate for p in working]
            due += [
                at - self.now
                for me, p in enumerate(self.parties)
                if (at := self._ready_at(me, p)) is not None
            ]
            if not due:
                raise InputError("a party waits for a frame that nobody sends", remedy="measure it again")
            span = max(0.0, min(due))
            self.now += span
            for party in working:
                party.left -= span * rate
            for me in range(3):
                self._settle(me)
        return max(self._last, *(party.end for party in self.parties))

    def _ready_at(self, me: int, party: _Party) -> float | None:
        """When a waiting party has all it waits for; None while that is not known, or if it does not wait."""
        if party.phase != 2:
            return None
        times = [
            self._arrival.get(((me + 1 + i) % 3, me, party.index), math.nan)
            for i, awaited in enumerate(party.steps[party.index].awaits)
            if awaited
        ]
        return None if any(map(math.isnan, times)) else max([self.now, *times])

    def _settle(self, me: int) -> None:
        """Move a party on through everything that is over by now."""
        party = self.parties[me]
        while party.phase < 4:
            if party.phase == 2:
                at = self._ready_at(me, party)
                if at is None or at > self.now + 1e-12:
                    return
            elif party.left > 1e-12:
                return
            self._next(me, party)

    def _next(self, me: int, party: _Party) -> None:
        step = party.steps[party.index]
        if party.phase == 0:
            for i, count in enumerate(step.sent):
                if count:
                    self._send(me, (me + 1 + i) % 3, party.index, count)
        party.phase += 1
        party.left = {1: step.meanwhile, 3: step.transport}.get(party.phase, 0.0)
        if party.phase < 4:
            return
        for name in step.functions or ("rest",):
            share = (self.now - party.since) / max(1, len(step.functions))
            party.by_function[name] = party.by_function.get(name, 0.0) + share
        party.since = party.end = self.now
        if party.index + 1 < len(party.steps):
            party.index += 1
            party.phase, party.left = 0, party.steps[party.index].compute

    def _send(self, me: int, peer: int, index: int, count: int) -> None:
        bits = self.link.bits_per_s
        free = max(self.now, self._free.get((me, peer), 0.0)) + (8 * count / bits if bits else 0.0)
        self._free[me, peer] = free
        self._arrival[me, peer, index] = free + self.link.rtt_s / 2
        self._last = max(self._last, free + self.link.rtt_s / 2)
