"""One pass of an encoder on shares, measured: seconds, bytes, rounds, memory, error.

The clock starts when a party has its shares of the embedded input and stops when it has its summand of the last
hidden state; ``seconds`` of a run is that of the slowest party. So it holds everything the parties do and send for
this input, the dealing of correlated randomness included; it leaves out what the client does (tokens, embedding,
sharing: ``embed_seconds``), the shares' way to the parties, and the model's import and sharing, which are done once.
``wall_seconds`` is what the client saw of the same runs, from the call to the last answer, its own sharing included.
"""

from __future__ import annotations

import secrets
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpc_ray.bench.dump import write_dump
from mpc_ray.bench.machine import machine
from mpc_ray.bench.shapes import Shape
from mpc_ray.bench.trace import chrome_trace, lane_seconds, write_trace
from mpc_ray.bench.workload import Progress, Workload, workload
from mpc_ray.channel import Message
from mpc_ray.config import Config
from mpc_ray.errors import InputError, MpcError
from mpc_ray.models import query
from mpc_ray.models.export import Visibility
from mpc_ray.models.weights import Array
from mpc_ray.report import JobReport, Report, job_report
from mpc_ray.session import Session

_SETUP = ("protocol", "variant", "rtt_ms", "mbit", "device", "launcher", "tls", "range_check", "threads")


@dataclass
class Passes:
    """What several runs of one job gave. The first of them warms caches up and is not among the measured ones."""

    reports: list[JobReport] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    steps: list[list[Any]] = field(default_factory=list)
    unattributed: int = 0
    output: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def seconds(self) -> list[float]:
        """Of the measured runs."""
        return [report.seconds for report in self.reports[1:]]

    @property
    def fastest(self) -> JobReport:
        """Of the measured runs."""
        return min(self.reports[1:], key=lambda report: report.seconds)

    def add(self, answers: list[Message], batch: int, length: int, wall: float, share: float) -> None:
        """One run's answers, and the client's seconds: of the whole call, and of its own part.

        Raises RangeExceeded if a value left its window, MpcError if two runs sent different amounts.
        """
        self.output = query.result(answers)
        self.wall.append(wall)
        self.share.append(share)
        headers: list[dict[str, Any]] = [answer.header for answer in answers]
        self.unattributed += sum(int(header["unattributed"]) for header in headers)
        self.reports.append(job_report(answers, batch, length))
        self.steps.append([header.get("steps") for header in headers])
        first, last = self.reports[0], self.reports[-1]
        if (first.bytes_sent, first.rounds) != (last.bytes_sent, last.rounds):
            raise MpcError(
                "two runs of one input differ in bytes or rounds", remedy="report this as a defect"
            )

    def costs(self) -> dict[str, Any]:
        """Time, bytes and rounds, as every benchmark states them."""
        report = self.fastest
        return {
            "runs": len(self.seconds),
            "seconds_median": statistics.median(self.seconds),
            "seconds_min": min(self.seconds),
            "bytes_sent": list(report.bytes_sent),
            "bytes_sent_offline": list(report.bytes_sent_offline),
            "rounds": report.rounds,
            "first_seconds": self.reports[0].seconds,
            "wall_seconds_median": statistics.median(self.wall[1:]),
            "waiting_seconds": report.waiting,
            "bytes_unattributed": self.unattributed,
        }

    def error(self, expected: Array) -> dict[str, float]:
        """Of the last run's output."""
        error = np.abs(self.output - expected)
        return {"mean_abs_error": float(error.mean()), "max_abs_error": float(error.max())}


