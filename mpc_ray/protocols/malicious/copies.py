"""Hashes of what two parties must hold alike, compared before the first coin of any chunk that depends on it.

A replicated piece x_i has two holders, P_{i-1} and P_i. Whoever dealt it, a client or the owner of a model, may have
given them different ones; then an honest prover's claim would be false, and what its chair sees at the end would tell
it one of the prover's secrets. So nothing is proved before the holders have compared.
"""

from __future__ import annotations

import hashlib

import numpy as np

from mpc_ray.sharing.replicated import Shared


class Copies:
    """Running hashes of the two pieces that this party holds, and of what is public to all three."""

    def __init__(self, me: int) -> None:
        self.me = me
        self.names: list[str] = []
        self._hashes = {i: hashlib.sha256() for i in (me, (me + 1) % 3)}

    def add(self, name: str, shared: Shared) -> None:
        """Both pieces of something that was dealt: its name, shape, scale and every byte."""
        head = f"{name}|{list(shared.shape)}|{shared.scale}|".encode()
        for index, piece in ((self.me, shared.own), ((self.me + 1) % 3, shared.next)):
            data = np.ascontiguousarray(piece.numpy())
            self._hashes[index].update(len(head).to_bytes(4, "little") + head)
            self._hashes[index].update(data.reshape(-1).view(np.uint8).data)
        self.names.append(name)

    def add_public(self, name: str, value: bytes) -> None:
        """Something that all three were told, such as a job's settings."""
        head = f"{name}|{len(value)}|".encode()
        for running in self._hashes.values():
            running.update(len(head).to_bytes(4, "little") + head + value)
        self.names.append(name)

    def digest(self, index: int) -> bytes:
        """The hash so far of everything with index ``index``, 32 bytes."""
        return self._hashes[index].digest()
