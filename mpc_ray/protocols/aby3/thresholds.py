"""Comparison of shared bits with public numbers, and of two shared numbers' bits.

x > c on bits, from the two halves: [x_h > c_h] ⊕ [x_h = c_h]·[x_l > c_l]. Halves that several thresholds have in
common are compared once, and all thresholds share their rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpc_ray.protocols.aby3.bits import Bits, and_, join, stack
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.runtime import Protocol


def compare_rounds(n: int) -> int:
    """Rounds of ``at_least`` on n bits."""
    return max(0, (n - 1).bit_length())


def at_least(place: Place, x: Bits, thresholds: Sequence[int]) -> Protocol[Bits]:
    """[x ≥ t] for every t, 1 ≤ t < 2^n, of unsigned numbers of n planes: planes (thresholds, …).

    ``compare_rounds(n)`` rounds, ``threshold_gates`` bits an element a party.
    """
    n, me = len(x), place.me
    for t in thresholds:
        if not 0 < t < 1 << n:
            raise ValueError(f"a threshold of {t} for {n} bits")
    constants = [t - 1 for t in thresholds]
    flipped = x.flipped(me)
    # By (lowest bit, pattern): [x > pattern], None where that is never, and [x = pattern], on the bits of one block.
    greater: dict[tuple[int, int], Bits | None] = {}
    equal: dict[tuple[int, int], Bits] = {}
    for i in range(n):
        for bit in {c >> i & 1 for c in constants}:
            greater[i, bit] = None if bit else x[i]
            equal[i, bit] = x[i] if bit else flipped[i]
    size = 1
    while size < n:
        left: list[Bits] = []
        right: list[Bits] = []
        targets: list[tuple[str, tuple[int, int]]] = []
        above, same = dict(greater), dict(equal)
        greater, equal = {}, {}
        for low, pattern in _blocks(constants, n, 2 * size):
            key = low, pattern
            lower, upper = (low, pattern & ((1 << size) - 1)), (low + size, pattern >> size)
            if low + size >= n:  # a last block without an upper half
                greater[key], equal[key] = above[lower], same[lower]
                continue
            greater[key] = above[upper]
            part = above[lower]
            if part is not None:
                left.append(same[upper])
                right.append(part)
                targets.append(("greater", key))
            if low:
                left.append(same[upper])
                right.append(same[lower])
                targets.append(("equal", key))
        if left:
            both = yield from and_(place, stack(left), stack(right))
            for i, (kind, key) in enumerate(targets):
                if kind == "equal":
                    equal[key] = both[i]
                else:
                    already = greater[key]
                    greater[key] = both[i] if already is None else already ^ both[i]
        size *= 2
    found = []
    for c in constants:
        plane = greater[0, c]
        assert plane is not None  # c < 2^n - 1
        found.append(plane)
    return stack(found)


def threshold_gates(n: int, thresholds: Sequence[int]) -> int:
    """AND gates an element of ``at_least``."""
    constants = [t - 1 for t in thresholds]
    gates, size = 0, 1
    while size < n:
        for low, pattern in _blocks(constants, n, 2 * size):
            if low + size < n:
                width = min(size, n - low)
                gates += pattern & ((1 << width) - 1) != (1 << width) - 1
                gates += low > 0
        size *= 2
    return gates


def _blocks(constants: Sequence[int], n: int, size: int) -> list[tuple[int, int]]:
    """(lowest bit, pattern) of all blocks of ``size`` bits of the constants, each once, in a fixed order."""
    return [
        (low, pattern)
        for low in range(0, n, size)
        for pattern in sorted({c >> low & ((1 << min(size, n - low)) - 1) for c in constants})
    ]


def greater(place: Place, x: Bits, y: Bits) -> Protocol[Bits]:
    """[x > y] of unsigned numbers of n planes each: one plane (1, …).

    1 + ⌈log2 n⌉ rounds, ``greater_gates(n)`` bits an element a party.
    """
    me = place.me
    above = yield from and_(place, x, y.flipped(me))
    equal = (x ^ y).flipped(me)
    while len(above) > 1:
        n = len(above)
        pairs = n // 2
        # Pairs of neighbours; the topmost of an odd number waits.
        low, high = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        left = join([equal[high], equal[high][1:]])
        right = join([above[low], equal[low][1:]])
        both = yield from and_(place, left, right)
        merged = above[high] ^ both[:pairs]
        # The lowest pair needs no "equal" again: its place is never looked at.
        same = join([equal[:1], both[pairs:]])
        if n % 2:
            merged, same = join([merged, above[n - 1 :]]), join([same, equal[n - 1 :]])
        above, equal = merged, same
    return above


def greater_gates(n: int) -> int:
    """AND gates of ``greater``."""
    gates = n
    while n > 1:
        gates += 2 * (n // 2) - 1
        n = (n + 1) // 2
    return gates
