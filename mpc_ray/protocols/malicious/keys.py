"""A key for every PRF call of every proof, and the coins.

Seed S_i is held by P_{i-1} and P_i. In proof i, of prover P = P_i, with A = P_{i-1} and B = P_{i+1}: P and A share
S_i, P and B share S_{i+1}, A and B share S_{i-1}, which P lacks: coins come from it.

The key of a call is HMAC-SHA-256(K, "chunk|prover|step") with K = HKDF(S; "mpc-ray proof|" job "|" attempt), so it is
disjoint from the protocol's streams ("mpc-ray stream|"), and no call shares it with another: a label used twice
raises.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Mapping

import numpy as np

from mpc_ray.correlation.prf import MaskReused
from mpc_ray.correlation.stream import Prf, derive, expand

COIN_BYTES = 16


class ProofKeys:
    """The PRF calls of one party in one attempt of a job. Safe to use from several threads.

    ``labels``: every call so far, as (seed, chunk, prover, step): the tests look for repetitions among them.
    """

    def __init__(
        self, me: int, seeds: Mapping[int, bytes], job: bytes, attempt: int, prf: Prf = "aes128ctr"
    ) -> None:
        self.me = me
        self.labels: set[tuple[int, int, int, str]] = set()
        self._prf = prf
        self._lock = threading.Lock()
        info = b"mpc-ray proof|%b|%d" % (job, attempt)
        self._keys = {i: derive(seed, info) for i, seed in seeds.items()}

    def stream(self, seed: int, chunk: int, prover: int, step: str, length: int) -> np.ndarray:
        """``length`` bytes, uint8, that this party shares with the other holder of S_seed; for one use only."""
        return expand(self._key(seed, chunk, prover, step), 0, 0, length, self._prf)

    def coin(self, chunk: int, prover: int, step: str) -> bytes:
        """The coin of a step of proof ``prover``: 16 bytes that only its two verifiers can compute."""
        if prover == self.me:
            raise ValueError("a prover cannot know its own coins")
        return self.stream((prover - 1) % 3, chunk, prover, step, COIN_BYTES).tobytes()

    def tag(self, seed: int, chunk: int, step: str, message: bytes) -> bytes:
        """A MAC of ``message``, 32 bytes, between the two holders of S_seed. Chunk and step are part of it."""
        key = self._key(seed, chunk, -1, step)
        return hmac.digest(key, message, "sha256")

    def wipe(self) -> None:
        """Forget all keys: every later call raises KeyError."""
        with self._lock:
            self._keys.clear()

    def _key(self, seed: int, chunk: int, prover: int, step: str) -> bytes:
        label = (seed % 3, chunk, prover, step)
        with self._lock:
            if label in self.labels:
                raise MaskReused(f"proof label {label} was used twice", remedy="a defect: please report it")
            self.labels.add(label)
            secret = self._keys[seed % 3]
        return hmac.digest(secret, b"%d|%d|%b" % (chunk, prover, step.encode()), "sha256")


def expand_coin(coin: bytes, purpose: str, length: int, start: int = 0) -> np.ndarray:
    """``length`` bytes, uint8, that follow from a coin, for one ``purpose``; whoever knows the coin knows them.

    From byte ``start`` on, a multiple of 64.
    """
    key = hashlib.sha256(b"mpc-ray coin|%b|%b" % (coin, purpose.encode())).digest()
    return expand(key, 0, 0, length, start=start)


def coin_words(coin: bytes, purpose: str, count: int) -> np.ndarray:
    """``count`` uniform words, uint64, that follow from a coin."""
    return expand_coin(coin, purpose, 8 * count).view(np.uint64)
