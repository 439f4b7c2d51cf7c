"""Words for machines in the errors that a party endpoint answers, and what becomes of errors that nobody is told."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TypeVar

from mpc_ray.errors import MpcError

E = TypeVar("E", bound=MpcError)


def coded(error: E, code: str) -> E:
    """The same error with a word for machines, which ``commands.failure`` passes on."""
    error.code = code
    return error


def code_of(error: BaseException) -> str:
    """That word, or the error's class in lower case."""
    code = error.code if isinstance(error, MpcError) else ""
    return code or type(error).__name__.lower()


@contextlib.contextmanager
def unbroken(log: logging.Logger) -> Iterator[None]:
    """For one turn of a thread that serves as long as its process: what goes wrong is logged, and ends neither."""
    try:
        yield
    except MpcError as error:
        log.error("%s", error)
    except Exception as error:
        log.exception("%s in a thread that goes on", type(error).__name__)
