"""Proofs that ride along: aby3's claims gathered, proved chunk by chunk while the inference goes on, and the barrier.

``alongside`` runs a program and adds the proofs' messages to its rounds' frames. At most ``RUNNING`` chunks are proved
at a time and ``WAITING`` more are kept: if the program makes claims faster, it stands still for rounds that carry
proofs alone. When it has ended, the open chunks are closed and proved, and only then is its result handed on: nothing
leaves a party before every claim of the attempt, its own and the others', has its three accepts.
"""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from mpc_ray.errors import CheatingDetected
from mpc_ray.protocols.aby3.claims import Claim, Draw
from mpc_ray.protocols.malicious.chunks import Chunk, Gatherer, Limits
from mpc_ray.protocols.malicious.copies import Copies
from mpc_ray.protocols.malicious.keys import ProofKeys
from mpc_ray.protocols.malicious.proof import ChunkProof, Clock
from mpc_ray.protocols.runtime import Protocol, Runtime

T = TypeVar("T")
RUNNING = 2
WAITING = 1

log = logging.getLogger("mpc_ray.protocols.malicious")


class Background:
    """The proofs of one attempt at one party. It is the runtime's sink of claims while ``alongside`` runs.

    ``copies``: what was dealt, hashed, before the program begins; whatever is opened meanwhile is added as it comes.
    """

    def __init__(
        self, runtime: Runtime, job: bytes, attempt: int, copies: Copies, limits: Limits | None = None
    ) -> None:
        correlation = runtime.correlation
        self.runtime = runtime
        self.keys = ProofKeys(runtime.me, correlation.seeds, job, attempt, correlation.prf)
        self.copies = copies
        self.clock = Clock()
        self.chunks = 0
        self.proved = 0
        self.rounds_alone = 0
        self._gatherer = Gatherer(self._again, self._full, limits or Limits())
        self._waiting: deque[ChunkProof] = deque()
        self._running: list[ChunkProof] = []
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"proofs-{runtime.me}")
        self._closed = False

    def add(self, claim: Claim) -> None:
        """Take a claim (``aby3.claims.Claims``). After the barrier there must be none."""
        if self._closed:
            raise RuntimeError("a claim was made after the last proof")
        self._gatherer.add(claim)

    def alongside(self, program: Protocol[T]) -> Protocol[T]:
        """``program``, its claims proved in the rounds that it makes and in as many more as that takes.

        Returns its result after the barrier. Raises CheatingDetected, after which nothing of the attempt may be used.
        """
        self.runtime.claims = self
        try:
            while True:
                try:
                    next(program)
                except StopIteration as end:
                    result: T = end.value
                    break
                yield from self._round()
                while len(self._waiting) > WAITING:
                    self.rounds_alone += 1
                    yield from self._round()
            self._gatherer.close()
            self._closed = True
            while self._waiting or self._running:
                self.rounds_alone += 1
                yield from self._round()
            if self.proved != self.chunks:
                raise CheatingDetected(
                    "a chunk of claims was not proved", remedy="a defect: please report it"
                )
            return result
        finally:
            self.runtime.claims = None
            self.end()

    def end(self) -> None:
        """Stop the proofs' thread and forget keys and claims, whether all went well or not."""
        self._worker.shutdown(wait=False, cancel_futures=True)
        self.keys.wipe()
        self._waiting.clear()
        self._running.clear()

    def _round(self) -> Protocol[None]:
        """One exchange, with what the proofs have to say in it."""
        while self._waiting and len(self._running) < RUNNING:
            self._running.append(self._waiting.popleft())
        for proof in self._running:
            proof.send()
        yield
        for proof in self._running:
            proof.receive()
        for proof in [p for p in self._running if p.done]:
            proof.finish()
            if proof.accepts != proof.owed:
                raise CheatingDetected(
                    f"chunk {proof.number} has {proof.accepts} accepts, not {proof.owed}",
                    remedy="a defect: please report it",
                )
            self._running.remove(proof)
            self.proved += 1

    def _full(self, chunk: Chunk) -> None:
        self.chunks += 1
        self._waiting.append(
            ChunkProof(self.runtime, chunk, self.chunks, self.keys, self.copies, self._worker, self.clock)
        )

    def _again(self, draw: Draw, start: int, length: int) -> np.ndarray:
        again = self.runtime.correlation.again
        return again(draw.seed, draw.purpose, draw.role, draw.site, draw.chunk, length, start)
