"""Where spans go: a collector by OTLP over HTTP, a file of JSON lines. Needs OpenTelemetry's SDK."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpc_ray.errors import ConfigError
from mpc_ray.telemetry.private import open_private

try:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import (
        BatchSpanProcessor,
        SimpleSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON
except ImportError as error:
    raise ConfigError(
        "tracing is asked for, and OpenTelemetry's SDK is not installed",
        remedy="pip install 'mpc-ray[server]'",
    ) from error


class RandomIds(IdGenerator):
    """Ids from the system's randomness: one process's do not foretell another's."""

    def generate_trace_id(self) -> int:
        return int.from_bytes(secrets.token_bytes(16)) or 1

    def generate_span_id(self) -> int:
        return int.from_bytes(secrets.token_bytes(8)) or 1


class FileExporter(SpanExporter):
    """One JSON object a line: trace, span, parent, name, service, start_ns, end_ns, status, attributes."""

    def __init__(self, path: Path, service: str) -> None:
        self._service = service
        self._lock = threading.Lock()
        try:
            descriptor = open_private(path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise ConfigError(
                f"the trace file {path} cannot be written: {error.strerror}", remedy="name another file"
            ) from None
        self._file = os.fdopen(descriptor, "a", encoding="utf-8")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        lines = "".join(json.dumps(self._described(span)) + "\n" for span in spans)
        with self._lock:
            if self._file.closed:
                return SpanExportResult.FAILURE
            self._file.write(lines)
            self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        with self._lock:
            self._file.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        del timeout_millis  # every export flushes
        return True

    def _described(self, span: ReadableSpan) -> dict[str, Any]:
        context = span.get_span_context()
        assert context is not None
        return {
            "trace": f"{context.trace_id:032x}",
            "span": f"{context.span_id:016x}",
            "parent": f"{span.parent.span_id:016x}" if span.parent is not None else "",
            "name": span.name,
            "service": self._service,
            "start_ns": span.start_time,
            "end_ns": span.end_time,
            "status": "ok" if span.status.is_ok else "error",
            "attributes": dict(span.attributes or {}),
        }


def provider(service: str, file: Path | None) -> TracerProvider:
    """A provider that sends to the collector of the environment, where there is one, and to ``file``."""
    sampler = None if os.environ.get("OTEL_TRACES_SAMPLER") else ALWAYS_ON
    made = TracerProvider(
        sampler=sampler,
        resource=Resource.create({"service.name": service}),
        id_generator=RandomIds(),
        shutdown_on_exit=True,
    )
    if file is not None:
        made.add_span_processor(SimpleSpanProcessor(FileExporter(file, service)))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise ConfigError(
                "OTEL_EXPORTER_OTLP_ENDPOINT is set, and the OTLP exporter is not installed",
                remedy="pip install 'mpc-ray[server]'",
            ) from error
        made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made
