"""Hashes of what two parties must hold alike, compared before the first coin of any chunk that depends on it.

A replicated piece x_i has two holders, P_{i-1} and P_i. Whoever dealt it, a client or the owner of a model, may have
given them different ones; then an honest prover's claim would be false, and what its chair sees at the end would tell
it one of the prover's secrets. So nothing is proved before the holders have compared.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping

import numpy as np

from mpc_ray.correlation.stream import derive
from mpc_ray.errors import UNEQUAL_COPIES, CheatingDetected, ConfigError, InputError
from mpc_ray.protocols.malicious.schedule import HASH_BYTES
from mpc_ray.protocols.runtime import Protocol, Runtime
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

    def through(self, take: Callable[[str], Shared | None]) -> Callable[[str], Shared | None]:
        """``take``, each of whose results is hashed on its way."""

        def taken(name: str) -> Shared | None:
            shared = take(name)
            if shared is not None:
                self.add(name, shared)
            return shared

        return taken

    def digest(self, index: int) -> bytes:
        """The hash so far of everything with index ``index``, 32 bytes."""
        return self._hashes[index].digest()


def compare_copies(runtime: Runtime, copies: Copies, job: bytes) -> Protocol[None]:
    """Both holders of each piece compare what they were dealt. 1 round, 32 bytes to each peer.

    Raises CheatingDetected: one of the two, or whoever dealt it, is to blame.
    """
    me, seeds = runtime.me, runtime.correlation.seeds
    arrivals = {}

    def tag(peer: int, sender: int) -> bytes:
        index = common_piece(me, peer)
        key = derive(seeds[index], b"mpc-ray copies|%b|%d" % (job, sender))
        return hmac.digest(key, copies.digest(index), "sha256")

    for peer in runtime.peers:
        runtime.send(peer, np.frombuffer(tag(peer, me), np.uint8).copy(), "copies", "load")
        arrivals[peer] = runtime.expect(peer, HASH_BYTES)
    yield
    for peer, arrival in arrivals.items():
        if not hmac.compare_digest(arrival.bytes().tobytes(), tag(peer, peer)):
            raise unequal(me, peer, "the model's weights")


def common_piece(me: int, peer: int) -> int:
    """The index of the piece that two parties both hold, and of the seed that they share."""
    return peer if (peer - me) % 3 == 1 else me


def unequal(me: int, peer: int, what: str) -> CheatingDetected:
    """Two holders of a piece have different ones."""
    error = CheatingDetected(
        f"party {me} and party {peer} hold different copies of their common piece of {what}",
        (peer,),
        remedy=f"whoever dealt it (a client, the model's owner) or party {peer} is to blame",
    )
    error.code = UNEQUAL_COPIES
    return error


def refuse_unchecked(header: Mapping[str, object]) -> None:
    """What malicious_3pc does not do: run a job again, which would be one more try for a cheater, and show every
    layer's rows, whose copies no client compares."""
    if header.get("attempt", 0) != 0:
        raise InputError(
            "malicious_3pc runs a job once: it may have failed because a party cheats",
            remedy="send a new job, if you know why this one failed",
        )
    if header.get("trace"):
        raise ConfigError("malicious_3pc shows nobody every layer's rows", remedy="use aby3 for that")
