"""Drives protocols written as generators over a channel, round by round.

A protocol is a generator: it sends and announces what it expects, then says ``yield``: one round. After the
yield what it expected is there. Sub-protocols that run side by side (``together``) share their rounds and
their frames: at each round a party sends at most one frame to each peer, with the parts of all of them in
the order in which they were asked for. All three parties run the same program, so the order is the same.

The Lamport clock of a frame is 1 + the largest clock received so far; the largest of a job is its number of
rounds. (The clock of the values a message was computed from can only be smaller.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch

from mpc_ray.channel.frame import HEADER_BYTES
from mpc_ray.channel.interface import Channel
from mpc_ray.channel.meter import ONLINE
from mpc_ray.correlation.prf import Correlation
from mpc_ray.kernels import transfer
from mpc_ray.protocols.timeline import COMPUTE, DEALER, SEND, WAIT, Timeline

T = TypeVar("T")
Protocol = Generator[None, None, T]


class Arrival:
    """Bytes that a peer sends in this round; readable after the next ``yield``."""

    __slots__ = ("_tensor", "buffer", "place", "ready")

    def __init__(self, length: int, place: torch.device) -> None:
        self.buffer = transfer.buffer(length, place)
        self.place = place
        self.ready = False
        self._tensor: torch.Tensor | None = None

    def int64(self, shape: Sequence[int]) -> torch.Tensor:
        return self.tensor().view(torch.int64).reshape(tuple(shape))

    def tensor(self) -> torch.Tensor:
        """The bytes as uint8 on the party's device."""
        if self._tensor is None:
            self._tensor = transfer.to_device(self.bytes(), self.place)
        return self._tensor

    def bytes(self) -> np.ndarray:
        if not self.ready:
            raise RuntimeError("a message was read before its round was over")
        return self.buffer


@dataclass
class Timing:
    """By (layer, function): seconds spent computing, and rounds with messages; seconds spent waiting for peers.

    A round in which two functions sent counts for both.
    """

    compute: dict[tuple[str, str], float] = field(default_factory=dict)
    rounds: dict[tuple[str, str], int] = field(default_factory=dict)
    waiting: float = 0.0

    def add(self, layer: str, function: str, seconds: float) -> None:
        """Seconds that ``function`` computed in ``layer``."""
        self.compute[layer, function] = self.compute.get((layer, function), 0.0) + seconds


