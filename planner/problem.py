"""What is to be placed, and where it may go: plain data, checked once when it is made.

A *triple* is three parties, 0, 1 and 2. Each needs free processors and GPUs on one node. Nodes carry labels:

    region   where the node stands
    party    the only party, "0", "1" or "2", that this node's operator lends it to
    trust    the trust domain (the operator) that the node belongs to

Two parties that one domain can read together learn everything, so a node without a `trust` label is counted
with all other such nodes as one domain: what nobody has vouched for is not taken for independent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

PARTIES = 3
UNKNOWN_TRUST = ""


class ProblemError(ValueError):
    """A problem that contradicts itself: a number out of range, a name given twice."""


def _amount(value: float, what: str) -> None:
    if not isfinite(value) or value < 0:
        raise ProblemError(f"{what} is {value}, must be a number not below 0")


@dataclass(frozen=True)
class Node:
    """A machine that may hold parties.

    `cpus` and `gpus` are what is free now; fractions are allowed, as in Ray. `labels` are the operator's.
    """

    id: str
    cpus: float
    gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id:
            raise ProblemError("a node needs an id")
        _amount(self.cpus, f"node {self.id}: cpus")
        _amount(self.gpus, f"node {self.id}: gpus")
        if self.party is not None and self.party not in {"0", "1", "2"}:
            raise ProblemError(f'node {self.id}: label party is {self.party!r}, must be "0", "1" or "2"')

    @property
    def party(self) -> str | None:
        """The only party that this node may hold, or None if it may hold any."""
        return self.labels.get("party")

    @property
    def trust(self) -> str:
        """The trust domain; `UNKNOWN_TRUST` where the operator named none."""
        return self.labels.get("trust", UNKNOWN_TRUST)


@dataclass(frozen=True)
class Requirement:
    """What one party needs: resources, and labels that its node must carry with exactly these values."""

    cpus: float = 1.0
    gpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _amount(self.cpus, "requirement: cpus")
        _amount(self.gpus, "requirement: gpus")


@dataclass(frozen=True)
class Problem:
    """Place three parties, `parties[i]` being what party i needs, on `nodes`.

    Without the two flags, distinct nodes and trust domains are preferred; with them they are required.
    """

    nodes: tuple[Node, ...]
    parties: tuple[Requirement, Requirement, Requirement] = (Requirement(), Requirement(), Requirement())
    distinct_nodes: bool = False
    distinct_trust: bool = False

    def __post_init__(self) -> None:
        if len(self.parties) != PARTIES:
            raise ProblemError(f"a triple has {PARTIES} parties, not {len(self.parties)}")
        seen: set[str] = set()
        for node in self.nodes:
            if node.id in seen:
                raise ProblemError(f"node {node.id} is given twice")
            seen.add(node.id)
