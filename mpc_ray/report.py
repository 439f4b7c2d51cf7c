"""What a run cost: time, bytes and rounds, by function and by layer, from the parties' own counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mpc_ray.channel import Message


@dataclass(frozen=True)
class JobReport:
    """One job. ``bytes_sent`` holds three numbers, all phases, frame headers included, before TLS.

    ``seconds`` is the slowest party's time from shares to answer. ``split`` maps (layer, function) to bytes of all
    three; ``compute`` maps a function to the seconds that the three together computed; ``waiting`` is a party's mean
    time in exchanges.
    """

    batch: int
    length: int
    seconds: float
    rounds: int
    bytes_sent: tuple[int, int, int]
    bytes_sent_offline: tuple[int, int, int]
    split: dict[tuple[str, str], int]
    compute: dict[str, float]
    waiting: float


def job_report(answers: Sequence[Message], batch: int, length: int) -> JobReport:
    """From the three answers of one job."""
    headers: list[dict[str, Any]] = [a.header for a in answers]
    split: dict[tuple[str, str], int] = {}
    compute: dict[str, float] = {}
    for h in headers:
        for layer, label, count in h["split"]:
            key = (str(layer), str(label).split("/")[0])
            split[key] = split.get(key, 0) + int(count)
        for function, seconds in h["compute"].items():
            compute[function] = compute.get(function, 0.0) + float(seconds)

    def three(name: str) -> tuple[int, int, int]:
        a, b, c = (int(h[name]) for h in headers)
        return a, b, c

    return JobReport(
        batch=batch,
        length=length,
        seconds=max(float(h["seconds"]) for h in headers),
        rounds=max(int(h["rounds"]) for h in headers),
        bytes_sent=three("bytes_sent"),
        bytes_sent_offline=three("bytes_sent_offline"),
        split=split,
        compute=compute,
        waiting=sum(float(h["waiting"]) for h in headers) / 3,
    )


@dataclass(frozen=True)
class Report:
    """All jobs of one call."""

    jobs: tuple[JobReport, ...]

    @property
    def seconds(self) -> float:
        return sum(j.seconds for j in self.jobs)

    @property
    def rounds(self) -> int:
        return sum(j.rounds for j in self.jobs)

    @property
    def bytes_sent(self) -> tuple[int, int, int]:
        a, b, c = (sum(j.bytes_sent[i] for j in self.jobs) for i in range(3))
        return a, b, c

    def bytes_by_function(self) -> dict[str, int]:
        """Bytes of all three parties, largest first."""
        total: dict[str, int] = {}
        for job in self.jobs:
            for (_, function), count in job.split.items():
                total[function] = total.get(function, 0) + count
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    def seconds_by_function(self) -> dict[str, float]:
        """Computing seconds of all three parties together."""
        total: dict[str, float] = {}
        for job in self.jobs:
            for function, seconds in job.compute.items():
                total[function] = total.get(function, 0.0) + seconds
        return total

    def bytes_by_layer(self) -> dict[str, dict[str, int]]:
        """layer → function → bytes of all three parties."""
        total: dict[str, dict[str, int]] = {}
        for job in self.jobs:
            for (layer, function), count in job.split.items():
                if layer:
                    row = total.setdefault(layer, {})
                    row[function] = row.get(function, 0) + count
        return total
