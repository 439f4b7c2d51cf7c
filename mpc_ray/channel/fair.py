"""Whom to hang up on when too many have not yet said who they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def oldest_of_most(waiting: Mapping[T, str]) -> T:
    """Of those who wait, the oldest first, each with its address: the oldest of the address that most wait from.

    So one address that floods a port pushes out its own connections, and nobody else's.
    """
    ((address, _),) = Counter(waiting.values()).most_common(1)
    return next(one for one, whose in waiting.items() if whose == address)


def address_of(who: str) -> str:
    """The address in ``host:port``."""
    return who.rpartition(":")[0]
