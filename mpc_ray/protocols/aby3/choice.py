"""Which way a comparison goes: by words of gates in many rounds, or by Yao's sharing in two, chosen by what each costs.

A cost is rounds · half a round trip + the largest party's bytes over the bandwidth + computing time. All of it is
public, so parties that were told the same link choose alike; they must be.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mpc_ray.cost.links import Link

Way = Literal["boolean", "yao"]


@dataclass(frozen=True)
class Cost:
    """Of [x < 0] as a number: rounds; a party's bytes and seconds an element, and seconds however few there are."""

    rounds: int
    bytes: float
    seconds: float
    least_s: float

    def total(self, count: int, link: Link) -> float:
        """Seconds of ``count`` elements."""
        wire = 0.0 if link.bits_per_s is None else 8 * self.bytes * count / link.bits_per_s
        return self.rounds * link.rtt_s / 2 + wire + self.least_s + self.seconds * count


# Bytes and rounds are exact but for padding to words. Seconds are a party's processor time, for a core of its own.
COSTS: dict[Way, Cost] = {
    "boolean": Cost(10, 8 + 241 / 8, 0.4e-6, 3e-3),
    "yao": Cost(2, 3064 / 3, 8e-6, 6e-3),
}


def choose(count: int, link: Link) -> Way:
    """The faster way to compare ``count`` numbers over ``link``; of equals, the fewer bytes."""
    return "yao" if COSTS["yao"].total(count, link) < COSTS["boolean"].total(count, link) else "boolean"


def break_even_rtt_s(count: int, bits_per_s: float | None = None) -> float:
    """The round trip from which on Yao's two rounds are faster for ``count`` numbers; at least 0."""
    still = Link(0.0, bits_per_s)
    boolean, yao = COSTS["boolean"], COSTS["yao"]
    saved = boolean.rounds - yao.rounds
    return max(0.0, 2 * (yao.total(count, still) - boolean.total(count, still)) / saved)


def most_numbers(link: Link) -> int:
    """How many numbers Yao's way is still faster for."""
    boolean, yao = COSTS["boolean"], COSTS["yao"]
    each = yao.total(1, Link(0.0, link.bits_per_s)) - yao.least_s
    each -= boolean.total(1, Link(0.0, link.bits_per_s)) - boolean.least_s
    saved = (boolean.rounds - yao.rounds) * link.rtt_s / 2 + boolean.least_s - yao.least_s
    return max(0, math.ceil(saved / each) - 1)
