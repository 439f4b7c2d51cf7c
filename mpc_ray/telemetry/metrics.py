"""Prometheus metrics: one registry a process. Without prometheus_client (the extras server and proxy) all calls do
nothing.

Labels are few and their values bounded: a stage, a set, a code, never a subject, a key's id or an address. A value of
another form, and the 201st of one label, is counted as ``other``.
"""

from __future__ import annotations

import importlib.util
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpc_ray.errors import ConfigError
from mpc_ray.telemetry import allowed

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

LABELS = ("stage", "set", "code", "reason", "certificate", "kind", "route", "status", "model")
MOST_VALUES = 200  # of one label: what a client chooses must not fill our memory
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
RATIOS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5)
SIZES = (1, 2, 4, 8, 16, 32, 64)
_VALUE = re.compile(r"[A-Za-z0-9_./{}: -]{0,64}")

Predictor = Callable[[str, str, int, int], float | None]

HISTOGRAMS = {
    "stage_seconds": ("Time of each stage of a request", ("stage", "set"), SECONDS),
    "http_seconds": ("Time of each HTTP request", ("route", "status"), SECONDS),
    "run_seconds": ("Time of one computation of the three parties", ("set", "model"), SECONDS),
    "run_jobs": ("Jobs in one computation", ("set",), SIZES),
    "prediction_error_ratio": ("|predicted - measured| / measured, of a computation", ("set",), RATIOS),
}
COUNTERS = {
    "jobs": ("Jobs that ended, by outcome", ("code", "set")),
    "rounds": ("Rounds of all computations", ("set",)),
    "bytes_sent": ("Bytes that the parties sent each other", ("set",)),
    "texts": ("Texts computed", ("set",)),
    "aborts": ("Triples given up, by reason", ("reason", "set")),
    "prediction_failures": ("Computations for which the predictor failed", ("set",)),
}
GAUGES = {
    "queue_depth": ("Jobs that wait", ("set",)),
    "held_bytes": ("Memory that is held for jobs, by kind", ("kind",)),
}


@dataclass
class _Metrics:
    """What this process counts."""

    registry: CollectorRegistry
    named: dict[str, Any]
    certificates: dict[str, float] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(default_factory=lambda: {label: set() for label in LABELS})
    predictor: Predictor | None = None


_lock = threading.Lock()
_metrics: _Metrics | None = None


def stage(stage: str, seconds: float, *, set: str = "") -> None:
    """``stage`` (lower-case words, as a span's name) of one request took ``seconds``."""
    _observe_stage(stage, seconds, set)


@contextmanager
def timed(stage: str, *, set: str = "") -> Iterator[None]:
    """``stage`` for the block, whether it succeeds or not."""
    started = time.perf_counter()
    try:
        yield
    finally:
        _observe_stage(stage, time.perf_counter() - started, set)


def job(code: str, *, set: str = "") -> None:
    """One job ended: ``ok``, or the code of its error."""
    if found := _found("jobs", code=code, set=set):
        found.inc()


def ran(
    *,
    set: str,
    rounds: int,
    bytes_sent: int,
    jobs: int,
    rows: int,
    length: int,
    seconds: float,
    model: str = "",
) -> None:
    """One computation for ``jobs`` jobs of ``rows`` texts, padded to ``length``; bytes of all three parties. It is
    compared with what the predictor said."""
    metrics = _made()
    if metrics is None:
        return
    for name, value in (("rounds", rounds), ("bytes_sent", bytes_sent), ("texts", rows)):
        _found(name, set=set).inc(value)
    _found("run_jobs", set=set).observe(jobs)
    _found("run_seconds", set=set, model=model).observe(seconds)
    if metrics.predictor is None or seconds <= 0:
        return
    try:
        predicted = metrics.predictor(set, model, rows, length)
    except Exception:  # noqa: BLE001 - counted: a forecast must not end the job that it was wrong about
        _found("prediction_failures", set=set).inc()
        return
    if predicted is not None:
        foretold(predicted, seconds, set=set)


def foretold(predicted: float, seconds: float, *, set: str = "") -> None:
    """A computation took ``seconds`` (above 0), and ``predicted`` were foretold."""
    if found := _found("prediction_error_ratio", set=set):
        found.observe(abs(predicted - seconds) / seconds)


