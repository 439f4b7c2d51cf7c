"""Pairwise pseudo-random streams: what two of the three parties can expand without a message.

Seed ``S_i`` is held by P_{i-1} and P_i, the two holders of summand x_i. A stream is named by
(seed, job, attempt, purpose, role) and, inside it, by (step, chunk). The first five go into a key by
HKDF-SHA-256, the last two into the nonce, so no (key, counter) pair can occur twice: a name that is asked for
a second time raises. Both holders must ask for the same names with the same lengths.

The key's info is ``mpc-ray stream|`` job (16 bytes) ``|`` attempt ``|`` purpose ``|`` role, numbers in decimal. It
can be read back in one way only: the job's length is fixed, an attempt and a role have no ``|``.

The streams themselves are ``stream``'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

from mpc_ray.correlation.on_device import CPU, expand_on, nonce, on_device
from mpc_ray.correlation.stream import Prf, derive, expand, keystream
from mpc_ray.errors import MpcError
from mpc_ray.kernels import stream
from mpc_ray.kernels.elementwise import mask_for_open
from mpc_ray.kernels.transfer import to_device

__all__ = ["PRIVATE", "Correlation", "MaskReused", "Prf", "derive", "expand", "keystream"]

PRIVATE = -1  # index of the seed that only this party knows


class MaskReused(MpcError):
    """A stream name was asked for twice. Always a defect: two messages would share a one-time pad."""


@dataclass
class Correlation:
    """The streams one party can expand: from seed S_me, from seed S_{me+1}, and from its private seed.

    ``trace``, when set, collects (job, attempt, seed, purpose, role, step, chunk, length) of every draw: tests look
    for repetitions across attempts, and for draws that one holder of a seed made and the other did not. No seed or
    key is part of its text form.
    """

    me: int
    seeds: dict[int, bytes] = field(repr=False)
    private: bytes = field(repr=False)
    prf: Prf = "aes128ctr"
    place: torch.device = CPU
    trace: list[tuple[object, ...]] | None = None
    expanded: int = 0
    _job: bytes = field(default=b"", repr=False)
    _attempt: int = field(default=-1, repr=False)
    _keys: dict[tuple[int, str, int], bytes] = field(default_factory=dict, repr=False)
    _used: set[tuple[int, str, int, int, int]] = field(default_factory=set, repr=False)
    _again: tuple[object, np.ndarray] = field(default=(None, np.empty(0, np.uint8)), repr=False)
    _begun: set[tuple[bytes, int]] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        if set(self.seeds) != {self.me, (self.me + 1) % 3}:
            raise ValueError("a party holds the seeds S_me and S_{me+1}, no others")

    def begin(self, job: bytes, attempt: int) -> None:
        """Start an attempt of a job, named by 16 bytes. A pair can never be started twice under the same seeds."""
        if len(job) != 16 or attempt < 0:
            raise ValueError("a job is named by 16 bytes, its attempts by numbers from 0")
        if (job, attempt) in self._begun:
            raise MaskReused(
                f"job {job.hex()} attempt {attempt} was started before", remedy="use a new attempt"
            )
        self._begun.add((job, attempt))
        self._job, self._attempt = job, attempt
        self._keys.clear()
        self._used.clear()
        self._again = None, np.empty(0, np.uint8)

    def wipe(self) -> None:
        """Forget seeds and keys: every later draw fails. (Python may have copied them; the process should end soon.)"""
        self.seeds.clear()
        self._keys.clear()
        self._again = None, np.empty(0, np.uint8)
        self.private = b""

    def drawn(self, seed: int, purpose: str, role: int, step: int, chunk: int, length: int) -> torch.Tensor:
        """``bytes``' bytes as uint8 on this party's device."""
        if not on_device(self.place, self.prf):
            return to_device(self.bytes(seed, purpose, role, step, chunk, length), self.place)
        key = self._key(seed, purpose, role, step, chunk, length)
        return expand_on(self.place, key, step, chunk, length, self.prf)

    def added(
        self,
        z: torch.Tensor,
        seed: int,
        purpose: str,
        role: int,
        step: int,
        chunk: int,
        constant: int = 0,
        minus: bool = False,
    ) -> torch.Tensor:
        """z + F + constant, or z - F + constant, with F the elements of the stream named, for one use only.

        On a device ChaCha20 goes straight into the sum and never to memory.
        """
        if on_device(self.place, self.prf):
            key = self._key(seed, purpose, role, step, chunk, 8 * z.numel())
            return stream.add(z, key, nonce(step, chunk), constant, minus)
        words = self.int64(seed, purpose, role, step, chunk, tuple(z.shape))
        return z - words + constant if minus else mask_for_open(z, words, constant)

    def _key(self, seed: int, purpose: str, role: int, step: int, chunk: int, length: int) -> bytes:
        """The stream's key, once: its name counts as used."""
        if self._attempt < 0:
            raise ValueError("a stream was asked for before its job began")
        name = (seed, purpose, role, step, chunk)
        if name in self._used:
            raise MaskReused(f"stream {name} was drawn twice", remedy="a defect: please report it")
        self._used.add(name)
        if self.trace is not None:
            self.trace.append((self._job, self._attempt, *name, length))
        key = self._keys.get((seed, purpose, role))
        if key is None:
            secret = self.private if seed == PRIVATE else self.seeds[seed]
            info = b"mpc-ray stream|%b|%d|%b|%d" % (self._job, self._attempt, purpose.encode(), role)
            key = self._keys[seed, purpose, role] = derive(secret, info)
        self.expanded += length
        return key

    def again(
        self, seed: int, purpose: str, role: int, step: int, chunk: int, length: int, start: int = 0
    ) -> np.ndarray:
        """A stream that this attempt has drawn, once more: for a proof about what it masked, never to mask anything.

        From byte ``start`` on, a multiple of 64. The last one is kept: a stream of many rows is asked for row by row.
        Safe to call from another thread while the attempt runs. Raises ValueError for a stream that was not drawn.
        """
        name = (seed, purpose, role, step, chunk)
        if name not in self._used:
            raise ValueError("a stream can be expanded again only after it was drawn")
        kept, data = self._again
        if kept != (name, length, start):
            data = expand(self._keys[seed, purpose, role], step, chunk, length, self.prf, start)
            self._again = (name, length, start), data
        return data

    def int64(
        self, seed: int, purpose: str, role: int, step: int, chunk: int, shape: tuple[int, ...]
    ) -> torch.Tensor:
        """Uniform elements of Z_2^64, int64 of ``shape`` on this party's device."""
        raw = self.drawn(seed, purpose, role, step, chunk, 8 * math.prod(shape))
        return raw.view(torch.int64).reshape(shape)

    def bytes(self, seed: int, purpose: str, role: int, step: int, chunk: int, length: int) -> np.ndarray:
        """``length`` bytes of the stream named by the arguments, for one use only."""
        return expand(self._key(seed, purpose, role, step, chunk, length), step, chunk, length, self.prf)
