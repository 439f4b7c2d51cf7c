"""What the plan goes by: round trips and bandwidth between parties, batches as they ran, and how far off it was."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from mpc_ray.errors import InputError
from mpc_ray.planner.jobs import Calibration, Group, Link, Measurement, Triple, fit, predicted_s
from mpc_ray.planner.jobs.cost import error_of

KEPT = 200  # batches that the fit goes by: the newest
LEAST = 20  # before that many have run, the model is taken as it is
REFIT = 10
NEWEST = 0.3  # weight of a new probe against all before it
RTT_S, BANDWIDTH = 1e-4, 1e9  # between workers of whom nothing is said: one machine


@dataclass(frozen=True)
class Probe:
    """One measurement between the workers of a triple: the slowest of the three pairs. s, and bytes a second."""

    rtt_s: float
    bandwidth: float


class Measured:
    """Probes by triple, and batches that ran, for one dispatcher. Not for several threads."""

    def __init__(self) -> None:
        self.calibration = Calibration()
        self.error = 0.0  # |predicted - took| / took of the batches that ran, the newest counting most
        self._probes: dict[str, Probe] = {}
        self._ran: deque[Measurement] = deque(maxlen=KEPT)
        self._since_fit = 0

    def probed(self, triple: str, probe: Probe) -> None:
        """Take up a probe; it counts by a third, as one late packet must not move jobs. InputError for nonsense."""
        for value, what in ((probe.rtt_s, "round trip"), (probe.bandwidth, "bandwidth")):
            if not math.isfinite(value) or value <= 0:
                raise InputError(f"a {what} of {value} was measured", remedy="measure again")
        old = self._probes.get(triple)
        if old is not None:
            probe = Probe(
                (1 - NEWEST) * old.rtt_s + NEWEST * probe.rtt_s,
                (1 - NEWEST) * old.bandwidth + NEWEST * probe.bandwidth,
            )
        self._probes[triple] = probe

    def forget(self, triple: str) -> None:
        """A triple has gone."""
        self._probes.pop(triple, None)

    def applied(self, triple: Triple) -> Triple:
        """The triple with what was measured between its workers."""
        probe = self._probes.get(triple.name)
        return triple if probe is None else replace(triple, rtt_s=probe.rtt_s, bandwidth=probe.bandwidth)

    def ran(self, batch: Measurement) -> None:
        """Take up a batch that ran. ``error`` follows how far off it was predicted; every tenth the model is fitted."""
        if not math.isfinite(batch.took_s) or batch.took_s <= 0:
            raise InputError(f"a batch of {batch.took_s} seconds was measured", remedy="measure again")
        off, _ = error_of(self.calibration, (batch,))
        self.error = off if not self._ran else (1 - NEWEST) * self.error + NEWEST * off
        self._ran.append(batch)
        self._since_fit += 1
        if len(self._ran) >= LEAST and self._since_fit >= REFIT:
            self._since_fit = 0
            self.calibration = fit(tuple(self._ran)).calibration

    def predicted(self, triple: Triple, links: Iterable[Link], group: Group, n: int) -> float:
        """Seconds of a batch of n on the triple, by the model as it is calibrated now."""
        rtt, rate, bandwidth = pace(self.applied(triple), links)
        return min(
            predicted_s(group, v, n, rtt_s=rtt, rate=rate, bandwidth=bandwidth, c=self.calibration)
            for v in group.variants
        )

    def parts(
        self, triple: Triple, links: Iterable[Link], group: Group, n: int
    ) -> tuple[float, float, float]:
        """What that time is made of, before calibration: rounds, work, bytes (s)."""
        rtt, rate, bandwidth = pace(self.applied(triple), links)
        variant = min(group.variants, key=lambda v: v.rounds * rtt + n * v.nbytes / bandwidth)
        return variant.rounds * rtt, n * group.work_s / rate, n * variant.nbytes / bandwidth


def pace(triple: Triple, links: Iterable[Link]) -> tuple[float, float, float]:
    """(round trip, slowest rate, slowest bandwidth) of a triple: as measured, else by its links."""
    regions = [worker.region for worker in triple.workers]
    between = {frozenset((regions[i], regions[j])) for i, j in ((0, 1), (0, 2), (1, 2))}
    joins = [link for link in links if frozenset(link.between) in between]
    rtt, bandwidth = triple.rtt_s, triple.bandwidth
    return (
        max((link.rtt_s for link in joins), default=RTT_S) if rtt is None else rtt,
        min(worker.rate for worker in triple.workers),
        min((link.bandwidth for link in joins), default=BANDWIDTH) if bandwidth is None else bandwidth,
    )
