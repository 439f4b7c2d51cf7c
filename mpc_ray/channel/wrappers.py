"""Any channel, made slow, cut off, or attacked: for tests, and to measure what a distance between parties
costs.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from mpc_ray.channel.frame import HEADER_BYTES
from mpc_ray.channel.interface import Channel
from mpc_ray.channel.meter import Meter
from mpc_ray.errors import PeerLost

_STAMP = struct.Struct("<d")


class _Around:
    """A channel around another one that changes nothing: what the wrappers below start from."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.me = channel.me

    @property
    def meter(self) -> Meter:
        """The inner channel's counts."""
        return self._channel.meter

    @meter.setter
    def meter(self, meter: Meter) -> None:
        self._channel.meter = meter

    def begin(self, job: bytes, attempt: int) -> None:
        """As the inner channel."""
        self._channel.begin(job, attempt)

    def send(self, peer: int, step: int, clock: int, parts: Sequence[memoryview]) -> None:
        """As the inner channel."""
        self._channel.send(peer, step, clock, parts)

    def receive(self, peer: int, step: int, into: Sequence[memoryview]) -> int:
        """As the inner channel."""
        return self._channel.receive(peer, step, into)

    def flush(self) -> None:
        """As the inner channel."""
        self._channel.flush()

    def close(self) -> None:
        """As the inner channel."""
        self._channel.close()

    def worn(self) -> bool:
        """As the inner channel."""
        return self._channel.worn()

    def fail(self, error: BaseException) -> None:
        """As the inner channel."""
        self._channel.fail(error)


class Delayed(_Around):
    """A one-way ``latency_s`` and a bandwidth of ``bits_per_s`` for each direction of each pair (``None``:
    unlimited).

    A frame of n bytes reaches the inner channel 8 n / bits_per_s after the frame before it left, plus the
    latency. ``flush`` waits for all of them, so that the counts are exact after it; a job must end with it.
    """

    def __init__(self, channel: Channel, latency_s: float, bits_per_s: float | None = None) -> None:
        super().__init__(channel)
        self._lines = {
            peer: _Line(channel, peer, latency_s, bits_per_s) for peer in range(3) if peer != channel.me
        }

    def change(self, latency_s: float, bits_per_s: float | None) -> None:
        """Another link from now on; frames on their way arrive first."""
        self._drain()
        for line in self._lines.values():
            line.change(latency_s, bits_per_s)

    def begin(self, job: bytes, attempt: int) -> None:
        """Frames still on their way belong to the job before: wait for them."""
        self._drain()
        self._channel.begin(job, attempt)

    def send(self, peer: int, step: int, clock: int, parts: Sequence[memoryview]) -> None:
        """Put the frame on the line."""
        self._lines[peer].put(step, clock, tuple(parts))

    def flush(self) -> None:
        """Wait until every frame has arrived at the inner channel and left it."""
        self._drain()
        self._channel.flush()

    def close(self) -> None:
        """Deliver what is on its way, then close."""
        self._drain()
        for line in self._lines.values():
            line.stop()
        self._channel.close()

    def fail(self, error: BaseException) -> None:
        """End at once: what is on its way is lost."""
        for line in self._lines.values():
            line.stop()
        self._channel.fail(error)

    def _drain(self) -> None:
        for line in self._lines.values():
            line.drain()


class Reckoned(_Around):
    """A link whose time is reckoned instead of waited for: nothing is held back, and every frame says when it arrives.

    ``seconds``: since ``begin``, of a clock that only the processor's time of this process and the arrival of what is
    received move on. So other programs on the machine do not count, and parties do not share its cores. All three
    parties must have one; a frame carries 8 bytes more, which the meter counts. The process must be no other party's.
    """

    def __init__(self, channel: Channel, latency_s: float, bits_per_s: float | None = None) -> None:
        super().__init__(channel)
        self._latency, self._rate = latency_s, bits_per_s
        self._now = self._last = self._busy = 0.0
        self._free: dict[int, float] = {}
        self._start()

    def change(self, latency_s: float, bits_per_s: float | None) -> None:
        """Another link from now on."""
        self._latency, self._rate = latency_s, bits_per_s

    def begin(self, job: bytes, attempt: int) -> None:
        """A job's clock begins at 0."""
        self._start()
        self._channel.begin(job, attempt)

    def send(self, peer: int, step: int, clock: int, parts: Sequence[memoryview]) -> None:
        """The frame, and when it will be there."""
        self._tick()
        bits = 8 * (sum(map(len, parts)) + HEADER_BYTES)
        free = max(self._now, self._free.get(peer, 0.0)) + (bits / self._rate if self._rate else 0.0)
        self._free[peer] = free
        self._last = max(self._last, free + self._latency)
        stamp = memoryview(bytearray(_STAMP.pack(free + self._latency)))
        self._channel.send(peer, step, clock, (*parts, stamp))

    def receive(self, peer: int, step: int, into: Sequence[memoryview]) -> int:
        """The frame; not before it is there."""
        self._tick()
        stamp = memoryview(bytearray(_STAMP.size))
        theirs = self._channel.receive(peer, step, (*into, stamp))
        self._now = max(self._now, float(_STAMP.unpack(stamp)[0]))
        self._tick()
        return theirs

    @property
    def seconds(self) -> float:
        """Since the job began; what was sent has arrived."""
        self._tick()
        return max(self._now, self._last)

    def _start(self) -> None:
        self._now = self._last = 0.0
        self._busy = time.process_time()
        self._free = {}

    def _tick(self) -> None:
        busy = time.process_time()
        self._now, self._busy = self._now + busy - self._busy, busy


