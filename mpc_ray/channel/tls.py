"""The channel over mutual TLS 1.3: one connection a direction, 256 KB a system call, a sender thread a peer.

One connection a direction, because OpenSSL does not allow two threads on one SSL object. Frames up to
``SMALL`` are written by the calling thread itself, larger ones by the peer's thread, so that three parties
that all send at once never wait for one another. TLS runs over memory buffers: many records leave in one
system call. Cost: 1.3 ns a byte, both ends.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from mpc_ray.channel.framed import SLOWEST, FramedChannel
from mpc_ray.channel.interface import Writer, remaining
from mpc_ray.errors import CertificateError, ChannelError

SMALL = 1 << 16
"""Frames up to this many bytes are written by the calling thread when the peer's thread is idle."""
BATCH = 1 << 18
"""Plaintext bytes encrypted before they leave in one system call. Never one huge write: a growing BIO is
quadratic.
"""
RECORD = 1 << 14
RECORD_OVERHEAD = 22
"""Bytes TLS 1.3 adds to each record: 5 of header, 1 of type, 16 of tag."""
QUEUE = 64
"""Frames that may wait for one peer's thread."""


class TlsStream:
    """One direction of one pair (a ``Stream``). The constructor does the handshake, before ``end``.

    ``name`` is the name the other end's certificate must carry when we dial; an acceptor passes ``None``
    and compares ``names()`` with the claim in HELLO. Raises ``ssl.SSLError``, ``OSError``, ``EOFError``,
    ``TimeoutError``.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str | None, end: float) -> None:
        self.records = 0
        self._sock = sock
        self._broken = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._buffer = memoryview(bytearray(BATCH))
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=name is None, server_hostname=name
        )
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.watch(10.0)
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._drain(end)
                self._fill(end)
            except ssl.SSLError:
                self._drain(end)  # the alert that tells the other end why
                raise
        self._drain(end)

    def watch(self, silence: float) -> None:
        """Let the kernel find a dead network: probes after 5 s of idleness, given up after ``silence`` s
        unanswered.

        On a connection that we write to, ``silence`` must be the channel's time-out: the kernel also gives up
        when a busy peer does not read for that long.
        """
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        options = {
            "TCP_KEEPIDLE": 5,
            "TCP_KEEPINTVL": 2,
            "TCP_KEEPCNT": 3,
            "TCP_USER_TIMEOUT": int(silence * 1000),
        }
        for option, value in options.items():
            if hasattr(socket, option):  # not every system has every one; deadlines hold without them
                self._sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def names(self) -> tuple[str, ...]:
        """The DNS names in the other end's certificate."""
        return self._alternative_names("DNS")

    def uris(self) -> tuple[str, ...]:
        """The URIs in the other end's certificate: which federation, set and party it was made for."""
        return self._alternative_names("URI")

    def certificate(self) -> bytes:
        """The other end's certificate (DER), verified against the authority."""
        return self._tls.getpeercert(binary_form=True) or b""

    def _alternative_names(self, kind: str) -> tuple[str, ...]:
        certificate = self._tls.getpeercert() or {}
        return tuple(str(entry[1]) for entry in certificate.get("subjectAltName", ()) if entry[0] == kind)

    def alive(self) -> bool:
        """Whether the other end has not closed, as far as the kernel knows. Reads nothing."""
        self._sock.settimeout(0)
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def send(self, parts: Sequence[memoryview], end: float) -> None:
        """Encrypt and write all parts; header and payload leave together."""
        if self._broken:
            raise BrokenPipeError(32, "an earlier write failed")
        self._broken = True  # until all is written: half a record would make the next one unreadable
        if sum(map(len, parts)) <= RECORD:
            parts = (memoryview(b"".join(parts)),)  # one record instead of several
        for part in parts:
            for start in range(0, len(part), BATCH):
                piece = part[start : start + BATCH]
                self.records += -(-len(piece) // RECORD)
                while piece:
                    piece = piece[self._tls.write(piece) :]
                if self._outgoing.pending >= BATCH:
                    self._drain(end)
        self._drain(end)
        self._broken = False

    def receive(self, into: memoryview, end: float) -> None:
        """Fill ``into``. Decrypts first: plaintext that waits inside the SSL object is not seen by the
        socket.
        """
        got = 0
        while got < len(into):
            try:
                taken = _read_into(self._tls, into[got:])
            except ssl.SSLWantReadError:
                self._fill(end)
                continue
            if not taken:
                raise EOFError("the other end closed")
            got += taken

    def shutdown(self) -> None:
        """Shut the raw socket: the SSL object belongs to another thread."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:  # already shut or never connected
            pass

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _drain(self, end: float) -> None:
        if self._outgoing.pending:
            self._sock.settimeout(remaining(end))
            self._sock.sendall(self._outgoing.read())

    def _fill(self, end: float) -> None:
        self._sock.settimeout(remaining(end))
        count = self._sock.recv_into(self._buffer)
        if not count:
            raise EOFError("the other end closed")
        self._incoming.write(self._buffer[:count])


class ThreadedOutlet:
    """A thread and a bounded queue for one peer; small frames bypass both while the thread is idle.

    The queue holds references, not copies. A program that sends many small frames without ever receiving
    would block in the bypass when the kernel's buffers are full: lock-step protocols do not.
    """

    def __init__(
        self, peer: int, stream: Writer, timeout: float, failed: Callable[[BaseException], object]
    ) -> None:
        self._stream = stream
        self._timeout = timeout
        self._failed = failed
        self._jobs: deque[tuple[Sequence[memoryview], int]] = deque()
        self._unsent = 0
        self._unsent_bytes = 0
        self._stopped = False
        self._change = threading.Condition()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"send to party {peer}", daemon=True)
        self._thread.start()

    def put(self, job: Sequence[memoryview], nbytes: int) -> None:
        """Write small frames now; queue others. ``TimeoutError`` if the queue stays full."""
        if nbytes <= SMALL and not self._unsent:
            with self._writing:
                self._stream.send(job, time.monotonic() + self._timeout)
            return
        with self._change:
            if not self._change.wait_for(lambda: self._stopped or self._unsent < QUEUE, self._timeout):
                raise TimeoutError("the queue stayed full")
            if self._stopped:
                raise BrokenPipeError(32, "the connection is closed")
            self._jobs.append((job, nbytes))
            self._unsent += 1
            self._unsent_bytes += nbytes
            self._change.notify_all()

    def flush(self, end: float) -> None:
        """Wait for the thread until ``end``, and longer by the time the queue may take."""
        with self._change:
            patience = end - time.monotonic() + self._unsent_bytes / SLOWEST
            if not self._change.wait_for(lambda: self._stopped or not self._unsent, patience):
                raise TimeoutError("the peer does not read")

    def last_words(self, job: Sequence[memoryview]) -> None:
        """Write ``job`` unless a write is under way."""
        if self._writing.acquire(blocking=False):
            try:
                self._stream.send(job, time.monotonic() + 0.05)
            except (OSError, EOFError):  # cannot: the peer sees the shutdown instead
                pass
            finally:
                self._writing.release()

    def stop(self) -> None:
        """End the thread."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._stopped or bool(self._jobs))
                if self._stopped:
                    return
                job, nbytes = self._jobs.popleft()
            try:
                with self._writing:
                    self._stream.send(job, time.monotonic() + self._timeout + nbytes / SLOWEST)
            except Exception as error:  # noqa: BLE001  # it ends the channel: raised there
                self._failed(error)
                with self._change:
                    self._stopped = True
                    self._change.notify_all()
                return
            job = ()  # the caller's buffers are free again
            with self._change:
                self._unsent -= 1
                self._unsent_bytes -= nbytes
                self._change.notify_all()


def tls_channel(
    me: int,
    session: bytes,
    outgoing: Mapping[int, TlsStream],
    incoming: Mapping[int, TlsStream],
    timeout: float,
) -> FramedChannel:
    """A channel over connected streams whose ends have exchanged HELLO. ``timeout`` (s) bounds every wait."""
    for stream in outgoing.values():
        stream.watch(max(10.0, timeout))

    def outlet(peer: int, stream: Writer, failed: Callable[[BaseException], object]) -> ThreadedOutlet:
        return ThreadedOutlet(peer, stream, timeout, failed)

    return FramedChannel(me, session, outgoing, incoming, outlet, timeout)


def _read_into(tls: ssl.SSLObject, buffer: memoryview) -> int:
    read: Callable[[int, memoryview], int] = tls.read  # type: ignore[assignment]  # given a buffer, it counts
    return read(len(buffer), buffer)


_AUTHORITY = "was issued by another authority"
_REMEDY = "all parties and clients of a session must use certificates made together"
_VERIFY = {9: "is not valid yet", 10: "has expired", 62: "is another name's"}
_ALERTS = {"CERTIFICATE_EXPIRED": "has expired", "UNKNOWN_CA": _AUTHORITY, "DECRYPT_ERROR": _AUTHORITY}


def tls_error(peer: str, error: ssl.SSLError) -> ChannelError:
    """A failed handshake with ``peer`` as an error that says whose certificate is wrong, and how."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _VERIFY:
            fault = _VERIFY[error.verify_code]
        elif error.verify_code in (7, 18, 19, 20, 21):
            fault = _AUTHORITY
        else:
            fault = f"does not verify: {error.verify_message}"
        renew = "make certificates anew; check the clocks" if error.verify_code in (9, 10) else _REMEDY
        return CertificateError(f"{peer}: its certificate {fault}", remedy=renew)
    reason = error.reason or "unknown reason"
    for alert, fault in _ALERTS.items():
        if alert in reason:
            return CertificateError(f"{peer}: refused our certificate: it {fault}", remedy=_REMEDY)
    if "CERTIFICATE" in reason:
        return CertificateError(f"{peer}: no acceptable certificate ({reason})", remedy=_REMEDY)
    return ChannelError(
        f"{peer}: TLS handshake failed: {reason}", remedy="is that address an mpc-ray party's?"
    )
