"""Structured logs: one JSON object a line, or a line for people, with the job in hand and nothing secret (``redact``).

``setup`` takes the root logger over, and what Python prints of an exception that nobody caught: its text would quote
whatever it was about.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from mpc_ray.errors import ConfigError
from mpc_ray.telemetry import allowed, redact, traces
from mpc_ray.telemetry.private import open_private

Form = Literal["json", "human"]
log = logging.getLogger("mpc_ray.telemetry")
_fields: ContextVar[dict[str, allowed.Value]] = ContextVar("mpc_ray_log_fields", default={})  # noqa: B039 - never changed
_handler: logging.Handler | None = None


@contextmanager
def context(**fields: object) -> Iterator[None]:
    """Add job, set, party, stage … (``allowed.ATTRIBUTES``) to every record inside, in asyncio tasks begun inside too.

    A thread begun inside starts without them.
    """
    token = _fields.set(_fields.get() | allowed.attributes(fields))
    try:
        yield
    finally:
        _fields.reset(token)


def setup(service: str, *, file: Path | None = None, level: str = "INFO", form: Form | None = None) -> None:
    """Log to ``file`` (for its owner alone), else to stderr. ``form``: None is human on a terminal, else JSON.

    A second call replaces the first. Handlers of ``logging.basicConfig`` are removed; uvicorn's must be kept away by
    its own ``log_config=None``. Uncaught exceptions are logged too: class and place. Raises ConfigError for a level or
    a file that cannot be.
    """
    global _handler  # noqa: PLW0603 - one a process
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ConfigError(f"unknown log level {level!r}", remedy="DEBUG, INFO, WARNING or ERROR")
    handler = _open(file)
    if form is None:
        form = "human" if file is None and sys.stderr.isatty() else "json"
    handler.setFormatter(JsonLines(service) if form == "json" else Human(service))
    root = logging.getLogger()
    for old in list(root.handlers):
        if old is _handler or type(old) in (logging.StreamHandler, logging.FileHandler):
            root.removeHandler(old)
            old.close()
    root.addHandler(handler)
    root.setLevel(number)
    _handler = handler
    sys.excepthook = _uncaught
    sys.unraisablehook = _unraisable
    threading.excepthook = _uncaught_in_thread


def _open(file: Path | None) -> logging.Handler:
    if file is None:
        return logging.StreamHandler(sys.stderr)
    try:
        os.close(open_private(file, os.O_WRONLY | os.O_APPEND))
        return logging.FileHandler(file, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the log file {file} cannot be written: {error.strerror}", remedy="name another file"
        ) from None


class JsonLines(logging.Formatter):
    """time (UTC), level, logger, service, message, the fields of ``context``, trace; of an exception error and at."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "service": self._service,
            "message": redact.message(record),
            **_context_of(record),
            **_failure_of(record),
        }
        return json.dumps(said, ensure_ascii=False)


class Human(logging.Formatter):
    """Time, level, service, message, then the fields; one line, without control characters."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        fields = _context_of(record) | _failure_of(record)
        fields.pop("trace", None)
        rest = " ".join(f"{k}={' < '.join(v) if isinstance(v, list) else v}" for k, v in fields.items())
        clock = _time(record).strftime("%H:%M:%S.%f")[:-3]
        line = f"{clock} {record.levelname:<7} {self._service}: {redact.message(record)} {rest}".rstrip()
        return "".join(c if c.isprintable() else " " for c in line)


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _context_of(record: logging.LogRecord) -> dict[str, Any]:
    own = {key: record.__dict__[key] for key in allowed.ATTRIBUTES if key in record.__dict__}  # ``extra=``
    fields: dict[str, Any] = _fields.get() | allowed.attributes(own)
    if around := traces.current():
        fields["trace"] = around.split("-")[1]
    return fields


def _failure_of(record: logging.LogRecord) -> dict[str, object]:
    if not isinstance(record.exc_info, tuple):
        return {}
    _, error, trace = record.exc_info
    return redact.failure(error, trace)


def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    log.critical("uncaught exception", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        log.critical(
            "uncaught exception in a thread", exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
        )


def _unraisable(args: Any) -> None:
    if args.exc_value is not None:
        log.error("exception while cleaning up", exc_info=(args.exc_type, args.exc_value, args.exc_traceback))
