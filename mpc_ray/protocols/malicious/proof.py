"""The three proofs of a chunk at one party: prover of its own, A of the next party's, chair of the one's before.

A proof's messages travel in the frames of whatever else is running, a stage a round, in an order that all three
parties derive from public sizes. What is between them is computed in a thread of its own. Some stages are due a few
rounds later than the earliest possible, so that a round need not wait for their computation.
"""

from __future__ import annotations

import hmac
import time
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import numpy as np

from mpc_ray.protocols.malicious.chunks import Chunk
from mpc_ray.protocols.malicious.copies import Copies, common_piece, unequal
from mpc_ray.protocols.malicious.keys import ProofKeys
from mpc_ray.protocols.malicious.roles import PROGRAMS, Program, Proof
from mpc_ray.protocols.malicious.schedule import HASH_BYTES, Message, party_of, role_of, schedule
from mpc_ray.protocols.runtime import Arrival, Runtime

LAYER = "proofs"
LAGS = {"quotients": 2, "words": 2, "round 0": 2, "last": 2}
"""Rounds by which these messages, which need the most computation, are due later than the round after the last one."""


@dataclass
class Clock:
    """Seconds that proofs computed, over all chunks of an attempt. Added to in the proofs' thread alone."""

    seconds: float = 0.0


@dataclass
class _Part:
    """One role in one proof of the chunk: its program, and the future of what it yields next."""

    prover: int
    program: Program
    pending: Future[bytes | None]


@dataclass
class ChunkProof:
    """The proofs of one chunk at this party, from the comparison of copies to the verdicts.

    Each round: ``send`` before it, ``receive`` after it, until ``done``.
    """

    runtime: Runtime
    chunk: Chunk
    number: int
    keys: ProofKeys
    copies: Copies
    worker: Executor
    clock: Clock
    lags: dict[str, int] = field(default_factory=lambda: dict(LAGS))
    accepts: int = 0
    _parts: list[_Part] = field(default_factory=list)
    _queue: list[tuple[int, int, Message]] = field(default_factory=list)  # due in this round, prover, message
    _arrivals: list[tuple[_Part | int, Message | None, Arrival]] = field(default_factory=list)
    _age: int = -1

    @property
    def done(self) -> bool:
        """Whether all three proofs of the chunk have been accepted, as far as this party takes part."""
        return self._age >= 0 and not self._queue and not self._arrivals

    @property
    def owed(self) -> int:
        """How many of the chunk's proofs have something to prove: each needs its accept."""
        return sum(1 for prover in range(3) if self.chunk.shape(prover).length)

    @property
    def steps(self) -> str:
        """What the chunk covers, for errors: names of functions and layers, never data."""
        names = list(self.chunk.labels)
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    def send(self) -> None:
        """Put into this round's frames what is due, and announce what comes."""
        self._age += 1
        if self._age == 0:
            self._compare()
            return
        due = [entry for entry in self._queue if entry[0] == self._age]
        self._queue = [entry for entry in self._queue if entry[0] > self._age]
        for _, prover, message in due:
            part = next(part for part in self._parts if part.prover == prover)
            sender, receiver = party_of(message.sender, prover), party_of(message.receiver, prover)
            if sender == self.runtime.me:
                data = part.pending.result()
                assert data is not None and len(data) == message.length, f"{message.name}: wrong length"
                self._put(receiver, data, message.name)
                part.pending = self._advance(part.program, None)
            elif receiver == self.runtime.me:
                self._arrivals.append((part, message, self.runtime.expect(sender, message.length)))

    def receive(self) -> None:
        """Take what came in this round."""
        arrivals, self._arrivals = self._arrivals, []
        if self._age == 0:
            for peer, _, arrival in arrivals:
                assert isinstance(peer, int)
                self._check_copies(peer, arrival.bytes().tobytes())
            self._begin()
            return
        for part, message, arrival in arrivals:
            assert isinstance(part, _Part) and message is not None
            part.pending = self._advance(part.program, arrival.bytes().tobytes(), part.pending)

    def finish(self) -> None:
        """Wait for what is still computed; raises what the proofs found. After it every verdict has been heeded."""
        for part in self._parts:
            part.pending.result()
            self.accepts += 1
        self._parts.clear()

    # -- common copies: a message to each peer, which to B also says "ready: I hold all z of this chunk" ----

    def _compare(self) -> None:
        for peer in self.runtime.peers:
            self._put(peer, self._tag(peer, self.runtime.me), "copies")
            self._arrivals.append((peer, None, self.runtime.expect(peer, HASH_BYTES)))

    def _tag(self, peer: int, sender: int) -> bytes:
        """What ``sender`` says of the pieces that this party and ``peer`` both hold, and of public sizes."""
        index = common_piece(self.runtime.me, peer)
        sizes = [(s.length, s.quotients) for s in map(self.chunk.shape, range(3))]
        said = repr((sizes, list(self.chunk.labels))).encode()
        return self.keys.tag(index, self.number, f"copies from {sender}", said + self.copies.digest(index))

    def _check_copies(self, peer: int, theirs: bytes) -> None:
        if not hmac.compare_digest(theirs, self._tag(peer, peer)):
            what = f"what was dealt or opened before chunk {self.number} ({self.steps})"
            raise unequal(self.runtime.me, peer, what)

    # -- the proofs --------------------------------------------------------------------------------------

    def _begin(self) -> None:
        found = [(prover, schedule(self.chunk.shape(prover))) for prover in range(3)]
        me = self.runtime.me
        order = ((me - 1) % 3, me, (me + 1) % 3)  # as chair first, whose coin is due at once; as A last
        for prover in order:
            messages = dict(found)[prover]
            if not messages:
                continue
            proof = Proof(self.chunk, self.number, prover, self.keys, self.steps)
            program = PROGRAMS[role_of(me, prover)](proof)
            self._parts.append(_Part(prover, program, self._advance(program, None)))
        for prover, messages in found:
            shift = 0
            last = -1
            for message in messages:
                if message.stage != last:
                    shift += self.lags.get(message.name, 0)
                    last = message.stage
                self._queue.append((1 + message.stage + shift, prover, message))
        self._queue.sort(key=lambda entry: entry[:2])

    def _advance(
        self, program: Program, given: bytes | None, after: Future[bytes | None] | None = None
    ) -> Future[bytes | None]:
        """Let a program run to its next message, in the proofs' thread. ``after``: what it did before, whose error is
        this step's too."""

        def run() -> bytes | None:
            if after is not None:
                after.result()
            started = time.thread_time()
            try:
                return program.send(given)  # type: ignore[arg-type]
            except StopIteration:
                return None
            finally:
                self.clock.seconds += time.thread_time() - started

        return self.worker.submit(run)

    def _put(self, peer: int, data: bytes, name: str) -> None:
        self.runtime.send(peer, np.frombuffer(data, np.uint8).copy(), f"proof/{name}", LAYER)
