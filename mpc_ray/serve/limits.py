"""Rates and quotas of API keys, counted in the memory of whoever owns the gateway's state."""

from __future__ import annotations

import time
from math import ceil

from limits import RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter

from mpc_ray.errors import Overloaded
from mpc_ray.serve.apikeys import ApiKey


class RateExceeded(Overloaded):
    """More requests a minute than the key may make."""

    code = "rate"


class QuotaExceeded(Overloaded):
    """More tokens a day than the key may send."""

    code = "quota"


class Rates:
    """Counts requests (moving window of a minute) and tokens (per day, UTC). Cost: about 20 µs a request.

    Counts are lost with the process: a restart gives a key at most one more day's tokens.
    """

    def __init__(self) -> None:
        storage = MemoryStorage()
        self._requests = MovingWindowRateLimiter(storage)
        self._tokens = FixedWindowRateLimiter(storage)

    def request(self, key: ApiKey) -> None:
        """Count one request, whatever becomes of it.

        Raises RateExceeded, with the seconds until the next is allowed; QuotaExceeded if no token is left today.
        """
        item = RateLimitItemPerMinute(key.per_minute)
        if not self._requests.hit(item, key.id):
            wait = self._requests.get_window_stats(item, key.id).reset_time - time.time()
            raise RateExceeded(
                f"this API key may make {key.per_minute} requests a minute",
                remedy="slow down, or ask the gateway's operator for a higher rate",
                retry_after_s=max(1.0, float(ceil(wait))),
            )
        if key.tokens_per_day:
            day = RateLimitItemPerDay(key.tokens_per_day)
            if not self._tokens.test(day, key.id):
                raise self._used_up(key, day)

    def tokens(self, key: ApiKey, count: int) -> None:
        """Count ``count`` tokens, padding included. Raises QuotaExceeded, and counts nothing then."""
        if key.tokens_per_day == 0:
            return
        item = RateLimitItemPerDay(key.tokens_per_day)
        if not self._tokens.hit(item, key.id, cost=count):
            raise self._used_up(key, item)

    def _used_up(self, key: ApiKey, item: RateLimitItemPerDay) -> QuotaExceeded:
        wait = self._tokens.get_window_stats(item, key.id).reset_time - time.time()
        return QuotaExceeded(
            f"this API key may send {key.tokens_per_day:,} tokens a day, padding included",
            remedy="wait until tomorrow, or ask the gateway's operator for a larger quota",
            retry_after_s=max(1.0, float(ceil(wait))),
        )