class _Line:
    """One direction of one pair: a thread that holds each frame back until its time."""

    def __init__(self, channel: Channel, peer: int, latency_s: float, bits_per_s: float | None) -> None:
        self._channel, self._peer = channel, peer
        self._latency, self._rate = latency_s, bits_per_s
        self._free = 0.0
        self._error: BaseException | None = None
        self._stopped = False
        self._frames: deque[tuple[float, int, int, Sequence[memoryview]]] = deque()
        self._change = threading.Condition()
        threading.Thread(target=self._run, name=f"line to party {peer}", daemon=True).start()

    def change(self, latency_s: float, bits_per_s: float | None) -> None:
        """Of frames that are put from now on."""
        with self._change:
            self._latency, self._rate = latency_s, bits_per_s

    def put(self, step: int, clock: int, parts: Sequence[memoryview]) -> None:
        """Time a frame: after the one before it has been serialised."""
        with self._change:
            if self._error is not None:
                raise self._error
            bits = 8 * (sum(map(len, parts)) + HEADER_BYTES)
            self._free = max(time.monotonic(), self._free) + (bits / self._rate if self._rate else 0.0)
            self._frames.append((self._free + self._latency, step, clock, parts))
            self._change.notify_all()

    def drain(self) -> None:
        """Wait until the line is empty; ends early when it has failed."""
        with self._change:
            self._change.wait_for(lambda: self._stopped or self._error is not None or not self._frames)

    def stop(self) -> None:
        """Drop what is on the line."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._stopped or bool(self._frames))
                if self._stopped:
                    return
                due, step, clock, parts = self._frames[0]
                if (left := due - time.monotonic()) > 0:
                    self._change.wait(left)
                    continue
            try:
                self._channel.send(self._peer, step, clock, parts)
            except Exception as error:  # noqa: BLE001  # kept: the next send raises it, and so does the inner channel
                with self._change:
                    self._error = error
                    self._change.notify_all()
                return
            with self._change:
                self._frames.popleft()
                self._change.notify_all()


class CutOff(_Around):
    """The party vanishes: before its frame number ``after_frames`` + 1, or before its first frame of
    ``at_step``.
    """

    def __init__(
        self, channel: Channel, *, after_frames: int | None = None, at_step: int | None = None
    ) -> None:
        super().__init__(channel)
        self._after = after_frames
        self._step = at_step
        self._frames = 0

    def send(self, peer: int, step: int, clock: int, parts: Sequence[memoryview]) -> None:
        """Send, or vanish: ``PeerLost`` here too, in this party's own name."""
        due = self._after is not None and self._frames >= self._after
        if due or (self._step is not None and step >= self._step):
            error = PeerLost(f"party {self.me}", f"cut off before step {step}")
            self._channel.fail(error)
            raise error
        self._frames += 1
        self._channel.send(peer, step, clock, parts)


Hook = Callable[[int, int, bytes], bytes]


class Tampering(_Around):
    """An active adversary: ``hook(step, peer, payload)`` returns what is sent instead, of any length."""

    def __init__(self, channel: Channel, hook: Hook) -> None:
        super().__init__(channel)
        self._hook = hook

    def send(self, peer: int, step: int, clock: int, parts: Sequence[memoryview]) -> None:
        """Send what the hook makes of the payload. A copy: the caller's buffers stay as they are."""
        changed = self._hook(step, peer, b"".join(parts))
        self._channel.send(peer, step, clock, (memoryview(changed),))
