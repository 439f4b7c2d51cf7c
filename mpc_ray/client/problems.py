"""What a gateway says when it does not answer a job: problem details (RFC 9457), read without trust, as our errors."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpc_ray.errors import (
    AuthorisationError,
    ChannelError,
    CheatingDetected,
    ConfigError,
    DeadlineExceeded,
    InputError,
    ModelError,
    MpcError,
    Overloaded,
    Refused,
    SealError,
    Unavailable,
)

RETRIED = (408, 429, 502, 503, 504)
_LONGEST_WAIT_S = 86_400.0
_CLOCK_CODES = ("expired", "issued_in_future", "not_yet_valid")


@dataclass(frozen=True)
class Problem:
    """A definite "no": the job was not answered. ``sets``: others that the gateway names as ready.

    ``clock_s``: how many seconds the gateway's clock is ahead of ours, where it told the time. ``culprits``: whom a
    party accuses, as the gateway tells it: hearsay twice over.
    """

    status: int
    code: str
    cause: str
    remedy: str = ""
    retry_after_s: float | None = None
    sets: tuple[str, ...] = ()
    clock_s: float | None = None
    culprits: tuple[int, ...] = ()

    @property
    def again(self) -> bool:
        """Whether the same texts may succeed later, under a new authorisation."""
        return (self.status in RETRIED and self.code != "cheating") or self.code == "unknown_job"

    def error(self) -> MpcError:
        """The error that says this, with the gateway's word for machines."""
        made = self._error()
        made.code = self.code
        return made

    def _error(self) -> MpcError:
        cause, remedy = f"the gateway: {self.cause}", self.remedy
        match self.status, self.code:
            case _, "cheating":
                return CheatingDetected(cause, self.culprits, remedy=remedy, second_hand=True)
            case _, "bad_envelope":
                return SealError(cause, remedy=remedy)
            case _, "wrong_model" | "unknown_model":
                return ModelError(cause, remedy=remedy or "get the model's bundle from its owner again")
            case _, "wrong_federation" | "unknown_set":
                return ConfigError(cause, remedy=remedy)
            case 401, code:
                return AuthorisationError(cause, remedy=remedy, code=code)
            case 409, code:
                return AuthorisationError(cause, remedy=remedy, code=code)
            case 403, code:
                if code in _CLOCK_CODES and self.clock_s is not None and abs(self.clock_s) > 2:
                    way = "ahead of" if self.clock_s > 0 else "behind"
                    remedy = f"set the clock: the gateway's is {abs(self.clock_s):.0f} s {way} this machine's"
                return Refused(cause, remedy=remedy, code=code)
            case ((400 | 413 | 415 | 422), _):
                return InputError(cause, remedy=remedy)
            case 429, _:
                return Overloaded(cause, remedy=remedy, retry_after_s=self._wait())
            case 503, _:
                return Unavailable(cause, remedy=remedy, retry_after_s=self._wait())
            case ((504 | 408), _):
                return DeadlineExceeded(cause, remedy=remedy)
            case 502, _:
                return ChannelError(cause, remedy=remedy)
        return MpcError(cause, remedy=remedy)

    def _wait(self) -> float:
        return 1.0 if self.retry_after_s is None else self.retry_after_s


def problem_of(status: int, headers: Mapping[str, str], body: bytes) -> Problem:
    """What an answer that is no success says; one that is no problem object too (a load balancer's page)."""
    said: Any = None
    if "json" in headers.get("content-type", ""):
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
    if not isinstance(said, dict):
        said = {}
    cause = _line(said.get("cause") or said.get("detail") or f"answered with status {status}")
    sets, accused = said.get("sets"), said.get("culprits")
    return Problem(
        status,
        _line(said.get("code", ""), 64),
        cause,
        _line(said.get("remedy", "")),
        retry_after(headers.get("retry-after", "")),
        tuple(name for name in sets if isinstance(name, str))[:64] if isinstance(sets, list) else (),
        _clock(headers.get("date", "")),
        tuple(i for i in range(3) if isinstance(accused, list) and i in accused),
    )


def retry_after(text: str) -> float | None:
    """Seconds that a Retry-After header asks to wait, a number or a date; None for none or a malformed one."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _LONGEST_WAIT_S)
    ahead = _clock(text)
    return None if ahead is None else min(max(0.0, ahead), _LONGEST_WAIT_S)


def _clock(date: str) -> float | None:
    """Seconds from now to an HTTP date."""
    try:
        return email.utils.parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


def _line(value: object, limit: int = 500) -> str:
    """One printable line of what a gateway said."""
    return "".join(c if c.isprintable() else " " for c in str(value)[:limit])
