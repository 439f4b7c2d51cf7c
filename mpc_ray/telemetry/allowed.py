"""The names and values that may leave a process in a trace, a metric or a log field. What is not here, does not.

Something else is a defect of the caller: an error where MPC_TEST_STRICT_TELEMETRY=1 (the test suite), else dropped and
counted, since telemetry must not end a job.
"""

from __future__ import annotations

import math
import os
import re
import threading

STRICT_VARIABLE = "MPC_TEST_STRICT_TELEMETRY"
Value = str | int | float | bool

_HEX = re.compile(r"[0-9a-f]{1,64}")
_WORDS = re.compile(r"[a-z][a-z0-9_ ]{0,39}")
_NAME = re.compile(r"[A-Za-z0-9_.:/{}@+-]{0,120}")  # without blanks: a sentence is no name
_NUMBER = None
ATTRIBUTES: dict[str, re.Pattern[str] | None] = {
    "job": _HEX,
    "triple": _HEX,
    "stage": _WORDS,
    "set": _NAME,
    "region": _NAME,
    "model": _NAME,
    "protocol": _NAME,
    "version": _NAME,
    "outcome": _NAME,
    "code": _NAME,
    "error.type": _NAME,
    "http.method": _NAME,
    "http.route": _NAME,
    "http.status_code": _NUMBER,
    "party": _NUMBER,
    "length": _NUMBER,
    "batch": _NUMBER,
    "rows": _NUMBER,
    "jobs": _NUMBER,
    "rounds": _NUMBER,
    "bytes": _NUMBER,
    "seconds": _NUMBER,
    "attempt": _NUMBER,
    "retries": _NUMBER,
    "queue_depth": _NUMBER,
}

_lock = threading.Lock()
_dropped = 0


def dropped() -> int:
    """How often something that is not allowed was dropped in this process."""
    return _dropped


def refuse(what: str) -> None:
    """Count what a caller should not have passed; under the test suite an error. ``what`` never holds the value."""
    global _dropped  # noqa: PLW0603 - one count a process
    if os.environ.get(STRICT_VARIABLE) == "1":
        raise ValueError(f"telemetry does not take {what}")
    with _lock:
        _dropped += 1


def attribute(key: str, value: object) -> Value | None:
    """``value`` if it may be recorded under ``key``, else None (``refuse``). None itself means: nothing to say."""
    if value is None:
        return None
    if key not in ATTRIBUTES:
        refuse(f"an attribute named {key[:40]!r}")
        return None
    pattern = ATTRIBUTES[key]
    if type(value) in (int, bool) or (type(value) is float and math.isfinite(value)):
        return value  # type: ignore[return-value]
    if type(value) is str and pattern is not None and pattern.fullmatch(value):
        return value
    refuse(f"this {type(value).__name__} as {key}")
    return None


def attributes(given: dict[str, object]) -> dict[str, Value]:
    """Those of ``given`` that may be recorded."""
    checked = {key: attribute(key, value) for key, value in given.items()}
    return {key: value for key, value in checked.items() if value is not None}


def words(name: str) -> str:
    """``name`` if it can be a span's or a stage's: up to 40 lower-case letters and blanks; else ``other``."""
    if type(name) is str and _WORDS.fullmatch(name):
        return name
    refuse("a name that is not lower-case words")
    return "other"
