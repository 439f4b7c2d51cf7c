"""What a run cost: time, bytes and rounds, by function and by layer, from the parties' own counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mpc_ray.channel import Message

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class JobReport:
    """One job. ``bytes_sent`` holds three numbers, all phases, frame headers included, before TLS.

    ``seconds`` is the slowest party's time from shares to answer. ``split`` maps (layer, function) to bytes of all
    three; ``compute`` to the seconds that the three together computed, ``rounds_split`` to the rounds in which a party
    sent for it; ``waiting`` is a party's mean time in exchanges.
    """

    batch: int
    length: int
    seconds: float
    rounds: int
    bytes_sent: tuple[int, int, int]
    bytes_sent_offline: tuple[int, int, int]
    split: dict[tuple[str, str], int]
    compute: dict[tuple[str, str], float]
    rounds_split: dict[tuple[str, str], int]
    waiting: float


def job_report(answers: Sequence[Message], batch: int, length: int) -> JobReport:
    """From the three answers of one job."""
    headers: list[dict[str, Any]] = [a.header for a in answers]
    split: dict[tuple[str, str], int] = {}
    compute: dict[tuple[str, str], float] = {}
    rounds: dict[tuple[str, str], int] = {}
    for h in headers:
        for layer, label, count in h["split"]:
            key = (str(layer), str(label).split("/")[0])
            split[key] = split.get(key, 0) + int(count)
        for layer, function, seconds in h["compute"]:
            key = (str(layer), str(function))
            compute[key] = compute.get(key, 0.0) + float(seconds)
        for layer, function, count in h["rounds_split"]:
            key = (str(layer), str(function))
            rounds[key] = max(rounds.get(key, 0), int(count))

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
        rounds_split=rounds,
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
        return dict(sorted(_by_function(j.split for j in self.jobs).items(), key=lambda item: -item[1]))

    def seconds_by_function(self) -> dict[str, float]:
        """Computing seconds of all three parties together."""
        return _by_function(j.compute for j in self.jobs)

    def rounds_by_function(self) -> dict[str, int]:
        """Rounds in which a party sent for the function; those that two functions share count for both."""
        return _by_function(j.rounds_split for j in self.jobs)

    def bytes_by_layer(self) -> dict[str, dict[str, int]]:
        """layer → function → bytes of all three parties."""
        return _by_layer(j.split for j in self.jobs)

    def seconds_by_layer(self) -> dict[str, dict[str, float]]:
        """layer → function → computing seconds of all three parties together."""
        return _by_layer(j.compute for j in self.jobs)

    def rounds_by_layer(self) -> dict[str, dict[str, int]]:
        """layer → function → rounds, as ``rounds_by_function``."""
        return _by_layer(j.rounds_split for j in self.jobs)


def _by_function(jobs: Iterable[Mapping[tuple[str, str], Number]]) -> dict[str, Number]:
    total: dict[str, Number] = {}
    for job in jobs:
        for (_, function), value in job.items():
            total[function] = total[function] + value if function in total else value
    return total


def _by_layer(jobs: Iterable[Mapping[tuple[str, str], Number]]) -> dict[str, dict[str, Number]]:
    total: dict[str, dict[str, Number]] = {}
    for job in jobs:
        for (layer, function), value in job.items():
            if layer:
                row = total.setdefault(layer, {})
                row[function] = row[function] + value if function in row else value
    return total