class Runtime:
    """What a protocol sees of its party: the channel's rounds and the correlated randomness.

    ``meanwhile``, where a job sets it, is called in every round between sending and receiving: work that nobody waits
    for, done while peers compute. ``steps``, where ``watch`` was called, has for every round what ``cost.schedule``
    calls a step: [compute, meanwhile, transport, bytes sent, peers awaited, functions].
    """

    def __init__(self, channel: Channel, correlation: Correlation) -> None:
        self.channel = channel
        self.correlation = correlation
        self.me = channel.me
        self.place = correlation.place
        self.peers = ((self.me + 1) % 3, (self.me + 2) % 3)
        self.timing = Timing()
        self.progress: Any = None
        self.claims: Any = None  # protocols.aby3.claims.Claims, where products are to be proved
        self._reset()

    def _reset(self) -> None:
        self.step = 0
        self.clock = 0
        self.sites = 0
        self.meanwhile: Callable[[], None] = lambda: None
        self.timeline: Timeline | None = None
        self.channel.meter.written = None
        self.steps: list[list[Any]] | None = None
        self._since = 0.0
        self._sending: set[tuple[str, str]] = set()
        self._out: dict[int, list[memoryview]] = {p: [] for p in self.peers}
        self._in: dict[int, list[Arrival]] = {p: [] for p in self.peers}

    def begin(self, job: bytes, attempt: int) -> None:
        """Start one attempt of a job: new streams, steps and clocks from zero, counts from zero."""
        self._reset()
        self.timing = Timing()
        self.channel.begin(job, attempt)
        self.channel.meter.reset()
        self.correlation.begin(job, attempt)

    def profile(self) -> None:
        """Note from now on, until the job's end, when what was done."""
        self.timeline = Timeline()
        self.channel.meter.written = self.timeline.written

    def new_site(self) -> int:
        """A number for one sub-protocol's randomness; the same at all three parties."""
        self.sites += 1
        return self.sites

    def send(
        self, peer: int, data: torch.Tensor | np.ndarray, label: str, layer: str, phase: str = ONLINE
    ) -> None:
        """Put a contiguous tensor into this round's frame to ``peer``; it must not change afterwards."""
        array = transfer.to_host(data) if isinstance(data, torch.Tensor) else data
        if array.nbytes == 0:
            return
        view = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        self._out[peer].append(view)
        self._sending.add((layer, label.split("/", maxsplit=1)[0]))
        self.channel.meter.attribute(label, phase, view.nbytes, layer)

    def expect(self, peer: int, length: int) -> Arrival:
        """Announce ``length`` bytes of this round's frame from ``peer``."""
        arrival = Arrival(length, self.place)
        if length:
            self._in[peer].append(arrival)
        else:
            arrival.ready = True
        return arrival

    def watch(self) -> None:
        """From here on keep ``steps``. Its seconds are the process's own, so it must be no other party's too."""
        self.steps = []
        self._since = time.process_time()

    def _watched(self, steps: list[list[Any]]) -> Callable[[float], None]:
        """Begin a step; the function returned ends it, given the seconds of ``meanwhile``."""
        began = time.process_time()
        sent = [sum(map(len, self._out[p])) + HEADER_BYTES if self._out[p] else 0 for p in self.peers]
        awaited = [bool(self._in[p]) for p in self.peers]
        functions = sorted({function for _, function in self._sending})

        def done(meanwhile: float) -> None:
            now = time.process_time()
            transport = max(0.0, now - began - meanwhile)
            steps.append([began - self._since, meanwhile, transport, sent, awaited, functions])
            self._since = now

        return done

    def exchange(self) -> None:
        """One round: frames out, frames in. A peer that owes nothing is not waited for."""
        self.step += 1
        done = self._watched(self.steps) if self.steps is not None else None
        started = time.perf_counter()
        clock = self.clock
        for key in self._sending:
            self.timing.rounds[key] = self.timing.rounds.get(key, 0) + 1
        self._sending = set()
        transfer.settle(self.place)
        for peer in self.peers:
            if self._out[peer]:
                with self._span(SEND, f"to party {peer}"):
                    self.channel.send(peer, self.step, clock + 1, self._out[peer])
                self._out[peer] = []
        busy = time.process_time()
        self.timing.waiting -= self._work()
        busy = time.process_time() - busy
        for peer in self.peers:
            arrivals = self._in[peer]
            if arrivals:
                with self._span(WAIT, f"for party {peer}"):
                    theirs = self.channel.receive(peer, self.step, [a.buffer.data for a in arrivals])
                self.clock = max(self.clock, theirs)
                for arrival in arrivals:
                    arrival.ready = True
                self._in[peer] = []
        if done is not None:
            done(busy)
        self.timing.waiting += time.perf_counter() - started

    def _work(self) -> float:
        """Do what nobody waits for; the seconds it took."""
        started = time.perf_counter()
        with self._span(COMPUTE, "range checks"):
            self.meanwhile()
        return time.perf_counter() - started

    def _span(self, lane: str, name: str) -> AbstractContextManager[None]:
        return nullcontext() if self.timeline is None else self.timeline.span(lane, name)

    def counts(self) -> dict[str, Any]:
        """What the job cost this party, as its answer says it (``mpc_ray.report`` reads it)."""
        counts = self.channel.meter.snapshot()
        if self.steps is not None:  # what came after the last round
            self.steps.append([time.process_time() - self._since, 0.0, 0.0, [0, 0], [False, False], []])
        return {
            **({} if self.steps is None else {"steps": self.steps}),
            "waiting": self.timing.waiting,
            "compute": [[*key, seconds] for key, seconds in self.timing.compute.items()],
            "rounds_split": [[*key, count] for key, count in self.timing.rounds.items()],
            "rounds": counts["rounds"],
            "bytes_sent": counts["bytes_sent"],
            "bytes_sent_offline": counts["bytes_sent_offline"],
            "unattributed": counts["unattributed"],
            "split": [[entry["layer"], entry["label"], entry["bytes"]] for entry in counts["split"]],
        }

    def run(self, protocol: Protocol[T]) -> T:
        """Run a protocol to its end, a round at each of its yields."""
        while True:
            try:
                next(protocol)
            except StopIteration as end:
                self.channel.flush()
                return end.value  # type: ignore[no-any-return]
            self.exchange()

    @contextmanager
    def working(self, function: str, layer: str = "", dealing: bool = False) -> Iterator[None]:
        """Add the block's computing time to ``function`` in ``layer``; ``dealing``: it is a dealer's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            ended = time.perf_counter()
            self.timing.add(layer, function, ended - started)
            if self.timeline is not None:
                self.timeline.add(DEALER if dealing else COMPUTE, function, layer, started, ended)

    def timed(
        self, function: str, protocol: Protocol[T], layer: str = "", dealing: bool = False
    ) -> Protocol[T]:
        """The same protocol, ``working`` on ``function``."""
        while True:
            with self.working(function, layer, dealing):
                try:
                    next(protocol)
                except StopIteration as end:
                    return end.value  # type: ignore[no-any-return]
            yield


def together(protocols: Iterable[Protocol[T]]) -> Protocol[list[T]]:
    """Run independent protocols side by side: each round carries the messages of all that still run."""
    running = dict(enumerate(protocols))
    results: dict[int, T] = {}
    while running:
        for i, protocol in list(running.items()):
            try:
                next(protocol)
            except StopIteration as end:
                results[i] = end.value
                del running[i]
        if running:
            yield
    return [results[i] for i in sorted(results)]
