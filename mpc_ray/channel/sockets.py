"""Between two processes of one machine: links over Unix sockets, and packets that carry open connections along.

Only for sockets in a folder that nobody else may enter (mode 0700): what goes over them is not encrypted. A *packet*
is one JSON object in one datagram (SOCK_SEQPACKET keeps their order and bounds), with the file descriptors that it
hands over (SCM_RIGHTS).
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mpc_ray.channel.link import DEFAULT_MAX_BYTES, Link
from mpc_ray.errors import BadFrame, ConfigError

MAX_PACKET = 1 << 16
MAX_FILES = 4
_SEND_S = struct.pack("ll", 5, 0)
_PEER = struct.Struct("3i")  # pid, uid, gid
_LONGEST_PATH = 107  # bytes of a Unix socket's path


class SocketStream:
    """A connected socket as a ``Stream``, in both directions: one thread may send while another receives."""

    def __init__(self, sock: socket.socket) -> None:
        self.records = 0  # nothing is encrypted
        sock.setblocking(False)
        self._sock = sock

    def send(self, parts: Sequence[memoryview], end: float) -> None:
        """Write all parts. ``TimeoutError``, ``OSError``."""
        for part in parts:
            rest = part
            while rest:
                try:
                    rest = rest[self._sock.send(rest) :]
                except BlockingIOError:
                    self._wait(select.POLLOUT, end)

    def receive(self, into: memoryview, end: float) -> None:
        """Fill ``into``. ``TimeoutError``, ``OSError``, or ``EOFError`` when the other end closed."""
        got = 0
        while got < len(into):
            try:
                count = self._sock.recv_into(into[got:])
            except BlockingIOError:
                self._wait(select.POLLIN, end)
                continue
            if not count:
                raise EOFError("the other end closed")
            got += count

    def shutdown(self) -> None:
        """Wake whoever waits, at both ends."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other end has left, or it is closed already
            pass

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _wait(self, event: int, end: float) -> None:
        poll = select.poll()
        poll.register(self._sock, event)
        left = None if math.isinf(end) else max(0.0, end - time.monotonic()) * 1000
        if not poll.poll(left):
            raise TimeoutError("deadline passed")


def socket_link(peer: str, sock: socket.socket, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Link:
    """A link over a connected socket within this machine. ``peer`` is the other end's name for errors."""
    stream = SocketStream(sock)
    return Link(peer, stream, stream, max_bytes=max_bytes)


class Packets:
    """One end of a packet connection. Several threads may send; one receives."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _SEND_S)  # a stopped process holds nobody up
        self._sock = sock
        self._sending = threading.Lock()

    @staticmethod
    def dial(path: Path) -> Packets:
        """Connect to a ``packet_listener``. ``OSError`` if nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(str(path))
        except BaseException:
            sock.close()
            raise
        return Packets(sock)

    def send(self, content: Mapping[str, Any], files: Sequence[socket.socket] = ()) -> None:
        """Send an object, and connections to hand over: close yours afterwards. ``OSError`` if the other end left."""
        data = json.dumps(content, separators=(",", ":")).encode()
        if len(data) > MAX_PACKET or len(files) > MAX_FILES:
            raise BadFrame(f"a packet of {len(data)} bytes and {len(files)} files is too large")
        with self._sending:
            socket.send_fds(self._sock, [data], [file.fileno() for file in files])

    def receive(self, timeout: float | None = None) -> tuple[dict[str, Any], list[socket.socket]]:
        """The next object and what came with it.

        Raises ``EOFError`` when the other end left, ``TimeoutError``, ``BadFrame``.
        """
        self._sock.settimeout(timeout)
        data, descriptors, flags, _ = socket.recv_fds(self._sock, MAX_PACKET + 1, MAX_FILES)
        files = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        try:
            if not data:
                raise EOFError("the other end closed")
            content = json.loads(data)
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or not isinstance(content, dict):
                raise ValueError
        except BaseException as error:
            for file in files:
                file.close()
            if isinstance(error, ValueError):
                raise BadFrame("a packet that is no JSON object") from None
            raise
        return content, files

    def peer(self) -> tuple[int, int]:
        """Process id and user id of the other end, as the kernel knows them."""
        raw = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
        pid, uid, _ = _PEER.unpack(raw)
        return pid, uid

    def close(self) -> None:
        """Leave; the other end sees it at once. Any thread may call it, more than once."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other end has left already
            pass
        self._sock.close()


def packet_listener(path: Path) -> socket.socket:
    """A listening socket for packets at ``path``, in a folder that is ours alone. ConfigError if it cannot be."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(
            f"the socket path {path} is longer than {_LONGEST_PATH} bytes",
            remedy="choose a shorter temporary folder",
        )
    mode = path.parent.stat().st_mode
    if mode & 0o077:
        raise ConfigError(
            f"others may enter {path.parent} (mode {mode & 0o777:o})", remedy=f"chmod 700 {path.parent}"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.bind(str(path))
        sock.listen(64)
    except BaseException:
        sock.close()
        raise
    return sock


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets: one to keep, one to hand over."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
