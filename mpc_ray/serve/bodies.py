"""One budget for the bodies of all requests that are under way: many callers together take no more memory than it says.

A body counts as its bytes come, so that nothing is held by announcing much and sending nothing, and until its request
is answered, since the sealed envelopes in it are kept until then. Who finds no room is refused at once: a caller that
waits would hold a connection and a place.
"""

from __future__ import annotations

from collections import Counter

from mpc_ray.errors import Overloaded

CLOSE = {"Connection": "close"}  # what is left unread must not be taken for the next request


class NoRoom(Overloaded):
    """The bodies of other requests have the memory that this one needs."""

    def __init__(self, whose: str) -> None:
        super().__init__(
            f"the requests of {whose} hold as much memory as they may",
            remedy="send this one again in a moment, or fewer at once",
            retry_after_s=2.0,
        )
        self.headers = CLOSE


class Bodies:
    """``total`` bytes for all callers, of which one API key has at most half, or one body of ``largest`` bytes.

    For one event loop.
    """

    def __init__(self, total: int, largest: int) -> None:
        self._total = total
        self._each = max(total // 2, largest)
        self._of: Counter[str] = Counter()
        self.taken = 0

    def room(self, key: str) -> Room:
        """The room that one request of ``key`` takes as it comes."""
        return Room(self, key)

    def check(self, key: str, nbytes: int) -> None:
        """Raise NoRoom if ``nbytes`` more would not fit now."""
        if self._of[key] + nbytes > self._each:
            raise NoRoom("this API key")
        if self.taken + nbytes > self._total:
            raise NoRoom("all callers together")

    def change(self, key: str, nbytes: int) -> None:
        """Count so many bytes more, or less."""
        self.taken += nbytes
        self._of[key] += nbytes
        if not self._of[key]:
            del self._of[key]


class Room:
    """What one request has taken of the budget."""

    def __init__(self, bodies: Bodies, key: str) -> None:
        self._bodies, self._key = bodies, key
        self.nbytes = 0

    def announced(self, nbytes: int) -> None:
        """Raise NoRoom if a body of ``nbytes`` would not fit now. Nothing is taken."""
        self._bodies.check(self._key, nbytes)

    def take(self, nbytes: int) -> None:
        """Take ``nbytes`` more. Raises NoRoom, and takes nothing then."""
        self._bodies.check(self._key, nbytes)
        self._bodies.change(self._key, nbytes)
        self.nbytes += nbytes

    def give_back(self) -> None:
        """Give back all that was taken."""
        self._bodies.change(self._key, -self.nbytes)
        self.nbytes = 0
