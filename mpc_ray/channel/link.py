"""Messages (``packed``) between a client and one party, over TLS or within one process.

Each end may send in one thread and receive in another: there is one stream a direction.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from mpc_ray.channel.framed import SLOWEST, channel_error
from mpc_ray.channel.interface import Stream
from mpc_ray.channel.local import LocalStream
from mpc_ray.channel.packed import (
    DEFAULT_MAX_BYTES,
    DTYPES,
    HEAD_BYTES,
    JSON,
    MAX_HEADER,
    Message,
    Tensor,
    contents,
    parts,
    sizes,
)
from mpc_ray.errors import ChannelError, MpcError

__all__ = ["DEFAULT_MAX_BYTES", "DTYPES", "JSON", "MAX_HEADER", "Link", "Message", "Tensor", "local_link"]

STALL = 60.0
"""Seconds a message that has begun may take, and one more for each ``SLOWEST`` bytes."""


class Link:
    """One end of a client's connection with a party. ``peer`` is the other end's name for errors ("party
    1", "client").

    ``max_bytes`` bounds the tensors of a message both ways; ``admit`` is called with the size of each that comes,
    before memory is taken for it, and may wait, or raise ``TimeoutError``. After an error other than ``InputError``
    it is closed.
    """

    def __init__(
        self,
        peer: str,
        outgoing: Stream,
        incoming: Stream,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        admit: Callable[[int], None] | None = None,
    ) -> None:
        self.peer = peer
        self.max_bytes = max_bytes
        self._admit = admit
        self._outgoing = outgoing
        self._incoming = incoming
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._closed = False

    def send(self, message: Message) -> None:
        """Send a message whole. ``InputError`` if it breaks a limit (nothing is sent then); ``PeerLost``."""
        self._still_open()
        pieces = parts(message, self.max_bytes)
        nbytes = sum(map(len, pieces))
        try:
            with self._sending:
                end = time.monotonic() + STALL + nbytes / SLOWEST
                self._outgoing.send(pieces, end)
        except (OSError, EOFError) as error:
            raise self._lost(error, STALL) from None

    def receive(self, timeout: float | None) -> Message:
        """The next message. It must begin within ``timeout`` s (``None``: wait for ever; an end that dies
        still ends the wait).

        Raises ``PeerLost`` naming the other end, ``BadFrame`` for a message that breaks a limit or is
        malformed.
        """
        self._still_open()
        head = memoryview(bytearray(HEAD_BYTES))
        try:
            with self._receiving:
                self._incoming.receive(head, math.inf if timeout is None else time.monotonic() + timeout)
                text_bytes, nbytes = sizes(head, self.peer, self.max_bytes)
                if self._admit is not None:
                    self._admit(text_bytes + nbytes)
                end = time.monotonic() + STALL + nbytes / SLOWEST
                return contents(text_bytes, nbytes, lambda into: self._incoming.receive(into, end), self.peer)
        except (OSError, EOFError, ChannelError) as error:
            raise self._lost(error, STALL if timeout is None else timeout) from None

    def close(self) -> None:
        """Close both directions; the other end sees it at once. Any thread may call it, more than once."""
        self._closed = True
        self._outgoing.shutdown()
        self._incoming.shutdown()
        with self._sending, self._receiving:
            self._outgoing.close()
            self._incoming.close()

    def _still_open(self) -> None:
        if self._closed:
            raise ChannelError(f"{self.peer}: this link is closed")

    def _lost(self, error: BaseException, timeout: float) -> MpcError:
        if self._closed:
            return ChannelError(f"{self.peer}: this link is closed")
        self.close()
        return channel_error(self.peer, error, timeout)


def local_link(party: int, *, max_bytes: int = DEFAULT_MAX_BYTES) -> tuple[Link, Link]:
    """The client's end and ``party``'s end of a link within one process."""
    to_party, to_client = LocalStream(), LocalStream()
    client_end = Link(f"party {party}", to_party, to_client, max_bytes=max_bytes)
    return client_end, Link("client", to_client, to_party, max_bytes=max_bytes)
