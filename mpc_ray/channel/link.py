"""Messages between a client and one party: a JSON header and named tensors, over TLS or within one process.

    magic 4 · version 1 · pad 3 · header bytes 4 · pad 4 · tensor bytes 8
    · JSON {"header", "tensors": [[name, dtype, shape]]} · raw data

All sizes are checked against the limits before memory is taken. Shares travel here, so nothing of a message
is ever put into an error. Each end may send in one thread and receive in another: there is one stream a
direction.
"""

from __future__ import annotations

import json
import math
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpc_ray.channel.framed import SLOWEST, channel_error
from mpc_ray.channel.interface import Stream, byte_view
from mpc_ray.channel.local import LocalStream
from mpc_ray.errors import BadFrame, ChannelError, InputError

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Tensor: TypeAlias = npt.NDArray[Any]

MAGIC = b"MPCM"
VERSION = 1
_HEAD = struct.Struct("<4sB3xI4xQ")
DEFAULT_MAX_BYTES = 4 << 30
MAX_HEADER = 1 << 20
MAX_TENSORS = 4096
MAX_DIMENSIONS = 8
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64".split()
}
STALL = 60.0
"""Seconds a message that has begun may take, and one more for each ``SLOWEST`` bytes."""


@dataclass(frozen=True)
class Message:
    """``header``: what JSON can say. ``tensors``: by name, dtypes of ``DTYPES``, any shape up to 8
    dimensions. Its text form has neither: a message carries shares and the seeds of shares.
    """

    header: dict[str, JSON] = field(repr=False)
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)


class Link:
    """One end of a client's connection with a party. ``peer`` is the other end's name for errors ("party
    1", "client").

    ``max_bytes`` bounds the tensors of a message both ways. After an error other than ``InputError`` it is
    closed.
    """

    def __init__(
        self, peer: str, outgoing: Stream, incoming: Stream, *, max_bytes: int = DEFAULT_MAX_BYTES
    ) -> None:
        self.peer = peer
        self.max_bytes = max_bytes
        self._outgoing = outgoing
        self._incoming = incoming
        self._sending = threading.Lock()
        self._receiving = threading.Lock()
        self._closed = False

    def send(self, message: Message) -> None:
        """Send a message whole. ``InputError`` if it breaks a limit (nothing is sent then); ``PeerLost``."""
        self._still_open()
        tensors = {name: np.asarray(value, order="C") for name, value in message.tensors.items()}
        described = [[name, _dtype_name(name, value), list(value.shape)] for name, value in tensors.items()]
        text = json.dumps({"header": message.header, "tensors": described}, separators=(",", ":")).encode()
        data = [byte_view(value) for value in tensors.values()]
        nbytes = sum(map(len, data))
        if nbytes > self.max_bytes:
            raise InputError(
                f"a message of {nbytes:,} bytes is above the limit of {self.max_bytes:,}",
                remedy="send less at once, or raise it",
            )
        if len(text) > MAX_HEADER or len(tensors) > MAX_TENSORS:
            raise InputError(
                f"a message's header may have {MAX_HEADER:,} bytes and {MAX_TENSORS:,} tensors",
                remedy="send less at once",
            )
        head = _HEAD.pack(MAGIC, VERSION, len(text), nbytes)
        try:
            with self._sending:
                end = time.monotonic() + STALL + nbytes / SLOWEST
                self._outgoing.send((memoryview(head), memoryview(text), *data), end)
        except (OSError, EOFError) as error:
            raise self._lost(error, STALL) from None

    def receive(self, timeout: float | None) -> Message:
        """The next message. It must begin within ``timeout`` s (``None``: wait for ever; an end that dies
        still ends the wait).

        Raises ``PeerLost`` naming the other end, ``BadFrame`` for a message that breaks a limit or is
        malformed.
        """
        self._still_open()
        head = memoryview(bytearray(_HEAD.size))
        try:
            with self._receiving:
                self._incoming.receive(head, math.inf if timeout is None else time.monotonic() + timeout)
                text_bytes, nbytes = self._check_head(head)
                end = time.monotonic() + STALL + nbytes / SLOWEST
                text = bytearray(text_bytes)
                self._incoming.receive(memoryview(text), end)
                header, shapes = self._check_text(text, nbytes)
                tensors = {}
                for name, (dtype, shape) in shapes.items():
                    tensors[name] = np.empty(shape, dtype)
                    self._incoming.receive(byte_view(tensors[name]), end)
                    if dtype.kind == "b" and (tensors[name].view(np.uint8) > 1).any():
                        raise BadFrame(f"{self.peer}: a bool tensor holds bytes other than 0 and 1")
        except (OSError, EOFError, ChannelError) as error:
            raise self._lost(error, STALL if timeout is None else timeout) from None
        return Message(header, tensors)

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

    def _lost(self, error: BaseException, timeout: float) -> ChannelError:
        if self._closed:
            return ChannelError(f"{self.peer}: this link is closed")
        self.close()
        return channel_error(self.peer, error, timeout)

    def _check_head(self, head: memoryview) -> tuple[int, int]:
        magic, version, text_bytes, nbytes = _HEAD.unpack(head)
        if magic != MAGIC or version != VERSION:
            raise BadFrame(
                f"{self.peer}: not a message of version {VERSION}",
                remedy="install the same release at both ends",
            )
        if nbytes > self.max_bytes or text_bytes > MAX_HEADER:
            raise BadFrame(
                f"{self.peer}: announces a message of {text_bytes:,} + {nbytes:,} bytes, above the limit of "
                f"{MAX_HEADER:,} + {self.max_bytes:,}",
                remedy="send less at once, or raise the limit at both ends",
            )
        return text_bytes, nbytes

    def _check_text(
        self, text: bytearray, nbytes: int
    ) -> tuple[dict[str, JSON], dict[str, tuple[np.dtype[Any], tuple[int, ...]]]]:
        try:
            parsed = json.loads(text)
            header, described = parsed["header"], parsed["tensors"]
            if (
                not isinstance(header, dict)
                or not isinstance(described, list)
                or len(described) > MAX_TENSORS
            ):
                raise TypeError
            shapes = {}
            for name, dtype, shape in described:
                if not isinstance(name, str) or name in shapes or dtype not in DTYPES or not _is_shape(shape):
                    raise TypeError
                shapes[name] = (DTYPES[dtype], tuple(shape))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise BadFrame(
                f"{self.peer}: a message whose header is malformed, or names an unknown dtype"
            ) from None
        described_bytes = sum(dtype.itemsize * math.prod(shape) for dtype, shape in shapes.values())
        if described_bytes != nbytes:
            raise BadFrame(
                f"{self.peer}: a message describes {described_bytes:,} bytes and announces {nbytes:,}"
            )
        return header, shapes


def local_link(party: int, *, max_bytes: int = DEFAULT_MAX_BYTES) -> tuple[Link, Link]:
    """The client's end and ``party``'s end of a link within one process."""
    to_party, to_client = LocalStream(), LocalStream()
    client_end = Link(f"party {party}", to_party, to_client, max_bytes=max_bytes)
    return client_end, Link("client", to_client, to_party, max_bytes=max_bytes)


def _dtype_name(name: str, value: Tensor) -> str:
    for known, dtype in DTYPES.items():
        if value.dtype == dtype:
            return known
    raise InputError(
        f"tensor {name!r} has dtype {value.dtype}, which a message cannot carry",
        remedy=f"use {', '.join(DTYPES)}",
    )


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(size) is int and size >= 0 for size in shape)
        and math.prod(max(size, 1) for size in shape) < 1 << 48
    )
