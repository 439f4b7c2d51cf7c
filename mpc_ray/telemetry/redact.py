"""A log record's text, with nothing in it that is not known to be harmless.

Arguments pass by their type: text (cut), numbers, None, paths, and errors of ``mpc_ray.errors``, which never hold data.
Everything else gives its type alone: bytes, arrays, tensors, secrets, containers of whatever. Exceptions of others give
their class and where they were raised.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Mapping
from pathlib import PurePath
from types import TracebackType

from mpc_ray.errors import MpcError

TEXT = 300  # characters of one argument
MESSAGE = 2000
SERVER = ("uvicorn", "uvicorn.error")


def harmless(value: object) -> object:
    """``value`` if it may be shown, else ``[redacted TYPE]``; an exception gives its class."""
    match value:
        case None | bool() | int() | float():
            return value
        case str() if len(value) > TEXT:
            return f"{value[:TEXT]}…"
        case str():
            return value
        case PurePath():
            return harmless(str(value))
        case MpcError():
            return harmless(f"{type(value).__name__}: {value}")
        case BaseException():
            return type(value).__name__
    return f"[redacted {type(value).__name__}]"


def message(record: logging.LogRecord) -> str:
    """The record's message with harmless arguments.

    Of other libraries' loggers only the place is told: they write exceptions' texts into their messages. Of the web
    server's, which are worth reading, the first line: what follows is a traceback.
    """
    if record.name in SERVER:
        return _filled(record).partition("\n")[0]
    if record.name != "mpc_ray" and not record.name.startswith("mpc_ray."):
        return f"withheld: {record.name} at {os.path.basename(record.pathname)}:{record.lineno}"
    return _filled(record)


def _filled(record: logging.LogRecord) -> str:
    if not isinstance(record.msg, str):
        return str(harmless(record.msg))
    if not record.args:
        return record.msg[:MESSAGE]
    args: object
    if isinstance(record.args, Mapping):
        args = {key: harmless(value) for key, value in record.args.items()}
    else:
        args = tuple(harmless(value) for value in record.args)
    try:
        return (record.msg % args)[:MESSAGE]
    except (TypeError, ValueError, KeyError):  # %d of what is now a text
        return f"{record.msg[:MESSAGE]} [its arguments are redacted]"


def failure(error: BaseException | None, trace: TracebackType | None) -> dict[str, object]:
    """An exception as log fields: class, cause and remedy if it is one of ours, and the lines it went through."""
    if error is None:
        return {}
    found: dict[str, object] = {"error": type(error).__name__}
    if isinstance(error, MpcError):
        found |= {"cause": harmless(error.cause), "remedy": harmless(error.remedy)}
    frames = traceback.extract_tb(trace, limit=-8)
    found["at"] = [f"{os.path.basename(f.filename)}:{f.lineno} {f.name}" for f in frames]
    return found
