"""How long certificates and directories are still valid, as doctor's lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from mpc_ray.cli.checks import Check
from mpc_ray.trust.dates import RENEW, dates

WARN_DAYS = 30
_DAY = 86400


def certificate(path: Path, name: str = "certificate", renew: str = RENEW) -> Iterator[Check]:
    """The dates of a certificate file, where there is one; ``ConfigError`` if it holds none."""
    if not path.exists():
        return
    begin, end = dates(path, f"the {name}")
    now = time.time()
    if end <= now:
        yield Check(name, "fail", f"expired on {_day(end)}", f"{renew}; or set the clock")
    elif begin > now:
        yield Check(name, "fail", f"is valid from {_day(begin)} only", "set the clock")
    else:
        yield left(name, end, renew)


def left(name: str, end: float, renew: str = RENEW) -> Check:
    """Days until ``end``, POSIX seconds: a warning where they are few."""
    days = (end - time.time()) / _DAY
    if days < WARN_DAYS:
        return Check(name, "warn", f"expires in {days:.0f} days", renew)
    return Check(name, "ok", f"valid for {days:.0f} days")


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
