"""Pauses grow, are random, and respect what the gateway asks; problems become the errors that they mean."""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from typing import Any

import pytest

from mpc_ray.client.problems import problem_of, retry_after
from mpc_ray.client.retry import FIRST_S, MOST_S, Attempts, Deadline, backoff
from mpc_ray.errors import CheatingDetected, DeadlineExceeded, Overloaded, Refused, Unavailable


def test_pauses_are_spread_over_a_bound_that_doubles() -> None:
    for tries in range(10):
        bound = min(MOST_S, FIRST_S * 2**tries)
        pauses = [backoff(tries) for _ in range(400)]
        assert 0 <= min(pauses) < 0.1 * bound and 0.9 * bound < max(pauses) <= bound
        assert 0.4 * bound < sum(pauses) / 400 < 0.6 * bound
    assert all(5.0 <= backoff(9, 5.0) <= 6.0 for _ in range(100))


def test_a_deadline_counts_down() -> None:
    now = [10.0]
    deadline = Deadline(5.0, lambda: now[0])
    assert deadline.left == 5.0
    now[0] = 14.0
    deadline.check()
    now[0] = 15.5
    assert deadline.left == 0.0
    with pytest.raises(DeadlineExceeded, match="no answer within 5 s"):
        deadline.check()


def test_attempts_end_by_number_and_by_time() -> None:
    async def work() -> None:
        error = Unavailable("x")
        attempts = Attempts(2, Deadline(60.0))
        await attempts.again(error, at_once=True)
        await attempts.again(error, at_once=True)
        with pytest.raises(Unavailable):
            await attempts.again(error, at_once=True)
        began = time.monotonic()
        with pytest.raises(Unavailable):
            await Attempts(5, Deadline(1.0)).again(error, retry_after_s=2.0)
        assert time.monotonic() - began < 0.5, "it does not wait for what comes too late"

    asyncio.run(work())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7.0), (" 0 ", 0.0), ("", None), ("soon", None), ("-1", None), ("1e9", None), ("9" * 30, 86_400.0)],
)
def test_retry_after_is_read_without_trust(text: str, seconds: float | None) -> None:
    assert retry_after(text) == seconds


def test_retry_after_may_be_a_date() -> None:
    ahead = retry_after(email.utils.formatdate(time.time() + 30, usegmt=True))
    assert ahead is not None and 27 < ahead <= 30
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0


JSON = {"content-type": "application/problem+json"}


def test_a_problem_is_read() -> None:
    body = {"code": "overloaded", "cause": "full\nof\x07it", "remedy": "wait", "sets": ["us", 7]}
    found = problem_of(429, JSON | {"retry-after": "3"}, json.dumps(body).encode())
    assert (found.code, found.cause, found.remedy, found.sets) == (
        "overloaded",
        "full of it",
        "wait",
        ("us",),
    )
    error = found.error()
    assert type(error) is Overloaded and error.retry_after_s == 3 and found.again
    cheated = problem_of(500, JSON, b'{"code": "cheating", "culprits": [2, 7, "x", 0], "cause": "party 2"}')
    error = cheated.error()
    assert isinstance(error, CheatingDetected) and error.culprits == (0, 2) and not cheated.again
    refused = problem_of(403, JSON, b'{"code": "jurisdiction", "detail": "not there"}').error()
    assert type(refused) is Refused and refused.code == "jurisdiction" and "not there" in str(refused)


@pytest.mark.parametrize("body", [b"", b"<html>down</html>", b"[]", b"null", b"{", b'{"cause": {"a": 1}}'])
@pytest.mark.parametrize("status", [400, 404, 429, 500, 502, 503])
def test_an_answer_that_is_no_problem_is_one(status: int, body: bytes) -> None:
    for headers in (JSON, {"content-type": "text/html"}, dict[str, str]()):
        found: Any = problem_of(status, headers, body)
        assert found.status == status and found.code == "" and str(found.error()).startswith("the gateway: ")
        assert "html" not in str(found.error())
