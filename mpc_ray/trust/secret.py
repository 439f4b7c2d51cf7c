"""Bytes that cannot be printed, formatted, pickled or copied by accident, and memory that no crash writes to a file."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """A secret, such as a key. ``reveal`` is the only way to its bytes; nothing else shows them.

    ``repr``, ``str`` and every format give the length alone; pickling and copying raise ``TypeError``, so that a
    secret in a Ray task's arguments or in a log record is an error at once. ``==`` takes constant time. What is not
    promised: that the bytes leave memory when the object does.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """The bytes themselves."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return f"Secret({len(self._value)} bytes)"

    def __format__(self, specification: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied: pass the bytes on purpose, by reveal()")


def no_core_dumps() -> None:
    """From now on neither this process's memory nor its children's is written to a file when one of them crashes."""
    import resource  # not where the client alone may run (Windows)

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
