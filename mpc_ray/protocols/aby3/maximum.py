"""Maximum of a window's bits along an axis: a tournament of comparisons and selections, all Boolean."""

from __future__ import annotations

from mpc_ray.protocols.aby3.bits import Bits, and_, join
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.thresholds import greater, greater_gates
from mpc_ray.protocols.runtime import Protocol


def maximum_rounds(n: int, count: int) -> int:
    """Rounds of the largest of ``count`` numbers of n bits."""
    return (count - 1).bit_length() * (2 + (n - 1).bit_length())


def maximum_gates(n: int, count: int) -> int:
    """AND gates of one line of ``count`` numbers."""
    return (count - 1) * (greater_gates(n) + n)


def largest(place: Place, x: Bits) -> Protocol[Bits]:
    """The largest along axis 1 of unsigned numbers in planes (n, count, words): (n, words).

    ``maximum_rounds`` rounds; ``maximum_gates`` bits a line a party.
    """
    while x.shape[1] > 1:
        count = x.shape[1]
        half = count // 2
        a, b = x[:, :half], x[:, half : 2 * half]
        above = yield from greater(place, a, b)
        chosen = yield from and_(place, _repeated(above, len(x)), a ^ b)
        winners = b ^ chosen
        x = winners if count % 2 == 0 else join([winners, x[:, count - 1 :]], 1)
    return x[:, 0]


def _repeated(plane: Bits, n: int) -> Bits:
    """One plane (1, …) beside every one of n."""
    return Bits(plane.own.expand(n, *plane.shape[1:]), plane.next.expand(n, *plane.shape[1:]))
