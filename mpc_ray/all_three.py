"""Waiting for three parties at once: all three answers, or the one error that explains what happened."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from mpc_ray.errors import PeerLost

T = TypeVar("T")
GRACE_S = 1.0  # after the first failure, how long to hear the others: the cause often arrives second


def all_three(calls: Sequence[Callable[[], T]], timeout_s: float, doing: str) -> list[T]:
    """Run one call for each party side by side; all results, or the error of the party that is to blame.

    The first failure ends the wait after ``GRACE_S`` more; so does the deadline at once. Calls that have not
    returned are left behind in daemon threads: closing the triple makes them return. Never hangs.
    """
    done: queue.SimpleQueue[tuple[int, T | None, BaseException | None]] = queue.SimpleQueue()

    def one(party: int) -> None:
        try:
            done.put((party, calls[party](), None))
        except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises it
            done.put((party, None, error))

    for party in range(len(calls)):
        threading.Thread(target=one, args=(party,), name=f"{doing}-{party}", daemon=True).start()
    results: dict[int, T | None] = {}
    failures: dict[int, BaseException] = {}
    deadline = time.monotonic() + timeout_s
    while len(results) + len(failures) < len(calls):
        try:
            party, result, failed = done.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if failed is None:
            results[party] = result
        else:
            deadline = min(deadline, time.monotonic() + GRACE_S) if not failures else deadline
            failures[party] = failed
    silent = [party for party in range(len(calls)) if party not in results and party not in failures]
    if failures:
        raise blame(failures)
    if silent:
        names = ", ".join(f"party {party}" for party in silent)
        raise PeerLost(
            names,
            f"no answer within {timeout_s:g} s while {doing}",
            remedy="raise the time limit, or see the logs",
        )
    return [results[party] for party in sorted(results)]  # type: ignore[misc]


def blame(failures: Mapping[int, BaseException]) -> BaseException:
    """The failure to show of several, by party: the cause, not its echoes.

    A party whose own link broke is gone, and the others' complaints about it are echoes; next comes an error
    that names no peer (it made its party hang up on the others), found by a party itself before what it was told by
    another; last, the peer that most of them name.
    """
    lost = {party: error for party, error in failures.items() if isinstance(error, PeerLost)}
    gone = [error for party, error in lost.items() if error.peer == f"party {party}"]
    own = [error for party, error in failures.items() if party not in lost]
    own.sort(key=lambda error: getattr(error, "second_hand", False))
    if gone or own:
        return [*gone, *own][0]
    named = [error.peer for error in lost.values()]
    return max(lost.values(), key=lambda error: named.count(error.peer))