class EncoderJob:
    """An encoder that the parties of ``session`` hold, and one batch to run through it.

    ``more``: for the header of every run, such as ``watch`` or an emulated ``link``.
    """

    def __init__(self, session: Session, work: Workload) -> None:
        self.work = work
        self.more: dict[str, Any] = {}
        self.name = f"bench-{work.shape.name}-{work.weights}"
        self._session = session
        self._sharing = 0.0
        self._profile = False
        session.share(self.name, lambda: query.load_messages(work.export, self.name, secrets.token_bytes(16)))

    def passes(self, runs: int, progress: Progress) -> Passes:
        """One pass to warm up and ``runs`` more; every one shares the input afresh."""
        passes = Passes()
        batch, seq, _ = self.work.x.shape
        for i in range(runs + 1):
            progress(f"pass {i} of {runs}" if i else "first pass, to warm up", 0.0)
            started = time.perf_counter()
            answers = self._session.run(self._messages)
            passes.add(answers, batch, seq, time.perf_counter() - started, self._sharing)
        return passes

    def profile(self, progress: Progress) -> list[dict[str, Any]]:
        """One pass more, in which each party notes when it did what (``protocols.timeline``); in the parties' order."""
        progress("one pass more, for the profile", 0.0)
        self._profile = True
        try:
            answers: list[Any] = self._session.run(self._messages)
        finally:
            self._profile = False
        return [answer.header["profile"] for answer in answers]

    def _messages(self, job: bytes, attempt: int) -> list[Message]:
        started = time.perf_counter()
        check = self._session.config.range_check
        messages = query.run_messages(self.work.embed(), self.name, job, attempt, "hidden", check)
        self._sharing = time.perf_counter() - started
        # Without embeddings x enters the first layer as it is.
        normalised = self.work.norm is None
        asked = {"normalised": normalised, **self.more} | ({"profile": True} if self._profile else {})
        return [Message({**m.header, **asked}, m.tensors) for m in messages]


def measure(
    shape: Shape,
    *,
    config: Config,
    seq: int,
    batch: int = 1,
    runs: int = 3,
    weights: str | None = None,
    visibility: Visibility = "secret",
    dump: Path | None = None,
    profile: Path | None = None,
    progress: Progress = lambda what, part: None,
    debug: bool = False,
) -> dict[str, Any]:
    """Run ``shape`` once to warm up and ``runs`` times measured; the JSON object that docs/benchmarks.md describes.

    ``visibility``: whether the parties see the weights. ``profile``: a file for the trace (``bench.trace``) of one pass
    more, which no figure but ``profile_seconds`` counts. Links between the parties are made as slow as the settings'
    ``rtt_ms`` and ``mbit`` say. Bytes and rounds do not vary from run to run; memory is the largest of each party's
    process so far, model and import included (under launcher ``threads`` that is one process, and the client is in it).

    Raises InputError for sizes it cannot take, RangeExceeded if the input leaves a window, and what Session raises.
    """
    check_setup(config, runs)
    config.check_weights(visibility)
    load = machine()["load"]
    emulate = "clock" if config.rtt_ms or config.mbit else ""
    config = config.chosen()
    # The session first: it may refuse the device.
    with Session(config=config, progress=progress, debug=debug, emulate=emulate) as session:
        work = workload(shape, seq, batch, weights, progress, visibility)
        progress("sharing the model", 0.0)
        job = EncoderJob(session, work)
        passes = job.passes(runs, progress)
        profiles = job.profile(progress) if profile is not None else []
        peak = [int(stats["peak_rss_bytes"]) for stats in session.stats()]
        trust = session.trust
    if dump is not None:
        write_dump(dump, work, passes.output)
    fastest = Report((passes.fastest,))
    found = {
        "shape": shape.name,
        "layers": shape.layers,
        "hidden": shape.hidden,
        "heads": shape.heads,
        "ffn": shape.ffn,
        "seq": seq,
        "batch": batch,
        **setup_json(config),
        "weights": work.weights,
        "public_weights": visibility == "public",
        **passes.costs(),
        "peak_rss_bytes": peak,
        **passes.error(work.expected),
        "embed_seconds": statistics.median(passes.share[1:]),
        "bytes_by_function": fastest.bytes_by_function(),
        "compute_seconds_by_function": fastest.seconds_by_function(),
        "trust": trust,
        "machine": {**machine(config.device), "load": load},
    }
    if profile is not None:
        found["profile_seconds"] = lane_seconds(profiles)
        facts = ("shape", "seq", "batch", *_SETUP, "weights", "public_weights", "profile_seconds", "machine")
        write_trace(profile, chrome_trace(profiles, {name: found[name] for name in facts}))
    return found


def check_setup(config: Config, runs: int) -> None:
    """Raises InputError without a run."""
    if runs < 1:
        raise InputError(f"{runs} runs", remedy="at least 1")


def setup_json(config: Config) -> dict[str, Any]:
    """How the parties run."""
    return {name: getattr(config, name) for name in _SETUP}
