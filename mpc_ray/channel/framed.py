"""The channel's body, the same over TLS and in one process: frames, checks, deadlines, and how it fails.

Rules it keeps: every wait has a deadline; nothing is allocated from a length the peer sent; no stream is
used by two threads at once; whoever fails tells its peers who was the cause and shuts everything down, so
that the two others know within milliseconds; the first error wins and every later call raises it again.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mpc_ray.channel import frame
from mpc_ray.channel.interface import Outlet, Stream, Writer
from mpc_ray.channel.meter import Meter
from mpc_ray.errors import BadFrame, ChannelError, CheatingDetected, MpcError, PeerLost

SLOWEST = 1_000_000
"""Bytes a second below which a connection counts as dead: long frames get this much more time."""

RECORDS_A_KEY = 1 << 23
"""Dial again after this many TLS records: AES-GCM allows 2^24.5 under one key (RFC 8446, 5.5), and
OpenSSL never rekeys.
"""

CHEATED = 16
"""In a fault notice's step: a check failed; the low bits say which parties are possible culprits."""

_GRACE = 0.25  # seconds a failed sender waits for the receiving thread, which may learn the true cause
_DRAIN = 1 << 16

MakeOutlet = Callable[[int, Writer, Callable[[BaseException], object]], Outlet]


class FramedChannel:
    """A ``Channel`` over one stream a direction and peer.

    ``timeout`` (seconds) bounds every wait, plus one second for each ``SLOWEST`` bytes of the frame. It
    must exceed the longest computation between two rounds. ``make_outlet(peer, stream, failed)`` decides
    which thread sends.
    """

    def __init__(
        self,
        me: int,
        session: bytes,
        outgoing: Mapping[int, Stream],
        incoming: Mapping[int, Stream],
        make_outlet: MakeOutlet,
        timeout: float,
    ) -> None:
        self.me = me
        self.meter = Meter()
        self.timeout = timeout
        self._session = session
        self._job = bytes(16)
        self._attempt = 0
        self._step = 0  # of the last frame that was sent or waited for
        self._outgoing = dict(outgoing)
        self._incoming = dict(incoming)
        self._head = memoryview(bytearray(frame.HEADER_BYTES))
        self._receiving = threading.Lock()
        self._failing = threading.Lock()
        self._failed = threading.Event()
        self._error: MpcError | None = None
        self._closed = False
        self._accused: int | None = None  # whose frame could not be right
        self._outlets = {
            peer: make_outlet(peer, _Watched(peer, stream, self.meter), partial(self._unsent, peer))
            for peer, stream in outgoing.items()
        }

    def begin(self, job: bytes, attempt: int) -> None:
        """Start a job (16 bytes) and attempt: later frames carry them, and no others are accepted."""
        self._raise_error()
        if len(job) != 16 or not 0 <= attempt < 1 << 16:
            raise ChannelError("a job is named by 16 bytes and its attempt is at least 0 and below 65,536")
        self._job, self._attempt, self._step = bytes(job), attempt, 0

    def send(self, peer: int, step: int, clock: int, parts: Sequence[memoryview]) -> None:
        """Send one frame of 60 + sum of ``parts`` bytes. Raises ``PeerLost``, or the error that ended the
        channel.
        """
        self._raise_error()
        self._step = step
        length = sum(map(len, parts))
        head = frame.pack(frame.Header(self._session, self._job, self._attempt, step, clock, length))
        try:
            self._outlets[peer].put((memoryview(head), *parts), len(head) + length)
        except (OSError, EOFError) as error:
            raise self._unsent(peer, error) from None
        self.meter.frame(peer, len(head), length, clock)

    def receive(self, peer: int, step: int, into: Sequence[memoryview]) -> int:
        """Receive this step's frame into buffers of its exact lengths; return its clock.

        Raises ``BadFrame`` before the payload is read if the header is not what it must be; ``PeerLost``
        if the peer closed, died, stayed silent past the deadline or reported another party lost.
        """
        self._raise_error()
        self._step = step
        length = sum(map(len, into))
        want = frame.Header(self._session, self._job, self._attempt, step, 0, length)
        end = self._end(length)
        try:
            with self._receiving:
                stream = self._incoming[peer]
                stream.receive(self._head, end)
                got = frame.unpack(self._head, f"party {peer}")
                if got.flags & frame.FAULT:
                    raise self._reported(peer, got.step)
                frame.compare(got, want, f"party {peer}")
                for part in into:
                    stream.receive(part, end)
        except (OSError, EOFError, MpcError) as error:
            if isinstance(error, BadFrame):
                self._accused = peer
            raise self._stop(channel_error(f"party {peer}", error, self.timeout)) from None
        self.meter.received(frame.HEADER_BYTES + length, got.clock)
        return got.clock

    def flush(self) -> None:
        """Wait until all frames are written; the deadline grows with what is waiting."""
        for peer, outlet in self._outlets.items():
            try:
                outlet.flush(time.monotonic() + self.timeout)
            except TimeoutError as error:
                raise self._unsent(peer, error) from None
        self._raise_error()

    def worn(self) -> bool:
        """Whether a key has encrypted so many records that the parties should dial again before the next
        job.
        """
        return any(stream.records > RECORDS_A_KEY for stream in self._outgoing.values())

    def fail(self, error: BaseException) -> None:
        """End the channel: the first error is kept, the peers are told who was the cause, all waits end."""
        with self._failing:
            if self._error is not None:
                return
            if isinstance(error, MpcError):
                self._error = error
            else:  # its text may hold data; its type does not
                self._error = ChannelError(f"party {self.me} stopped: {type(error).__name__}")
        self._failed.set()
        notice = frame.pack(
            frame.Header(self._session, self._job, self._attempt, self._cause(self._error), 0, 0, frame.FAULT)
        )
        for outlet in self._outlets.values():
            outlet.last_words((memoryview(notice),))
        self._shutdown()

    def close(self) -> None:
        """Flush (at most ``timeout``), then close. Raises nothing: an error has been raised where it
        happened.
        """
        if self._closed:
            return
        self._closed = True
        if self._error is None:
            try:
                self.flush()
            except ChannelError:  # the peers are gone: closing is all that is left, and what was asked
                pass
        with self._failing:
            if self._error is None:
                self._error = ChannelError(f"party {self.me}: this channel is closed")
        self._failed.set()
        self._shutdown()
        for outlet in self._outlets.values():
            outlet.stop()
        with self._receiving:
            for stream in (*self._outgoing.values(), *self._incoming.values()):
                stream.close()

    def _end(self, nbytes: int) -> float:
        return time.monotonic() + self.timeout + nbytes / SLOWEST

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _shutdown(self) -> None:
        for stream in (*self._outgoing.values(), *self._incoming.values()):
            stream.shutdown()

    def _stop(self, error: MpcError) -> MpcError:
        self.fail(error)
        return self._error or error

    def _unsent(self, peer: int, error: BaseException) -> MpcError:
        """A frame could not be written. If the peer closed because it failed, learn why before blaming it."""
        cause: BaseException = error
        if isinstance(error, (OSError, EOFError)):
            if isinstance(error, TimeoutError):
                pass  # a peer that does not read has not closed: there is nothing to learn
            elif self._receiving.acquire(blocking=False):
                try:
                    cause = self._last_words_of(peer) or error
                finally:
                    self._receiving.release()
            else:
                self._failed.wait(_GRACE)
            cause = channel_error(f"party {peer}", cause, self.timeout)
        self.fail(cause)
        assert self._error is not None
        return self._error

    def _last_words_of(self, peer: int) -> MpcError | None:
        """Skip what the peer sent before it closed, up to its fault notice."""
        end = time.monotonic() + _GRACE
        scratch = memoryview(bytearray(_DRAIN))
        stream = self._incoming[peer]
        try:
            while True:
                stream.receive(self._head, end)
                got = frame.unpack(self._head, f"party {peer}")
                if got.flags & frame.FAULT:
                    return self._reported(peer, got.step)
                for start in range(0, got.length, _DRAIN):
                    stream.receive(scratch[: min(_DRAIN, got.length - start)], end)
        except (OSError, EOFError, ChannelError):  # no last words: the peer itself is the cause
            return None

    def _reported(self, peer: int, said: int) -> MpcError:
        """The error that a peer's fault notice stands for, and the step that this party was at.

        Whom it accuses is its word: it may be the culprit.
        """
        when = f", before step {self._step}"
        if said & CHEATED:
            named = {party for party in range(3) if said >> party & 1} | {peer}
            culprits = tuple(sorted(named - {self.me}))
            who = " or ".join(f"party {party}" for party in culprits)
            return CheatingDetected(
                f"{who}: a check failed{when}, as party {peer} reports", culprits, second_hand=True
            )
        return _lost(peer, said, when)

    def _cause(self, error: MpcError) -> int:
        """What a fault notice says: the party that is the cause, or ``CHEATED`` and a bit for each possible culprit."""
        if isinstance(error, CheatingDetected):
            return CHEATED | sum(1 << party for party in error.culprits)
        if isinstance(error, BadFrame) and self._accused is not None:
            return self._accused
        if isinstance(error, PeerLost):
            for peer in self._outgoing:
                if error.peer == f"party {peer}":
                    return peer
        return self.me


