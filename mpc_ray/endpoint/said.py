"""Errors as a party endpoint answers them: with a word for machines, and never with a share, a text or a key."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from mpc_ray.channel.packed import Message
from mpc_ray.commands import failure
from mpc_ray.errors import MpcError, Unavailable

E = TypeVar("E", bound=MpcError)
_CODE = re.compile(r"[a-z_]{1,40}")


def coded(error: E, code: str) -> E:
    """The same error with a word for machines, which ``refusal`` passes on."""
    error.code = code  # type: ignore[attr-defined]
    return error


def code_of(error: BaseException) -> str:
    """That word, or the error's class in lower case."""
    code = getattr(error, "code", "")
    return code if isinstance(code, str) and _CODE.fullmatch(code) else type(error).__name__.lower()


def refusal(error: BaseException) -> Message:
    """The answer to a command that failed: ``commands.failure``, with ``code`` and ``retry_after_s`` where it has them.

    What a slot said is passed on as it said it.
    """
    header: dict[str, Any] = dict(getattr(error, "said", None) or failure(error))
    code = getattr(error, "code", "")
    if isinstance(error, MpcError) and isinstance(code, str) and _CODE.fullmatch(code):
        header["code"] = code
    if isinstance(error, Unavailable):
        header["retry_after_s"] = error.retry_after_s
    return Message(header)
