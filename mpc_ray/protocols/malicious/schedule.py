"""Which message of a proof travels when, from whom to whom, and how long it is.

It follows from public sizes alone, so all three parties know it before the proof begins: nobody ever learns a length
from a message, and every message of a run has a name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mpc_ray.protocols.malicious.keys import COIN_BYTES

Role = Literal["P", "A", "B"]

STOP = 64
"""Length at which an inner product is compared instead of reduced further."""
ROUND_ENTRIES = 15
"""Of a round's 4x4 matrix, what is sent: all but the corner, which follows from the claim."""
QUOTIENT_BYTES = 32
WORD_ENTRIES = 255
"""Of the Boolean proof's 16x16 matrix."""
HASH_BYTES = 32
READY = b"\1"
"""A holds every z of the chunk, and its copies of what was dealt are P's and B's: B may release the first coin."""
ACCEPT, REJECT_PROVER, REJECT_PAIR = b"\1", b"\2", b"\3"
"""Verdicts: accepted; rejected, and A's last message is the one that P promised; rejected, and it is another."""


@dataclass(frozen=True)
class Shape:
    """Sizes of one proof. ``length`` of its inner product; ``quotients``: their number, 0 for a Boolean proof."""

    length: int
    quotients: int

    @property
    def boolean(self) -> bool:
        return self.quotients == 0

    @property
    def lengths(self) -> list[int]:
        """Length of the inner product before each round, and at the end."""
        found = [self.length]
        while found[-1] > STOP:
            found.append(-(-found[-1] // 4))
        return found

    @property
    def rounds(self) -> int:
        return len(self.lengths) - 1

    @property
    def last(self) -> int:
        """Length of the inner product that is compared."""
        return self.lengths[-1]


@dataclass(frozen=True)
class Message:
    """One message of a proof. ``stage``: messages of one stage travel together; each waits for the stage before."""

    stage: int
    name: str
    sender: Role
    receiver: Role
    length: int


def schedule(shape: Shape) -> list[Message]:
    """All messages of a proof, in order; none if there is nothing to prove."""
    if not shape.length:
        return []
    found: list[Message] = []

    def stage(*messages: tuple[str, Role, Role, int]) -> None:
        number = found[-1].stage + 1 if found else 0
        found.extend(Message(number, *message) for message in messages)

    stage(("ready", "A", "B", len(READY)))
    stage(("coin: subsets", "B", "P", COIN_BYTES))
    if shape.boolean:
        stage(("words", "P", "B", 8 * WORD_ENTRIES))
    else:
        stage(("quotients", "P", "B", QUOTIENT_BYTES * shape.quotients))
    stage(("coin: field", "B", "P", COIN_BYTES))
    for number in range(shape.rounds):
        stage((f"round {number}", "P", "B", 8 * ROUND_ENTRIES))
        stage((f"coin: round {number}", "B", "P", COIN_BYTES))
    stage(("masks", "P", "B", 24))
    stage(("coin: masks", "B", "P", COIN_BYTES))
    stage(("echo", "P", "A", HASH_BYTES), ("promise", "P", "B", HASH_BYTES))
    stage(("last", "A", "B", 8 * (shape.last + 1) + HASH_BYTES))
    stage(("verdict", "B", "A", 1), ("verdict", "B", "P", 1))
    return found


def party_of(role: Role, prover: int) -> int:
    """Which party plays ``role`` in the proof of ``prover``."""
    return (prover + {"P": 0, "A": -1, "B": 1}[role]) % 3


def role_of(party: int, prover: int) -> Role:
    """Which role ``party`` plays in the proof of ``prover``."""
    roles: tuple[Role, Role, Role] = ("P", "B", "A")
    return roles[(party - prover) % 3]
