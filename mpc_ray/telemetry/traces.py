"""One trace a request, across client, gateway and parties, over OpenTelemetry's API.

W3C's traceparent travels in the job itself. Without ``setup``, or without an exporter to send to, nothing is recorded,
but traceparents are still made and passed on. Spans are ours alone: they go through a provider of their own, so that no
other library's spans (or exception texts) reach our exporters. Attributes are those of ``allowed``.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

from mpc_ray.errors import MpcError
from mpc_ray.telemetry import allowed

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_current: ContextVar[str] = ContextVar("mpc_ray_traceparent", default="")
_lock = threading.Lock()
_provider: TracerProvider | None = None


@dataclass(frozen=True)
class Span:
    """A span that runs. ``traceparent``: what to carry on to whoever continues it; never empty."""

    traceparent: str
    _span: trace.Span = field(repr=False)

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.traceparent.split("-")[1]

    def set(self, **attributes: object) -> None:
        """Add attributes (``allowed.ATTRIBUTES``)."""
        for key, value in allowed.attributes(attributes).items():
            self._span.set_attribute(key, value)


def setup(service: str, *, file: Path | None = None) -> bool:
    """Record from now on: to the collector at OTEL_EXPORTER_OTLP_ENDPOINT, and to ``file``, one JSON object a line.

    False where there is neither. A second call replaces the first. All spans are recorded, whatever the caller's flag,
    unless OTEL_TRACES_SAMPLER says otherwise. Raises ConfigError without OpenTelemetry's SDK (the extra ``server``).
    """
    global _provider  # noqa: PLW0603 - one a process, as OpenTelemetry's own
    shutdown()
    if file is None and not os.environ.get(ENDPOINT):
        return False
    from mpc_ray.telemetry.exporters import provider  # needs the SDK

    with _lock:
        _provider = provider(service, file)
    return True


def flush() -> None:
    """Send what is waiting."""
    if _provider is not None:
        _provider.force_flush()


def shutdown() -> None:
    """Send what is waiting, and record no more."""
    global _provider
    with _lock:
        ending, _provider = _provider, None
    if ending is not None:
        ending.shutdown()


def parse(text: object) -> str | None:
    """A traceparent as it came from outside, in its normal form; None for anything that is none. Never raises."""
    context = _context(text)
    return None if context is None else _text(context)


def current() -> str:
    """The traceparent of the span around this code; empty where there is none."""
    return _current.get()


@contextmanager
def span(name: str, parent: str | None = None, **attributes: object) -> Iterator[Span]:
    """A span named ``name`` (lower-case words) below ``parent``, else below the span around it, else a new trace.

    An exception that leaves it makes its status an error, with attributes ``error.type``, its class, and ``code`` where
    it has one; never its text. It goes on.
    """
    above = _context(parent) or _context(_current.get())
    provider = _provider
    if provider is None:
        made: trace.Span = NonRecordingSpan(above or _new_context())
    else:
        context = trace.set_span_in_context(NonRecordingSpan(above)) if above else Context()
        made = provider.get_tracer("mpc_ray").start_span(allowed.words(name), context)
    running = Span(_text(made.get_span_context()), made)
    running.set(**attributes)
    token = _current.set(running.traceparent)
    try:
        yield running
    except BaseException as error:
        _failed(made, error)
        raise
    finally:
        _current.reset(token)
        made.end()


def _failed(made: trace.Span, error: BaseException) -> None:
    made.set_status(Status(StatusCode.ERROR))  # no description: it would be the exception's text
    made.set_attribute("error.type", type(error).__name__)
    code = error.code if isinstance(error, MpcError) else ""  # SystemExit's code is a text
    if code and (checked := allowed.attribute("code", code)) is not None:
        made.set_attribute("code", checked)


def _new_context() -> SpanContext:
    return SpanContext(
        int.from_bytes(secrets.token_bytes(16)) or 1,
        int.from_bytes(secrets.token_bytes(8)) or 1,
        is_remote=False,
    )


def _context(text: object) -> SpanContext | None:
    if not isinstance(text, str) or len(text) > 200:
        return None
    found = _TRACEPARENT.fullmatch(text.strip())
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return None
    context = SpanContext(
        int(found[2], 16), int(found[3], 16), is_remote=True, trace_flags=TraceFlags(int(found[4], 16) & 1)
    )
    return context if context.is_valid else None


def _text(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 1:02x}"
