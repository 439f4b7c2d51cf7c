"""Words for machines in the errors that a party endpoint answers."""

from __future__ import annotations

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
