"""What the leader of triples has seen of its runs: for the plan the newest of them, and which jobs run now; and a
forecast of each run, so that every gateway exports how far off the cost model is.

Names, kinds and sizes of jobs alone: no text, no share, no key.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mpc_ray.dispatch.kinds import BANDWIDTH, RTT_S, WORK_S_A_TOKEN
from mpc_ray.dispatch.measured import Measured
from mpc_ray.planner.jobs import Measurement, predicted_s
from mpc_ray.planner.jobs.workload import Group, Variant

NEWEST = 32  # runs that are told: more than end between two reports
KINDS = 256  # of which the cost is remembered
_followed: dict[str, Seen] = {}


@dataclass(frozen=True)
class Run:
    """A computation of three parties. ``number`` counts up in one leader; ``tokens`` is texts × length of all jobs;
    ``nbytes`` those of the party that sent most; ``seconds`` as the leader saw it."""

    number: int
    model: str
    tokens: int
    jobs: int
    rounds: int
    nbytes: int
    seconds: float


class Seen:
    """The runs of one leader. For one event loop or thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._newest: deque[Run] = deque(maxlen=NEWEST)
        self._count = 0
        self._began: dict[str, float] = {}
        self._kinds: OrderedDict[tuple[str, int], Run] = OrderedDict()
        self._measured = Measured()

    def begins(self, jobs: Iterable[str]) -> None:
        """These run from now on."""
        self._began |= dict.fromkeys(jobs, self._clock())

    def ends(self, jobs: Iterable[str]) -> None:
        """These do not any more, however it ended."""
        for job in jobs:
            self._began.pop(job, None)

    def add(
        self, *, model: str, length: int, rows: int, jobs: int, rounds: int, nbytes: int, seconds: float
    ) -> None:
        """A run of ``rows`` texts, padded to ``length``, has ended well."""
        if seconds <= 0:
            return
        self._count += 1
        run = Run(self._count, model, rows * length, jobs, rounds, nbytes, seconds)
        self._newest.append(run)
        self._kinds[model, length] = run
        self._kinds.move_to_end((model, length))
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        parts = (rounds * RTT_S, run.tokens * WORK_S_A_TOKEN, nbytes / BANDWIDTH)
        self._measured.ran(Measurement(*parts, seconds))

    def forecast(self, model: str, rows: int, length: int) -> float | None:
        """Seconds of a run by the cost model, fitted to the runs so far; None where none of the kind was seen."""
        last = self._kinds.get((model, length))
        if last is None:
            return None
        text = Variant("measured", last.rounds, last.nbytes * length / last.tokens)
        group = Group(model, model, WORK_S_A_TOKEN * length, (text,))
        c = self._measured.calibration
        return predicted_s(group, text, rows, rtt_s=RTT_S, rate=1.0, bandwidth=BANDWIDTH, c=c)

    def told(self) -> dict[str, Any]:
        """What the plan is told: ``running`` jobs, ``for_s`` seconds, and the newest ``runs``."""
        now = self._clock()
        longest = max((now - began for began in self._began.values()), default=0.0)
        return {"running": list(self._began), "for_s": longest, "runs": list(self._newest)}


def follow(set_name: str, seen: Seen) -> None:
    """From now on the computations of this set are foretold from ``seen``: the newest leader of a set in a process."""
    _followed[set_name] = seen


def forecast(set_name: str, model: str, rows: int, length: int) -> float | None:
    """Seconds of a computation of that set, as ``telemetry.metrics.predict_with`` asks; None: not known."""
    seen = _followed.get(set_name)
    return None if seen is None else seen.forecast(model, rows, length)


def runs_of(told: Mapping[str, Any], after: int) -> list[Run]:
    """The runs that a leader tells of and that came after number ``after``; of a leader that began anew, all."""
    runs = [run for run in told.get("runs", ()) if isinstance(run, Run)]
    if runs and runs[-1].number < after:
        return runs
    return [run for run in runs if run.number > after]
