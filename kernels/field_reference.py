"""The definitions of ``field`` in Python's integers: slow, plain, and what the compiled bodies must equal."""

from __future__ import annotations

from collections.abc import Sequence

Words = Sequence[int]


def cross(u: Words, v: Words, p: int) -> list[int]:
    """M[j][k] = Σ_b u[4b + j]·v[4b + k]."""
    return [sum(x * y for x, y in zip(u[j::4], v[k::4], strict=True)) % p for j in range(4) for k in range(4)]


def fold(u: Words, c: Words, p: int) -> list[int]:
    """out[b] = Σ_j c[j]·u[r b + j]."""
    r = len(c)
    return [
        sum(x * y for x, y in zip(c, u[first : first + r], strict=False)) % p for first in range(0, len(u), r)
    ]


def inner(u: Words, v: Words, p: int) -> int:
    """Σ u·v."""
    return sum(x * y for x, y in zip(u, v, strict=True)) % p


def weights(bits: Words, powers: Words, p: int) -> list[int]:
    """Σ_t bit_t·power_t for each claim."""
    return [sum(power for t, power in enumerate(powers) if word >> t & 1) % p for word in bits]


def quotients(
    a: Words, b: Words, u: Sequence[Words], v: Sequence[Words], bits: Words, subsets: int
) -> list[int]:
    """-Σ ⌊(Σ_t u·v - a - b) / 2^64⌋ over the claims of each subset."""
    n = [
        (sum(x * y for x, y in zip(us, vs, strict=True)) - left - right) >> 64
        for left, right, us, vs in zip(a, b, u, v, strict=True)
    ]
    return [-sum(value for value, word in zip(n, bits, strict=True) if word >> t & 1) for t in range(subsets)]


def polynomial_products(
    x: Sequence[Words], y: Sequence[Words], x2: Sequence[Words], y2: Sequence[Words]
) -> list[int]:
    """Σ over e + h = d of ⟨x[e], y[h]⟩ + ⟨y2[e], x2[h]⟩."""
    total = [0] * (2 * len(x) - 1)
    for e in range(len(x)):
        for h in range(len(y)):
            for left, right in ((x[e], y[h]), (y2[e], x2[h])):
                total[e + h] += sum(s * t for s, t in zip(left, right, strict=True))
    return total
