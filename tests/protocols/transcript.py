"""One protocol in one assignment of roles: its results, its exact costs, and everything that was sent."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from three import JOB, run_three, runtimes

from mpc_ray.channel.local import local_channels
from mpc_ray.channel.meter import HEADERS
from mpc_ray.protocols.runtime import Protocol, Runtime
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role

Body = Callable[[Role, int], Protocol[Any]]
UNCHECKED = RangeChecks(JOB, enabled=False)


class Recording:
    """A channel that hashes what it sends: of a frame peer (1 byte), step (4), length (8), payload, little endian."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.me, self.meter = channel.me, channel.meter
        self._hash = hashlib.sha256()
        self.sent = 0

    def send(self, peer: int, step: int, clock: int, parts: Sequence[memoryview]) -> None:
        length = sum(part.nbytes for part in parts)
        self._hash.update(struct.pack("<BIQ", peer, step, length))
        for part in parts:
            self._hash.update(part)
        self.sent += length
        self._channel.send(peer, step, clock, parts)

    def digest(self) -> str:
        return self._hash.hexdigest()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


@dataclass(frozen=True)
class Run:
    """What three parties returned and what it cost, by role."""

    results: list[Any]
    parties: list[Runtime]
    k: int

    @property
    def rounds(self) -> int:
        return max(party.channel.meter.rounds for party in self.parties)

    @property
    def payload(self) -> tuple[int, int, int]:
        """Bytes that E0, E1 and D sent, frame headers left out."""
        return tuple(_payload(self.parties[(self.k + i) % 3]) for i in range(3))  # type: ignore[return-value]

    @property
    def to_dealer(self) -> int:
        dealer = (self.k + 2) % 3
        return sum(p.channel.meter.snapshot()["bytes_sent_to"].get(dealer, 0) for p in self.parties)


def run_role(k: int, body: Body, master: bytes = b"test seed", function: str = "test") -> Run:
    """``body(role, me)`` at the three parties, under role k, over recording channels."""
    parties = runtimes(master, [Recording(channel) for channel in local_channels(timeout=20.0)])

    def program(runtime: Runtime) -> Protocol[Any]:
        return (yield from body(Role(runtime, k, "layer", function), runtime.me))

    return Run(run_three(program, parties), parties, k)


def _payload(party: Runtime) -> int:
    snapshot = party.channel.meter.snapshot()
    headers = sum(entry["bytes"] for entry in snapshot["split"] if entry["label"] == HEADERS)
    assert snapshot["unattributed"] == 0
    assert snapshot["bytes_sent"] - headers == party.channel.sent  # type: ignore[attr-defined]
    return snapshot["bytes_sent"] - headers
