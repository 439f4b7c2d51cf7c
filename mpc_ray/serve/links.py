"""Links from a gateway to the front of one party: several, because a link answers one command at a time.

A ``Line`` is one link and the thread that speaks on it: dialled when first needed, dialled again after it broke.
A ``Front`` has the lines of one party: a few for ``submit`` and ``drop``, one for ``control`` (``status``,
``abort``), and one for each triple, which lives and dies with its link. Callers may be cancelled at any time; an
exchange that has begun is always finished, so that a line never answers the wrong question.

Every wait has a deadline. A party that cannot be reached is not dialled again for a while, longer each time and
by a random part, so that a gateway's many tasks do not storm a party that starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from mpc_ray.channel.link import JSON, Link, Message, Tensor
from mpc_ray.commands import error_of
from mpc_ray.errors import ChannelError, MpcError, PeerLost

Dial: TypeAlias = Callable[[float], Link]
"""Makes a link to one party, mutually authenticated, within the given seconds. Raises ChannelErrors."""

DIAL_S = 5.0
_GRACE_S = 1.0  # beyond a deadline, until a thread that still sits in a system call is cut off


class Backoff:
    """Growing pauses between attempts: from ``low`` to ``high`` seconds, doubled each time, times 0.5 to 1.5."""

    def __init__(self, low: float = 0.1, high: float = 5.0) -> None:
        self._low, self._high, self._failures = low, high, 0

    def failed(self) -> float:
        """Seconds to wait after one more failure."""
        pause = min(self._high, self._low * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return pause * (0.5 + secrets.randbelow(1000) / 1000)

    def succeeded(self) -> None:
        """Begin again with the shortest pause."""
        self._failures = 0


class Reach:
    """Whether a party may be dialled now; shared by all its lines, from several threads."""

    def __init__(self, party: int, dial: Dial, backoff: Backoff | None = None) -> None:
        self.party = party
        self._dial = dial
        self._backoff = backoff or Backoff()
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._last = ""

    def dial(self, end: float) -> Link:
        """A new link before ``end`` (``time.monotonic``). ``PeerLost`` at once where an attempt has just failed."""
        now = time.monotonic()
        with self._lock:
            if now < self._not_before:
                raise PeerLost(
                    f"party {self.party}",
                    self._last,
                    remedy="it is not dialled again for a few seconds; see that party's log if it lasts",
                )
        try:
            link = self._dial(max(0.1, round(min(DIAL_S, end - now), 1)))  # rounded: people read it in errors
        except MpcError as error:
            with self._lock:
                self._last = error.cause.removeprefix(f"party {self.party}: ")
                self._not_before = time.monotonic() + self._backoff.failed()
            raise
        with self._lock:
            self._backoff.succeeded()
            self._not_before = 0.0
        return link

    def at_once(self) -> None:
        """Forget the pause: there is news of the party."""
        with self._lock:
            self._not_before = 0.0


class Line:
    """One link to one party and its thread. ``purpose`` names the thread."""

    def __init__(self, reach: Reach, purpose: str) -> None:
        self.party = reach.party
        self._reach = reach
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{purpose}, party {self.party}")
        self._link: Link | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether a link is there, as far as we know."""
        return self._link is not None

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    async def ask(
        self, header: Mapping[str, JSON], tensors: Mapping[str, Tensor] | None = None, *, timeout: float
    ) -> Message:
        """One command and its answer within ``timeout`` seconds, the time in this line's queue and to dial included.

        Raises the error that the party answered (with its ``code``, if it has one), or ``PeerLost`` and other
        ``ChannelErrors``, which name the party; the link is closed then, and the next command dials a new one.
        """
        if self._closed:
            raise ChannelError(f"party {self.party}: this line is closed")
        end = time.monotonic() + timeout
        message = Message(dict(header), dict(tensors or {}))
        asked = asyncio.get_running_loop().run_in_executor(self._thread, self._exchange, message, end)
        asked.add_done_callback(_seen)
        done, _ = await asyncio.wait({asked}, timeout=timeout + _GRACE_S)
        if not done:
            self.cut()
            raise self._silent(timeout)
        return asked.result()

    def cut(self) -> None:
        """Close the link now: an exchange under way fails at once, the next one dials. Any thread may call it."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def close(self) -> None:
        """Cut, and accept no more. Does not wait for the thread."""
        self._closed = True
        self.cut()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _exchange(self, message: Message, end: float) -> Message:
        if time.monotonic() >= end:
            raise self._silent(0.0)
        link = self._link
        if link is None:
            link = self._reach.dial(end)
            self._link = link
            if self._closed:  # meanwhile
                self.cut()
        try:
            link.send(message)
            answer = link.receive(max(0.0, end - time.monotonic()))
        except ChannelError:
            if self._link is link:
                self._link = None
            link.close()
            raise
        if "error" in answer.header:
            raise error_of(self.party, answer.header)
        return answer

    def _silent(self, timeout: float) -> PeerLost:
        return PeerLost(
            f"party {self.party}",
            f"did not answer within {timeout:g} s",
            remedy="is it alive and reachable? see its log",
        )


class Front:
    """The lines of one party. ``submit_links`` bounds how many submissions are under way at once."""

    def __init__(self, party: int, dial: Dial, *, submit_links: int = 4) -> None:
        self.party = party
        self._reach = Reach(party, dial)
        self.control = Line(self._reach, "control")
        self._submitting = [Line(self._reach, "submit") for _ in range(submit_links)]
        self._free = list(self._submitting)
        self._room = asyncio.Semaphore(submit_links)
        self._triples: list[Line] = []

    async def submit(
        self, header: Mapping[str, JSON], tensors: Mapping[str, Tensor] | None = None, *, timeout: float
    ) -> Message:
        """One command on the first submit line that is free, within ``timeout`` s once there is one."""
        async with self._room:
            line = self._free.pop()  # the one used last: others need not even be dialled
            try:
                return await line.ask(header, tensors, timeout=timeout)
            finally:
                self._free.append(line)

    def line(self) -> Line:
        """A line for one triple. Close it when the triple ends: the party ends the triple with it."""
        line = Line(self._reach, "triple")
        self._triples = [one for one in self._triples if not one.closed] + [line]
        return line

    def cut(self) -> None:
        """Close every link now; what is under way fails, what comes dials at once: the party has gone or is new."""
        self._reach.at_once()
        for line in (self.control, *self._submitting, *self._triples):
            line.cut()

    def close(self) -> None:
        """Close every line for good."""
        for line in (self.control, *self._submitting, *self._triples):
            line.close()


def _seen(future: asyncio.Future[Message]) -> None:
    """An exchange whose caller has gone may fail without asyncio's complaint."""
    with contextlib.suppress(asyncio.CancelledError):
        future.exception()