def predict_with(callback: Predictor | None) -> None:
    """Who foretells the seconds of a computation from (set, model, texts, length); None from it: no forecast."""
    if metrics := _made():
        metrics.predictor = callback


def queue(depth: int, *, set: str = "") -> None:
    """``depth`` jobs wait."""
    if found := _found("queue_depth", set=set):
        found.set(depth)


def held(kind: str, nbytes: int) -> None:
    """``nbytes`` of memory are held for jobs: envelopes, parcels …"""
    if found := _found("held_bytes", kind=kind):
        found.set(nbytes)


def abort(reason: str, *, set: str = "") -> None:
    """A triple was given up: peer_lost, timeout …"""
    if found := _found("aborts", reason=reason, set=set):
        found.inc()


def certificate(name: str, not_after: float) -> None:
    """The certificate ``name`` ends at ``not_after``, POSIX seconds; every scrape says how many are left."""
    if metrics := _made():
        metrics.certificates[_label(metrics, "certificate", name)] = not_after


def http(route: str, status: int, seconds: float) -> None:
    """One request; ``route`` is the pattern (/v2/models/{name}), never the path."""
    if found := _found("http_seconds", route=route, status=str(int(status))):
        found.observe(seconds)


def exposition() -> tuple[bytes, str]:
    """What a scrape gets, and its content type. Raises ConfigError without prometheus_client."""
    metrics = _made()
    if metrics is None:
        raise ConfigError(
            "metrics are asked for, and prometheus_client is not installed",
            remedy="pip install 'mpc-ray[server]'",
        )
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return generate_latest(metrics.registry), CONTENT_TYPE_LATEST


def _observe_stage(stage: str, seconds: float, set: str) -> None:
    if found := _found("stage_seconds", stage=allowed.words(stage), set=set):
        found.observe(seconds)


def _found(name: str, **labels: str) -> Any:
    """The metric ``name`` with these labels; None without prometheus_client."""
    metrics = _made()
    if metrics is None:
        return None
    return metrics.named[name].labels(**{key: _label(metrics, key, value) for key, value in labels.items()})


def _label(metrics: _Metrics, label: str, value: object) -> str:
    if type(value) is not str or not _VALUE.fullmatch(value):
        allowed.refuse(f"this {type(value).__name__} as the label {label}")
        return "other"
    seen = metrics.seen[label]
    with _lock:
        if value in seen or len(seen) < MOST_VALUES:
            seen.add(value)
            return value
    return "other"


def _made() -> _Metrics | None:
    global _metrics  # noqa: PLW0603 - one registry a process
    if _metrics is None and importlib.util.find_spec("prometheus_client") is not None:
        with _lock:
            if _metrics is None:
                _metrics = _make()
    return _metrics


def _make() -> _Metrics:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    registry = CollectorRegistry(auto_describe=False)
    named: dict[str, Any] = {}
    for name, (text, labels, buckets) in HISTOGRAMS.items():
        named[name] = Histogram(f"mpc_ray_{name}", text, labels, registry=registry, buckets=buckets)
    for name, (text, labels) in COUNTERS.items():
        named[name] = Counter(f"mpc_ray_{name}", text, labels, registry=registry)
    for name, (text, labels) in GAUGES.items():
        named[name] = Gauge(f"mpc_ray_{name}", text, labels, registry=registry)
    metrics = _Metrics(registry, named)

    class AtScrape:
        """What is computed when somebody asks."""

        def collect(self) -> Iterator[Any]:
            left = GaugeMetricFamily(
                "mpc_ray_certificate_seconds_left", "Until a certificate ends", labels=["certificate"]
            )
            for name, not_after in list(metrics.certificates.items()):
                left.add_metric([name], not_after - time.time())
            yield left
            yield CounterMetricFamily(
                "mpc_ray_telemetry_dropped",
                "Attributes and labels that were not allowed",
                value=allowed.dropped(),
            )

    registry.register(AtScrape())  # type: ignore[arg-type]
    ProcessCollector(registry=registry)  # memory, processor time, open files
    return metrics