class _Watched:
    """An outlet's stream: ``meter.written`` hears when it wrote."""

    def __init__(self, peer: int, stream: Stream, meter: Meter) -> None:
        self._peer, self._stream, self._meter = peer, stream, meter

    def send(self, parts: Sequence[memoryview], end: float) -> None:
        """As the stream."""
        hear = self._meter.written
        if hear is None:
            self._stream.send(parts, end)
            return
        begin = time.perf_counter()
        self._stream.send(parts, end)
        hear(self._peer, begin, time.perf_counter())


def channel_error(peer: str, error: BaseException, timeout: float) -> MpcError:
    """The error a caller sees for what went wrong on a connection with ``peer``."""
    if isinstance(error, MpcError):
        return error
    if isinstance(error, EOFError):
        return PeerLost(
            peer,
            "closed its connection",
            remedy="see its log for why it stopped; the session starts it again",
        )
    if isinstance(error, ssl.SSLError):
        return ChannelError(
            f"{peer}: TLS failed: {error.reason or 'unknown reason'}", remedy="start the session again"
        )
    if isinstance(error, TimeoutError):
        return PeerLost(
            peer,
            f"silent for {timeout:g} s",
            remedy="is it alive and reachable? a slow machine needs a longer timeout",
        )
    if isinstance(error, OSError):
        return PeerLost(
            peer,
            f"connection broke: {error.strerror or type(error).__name__}",
            remedy="see its log for why it stopped",
        )
    return ChannelError(
        f"{peer}: {type(error).__name__} while sending", remedy="run with --debug and report this"
    )


def _lost(peer: int, culprit: int, when: str) -> PeerLost:
    if culprit == peer or culprit > 2:
        return PeerLost(f"party {peer}", f"stopped with an error of its own{when}", remedy="see its log")
    return PeerLost(
        f"party {culprit}", f"lost{when}, as party {peer} reports", remedy="see its log for why it stopped"
    )
