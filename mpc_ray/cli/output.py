"""Standard output is for results alone, standard error for progress and errors.

With ``--json`` there is exactly one JSON object on standard output, errors included. Ray's own processes and
threads print there whatever its log settings say, so results go through a stream of their own
(``mpc_ray.launch_ray.ray_quiet``).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mpc_ray.errors import InputError, MpcError

if TYPE_CHECKING:
    from rich.console import Console

_emitted = threading.Event()  # whether this run has printed its JSON object


@dataclass(frozen=True)
class Output:
    """``console`` and ``emit`` write to standard output, ``notes`` to standard error."""

    as_json: bool
    stream: TextIO
    console: Console
    notes: Console

    def emit(self, result: dict[str, Any]) -> None:
        """The one JSON object of this run."""
        _print_json(result, self.stream)


def begin() -> None:
    """A run begins: it has printed nothing."""
    _emitted.clear()


def _print_json(result: dict[str, Any], stream: TextIO) -> None:
    _emitted.set()
    print(json.dumps(result, ensure_ascii=False, allow_nan=False), file=stream, flush=True)


@contextlib.contextmanager
def opened(as_json: bool, *, guarded: bool = True) -> Iterator[Output]:
    """Standard output for results alone while the block runs. ``guarded`` is for what may start Ray."""
    from rich.console import Console

    with _own_stdout() if guarded else contextlib.nullcontext(sys.stdout) as stream:
        yield Output(
            as_json,
            stream,
            Console(file=stream, markup=False, highlight=False, width=_width(stream)),
            Console(file=sys.stderr, markup=False, highlight=False, width=_width(sys.stderr)),
        )


def _width(stream: TextIO) -> int | None:
    """Columns where there is no terminal to ask: in a file or a log, two sentences and two numbers fit."""
    return None if stream.isatty() or "COLUMNS" in os.environ else 110


@contextlib.contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """A stream that only we write to: on the descriptor, or what took the place of ``sys.stdout``."""
    try:
        real = sys.stdout.fileno() == 1
    except (OSError, ValueError):  # not backed by a file
        real = False
    if not real:
        yield sys.stdout
        return
    from mpc_ray.launch_ray import ray_quiet

    with ray_quiet() as stream:
        yield stream


def fail(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Show an error in one line and its remedy in another; the exit code.

    A result that was printed as JSON already has said what is wrong with it (``error_json``).
    """
    cause, remedy, code = explain(error)
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    print(f"error: {cause}", file=sys.stderr)
    if remedy:
        print(f"what to do: {remedy}", file=sys.stderr)
    if as_json and not _emitted.is_set():
        _print_json(error_json(error), sys.stdout)
    return code


def error_json(error: BaseException) -> dict[str, Any]:
    """What an error puts into the JSON object."""
    cause, remedy, code = explain(error)
    return {"error": type(error).__name__, "cause": cause, "remedy": remedy, "exit_code": code}


def stopped(by: str, code: int, *, as_json: bool) -> int:
    """Say that the run was stopped, by Ctrl-C or a signal; ``code`` again."""
    print("stopped", file=sys.stderr)
    if as_json and not _emitted.is_set():
        said = {"error": "Interrupted", "cause": f"stopped by {by}", "remedy": "", "exit_code": code}
        _print_json(said, sys.stdout)
    return code


def explain(error: BaseException) -> tuple[str, str, int]:
    """Cause, remedy and exit code of whatever ended the program."""
    if isinstance(error, MpcError):
        # The library speaks to Python; here the same thing is a flag.
        remedy = error.remedy.replace("truncate=True", "--truncate").replace(
            "mpc-ray … --calibrate", "--calibrate"
        )
        return _line(error.cause), _line(remedy), error.exit_code
    if isinstance(error, ImportError) and error.name:
        return (
            f"the package {error.name.split('.')[0]} cannot be imported",
            "run mpc-ray doctor; pip install -e . installs what is missing",
            1,
        )
    usage = getattr(error, "format_message", None)  # click's errors, whichever package they come from
    if usage is not None:
        return _line(usage()), "see mpc-ray --help, or COMMAND --help", int(getattr(error, "exit_code", 2))
    return (
        f"{type(error).__name__}: {_line(str(error))[:300]}".rstrip(": "),
        "run again with --debug, and report it",
        1,
    )


def _line(text: str) -> str:
    return " ".join(text.split())


def check_writable(path: Path, suffixes: tuple[str, ...]) -> None:
    """Before anything is computed: the result can be put there. Raises InputError."""
    if path.suffix not in suffixes:
        raise InputError(f"{path} ends in none of {', '.join(suffixes)}", remedy="the ending says the format")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(
            f"{path} cannot be written", remedy="name a file in a folder that exists and is yours"
        )


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises InputError."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", remedy="name another file") from error
