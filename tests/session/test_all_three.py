"""Waiting for three: all answers, or the one error that explains what happened, always in time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import pytest

from mpc_ray.all_three import GRACE_S, all_three, blame
from mpc_ray.commands import error_of, failure
from mpc_ray.errors import InputError, MpcError, PeerLost


def later(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


def failing(error: Exception, seconds: float = 0.0) -> NoReturn:
    time.sleep(seconds)
    raise error


def test_results_come_in_the_order_of_parties() -> None:
    calls: list[Callable[[], int]] = [partial(later, 0.03 * (2 - i), i) for i in range(3)]
    assert all_three(calls, 5, "testing") == [0, 1, 2]


def test_the_first_failure_ends_the_wait_after_the_grace() -> None:
    started = time.monotonic()
    with pytest.raises(PeerLost, match="party 1: gone"):
        all_three(
            [partial(later, 9, 0), partial(failing, PeerLost("party 1", "gone")), partial(later, 9, 2)],
            60,
            "testing",
        )
    assert time.monotonic() - started < GRACE_S + 1


def test_the_deadline_names_who_was_silent() -> None:
    started = time.monotonic()
    with pytest.raises(PeerLost, match=r"party 0, party 2: no answer within 0.2 s while testing"):
        all_three([partial(later, 9, 0), partial(later, 0, 1), partial(later, 9, 2)], 0.2, "testing")
    assert time.monotonic() - started < 1


def test_a_cause_that_arrives_second_is_still_found() -> None:
    calls = [
        partial(failing, PeerLost("party 2", "lost (says party 0)")),
        partial(failing, PeerLost("party 0", "lost (says party 1)")),
        partial(failing, PeerLost("party 2", "closed"), 0.2),
    ]
    with pytest.raises(PeerLost, match="party 2: closed"):
        all_three(calls, 5, "testing")


def test_blame_prefers_the_dead_then_the_guilty_then_the_most_named() -> None:
    dead, echo = PeerLost("party 1", "closed"), PeerLost("party 1", "lost")
    guilty, other = InputError("party 2: bad"), PeerLost("party 0", "lost")
    assert blame({0: echo, 1: dead, 2: guilty}) is dead
    assert blame({0: echo, 2: guilty}) is guilty
    assert blame({0: echo, 1: other, 2: PeerLost("party 1", "silent")}) is echo


def test_errors_travel_as_headers_without_data() -> None:
    sent = failure(InputError("no such length", remedy="pad it"))
    assert str(error_of(1, sent)) == "party 1: no such length (pad it)"
    assert type(error_of(1, sent)) is InputError
    lost = error_of(0, failure(PeerLost("party 2", "silent", remedy="wait")))
    assert isinstance(lost, PeerLost)
    assert (lost.peer, str(lost)) == ("party 2", "party 2: silent (says party 0) (wait)")
    crash = failure(ValueError("CANARY"), debug=True)
    assert "CANARY" not in repr(crash)
    assert "ValueError" in crash["cause"]


@pytest.mark.parametrize("name", ["SystemExit", "annotations", "", "PeerLost", 7, None])
def test_a_party_cannot_choose_what_is_raised(name: object) -> None:
    error = error_of(2, {"error": name, "cause": "a\nb" + "x" * 9999})
    assert type(error) is MpcError
    assert "\n" not in str(error)
    assert len(str(error)) < 600
