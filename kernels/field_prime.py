"""Primes of 61 bits: a test without error, and one drawn uniformly."""

from __future__ import annotations

from collections.abc import Iterable

from mpc_ray.errors import InputError

LOW, HIGH = 1 << 60, 1 << 61
"""The primes of proofs lie in [LOW, HIGH): there are 27,467,389,548,130,805 of them, about 2^54.6."""

CANDIDATES = 4096
"""Words that ``uniform_prime`` is given at most. None of them names a prime with probability below 2^-280."""

WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def is_prime(n: int) -> bool:
    """Whether n is prime, without error below 3.3·10^24.

    Miller–Rabin to the first twelve primes: the least composite that passes them all is 318665857834031151167461
    (Sorenson and Webster, Strong pseudoprimes to twelve prime bases, Math. Comp. 86, 2017).
    """
    if n < 2:
        return False
    for small in WITNESSES:
        if n % small == 0:
            return n == small
    twos = (n - 1 & 1 - n).bit_length() - 1  # n - 1 = odd·2^twos
    odd = n - 1 >> twos
    for witness in WITNESSES:
        x = pow(witness, odd, n)
        if x in (1, n - 1):
            continue
        for _ in range(twos - 1):
            x = x * x % n
            if x == n - 1:
                break
        else:
            return False
    return True


def uniform_prime(words: Iterable[int]) -> int:
    """A prime of [2^60, 2^61), uniform if the 64-bit words are.

    Rejection sampling: each word's top 60 bits (the last of them set to 1) are a uniform odd candidate, and the first
    prime among them is uniform among the primes. (The prime that follows a random number is not: it favours those after
    long gaps.) About 21 words are looked at. Raises InputError if none of them gives a prime.
    """
    for word in words:
        candidate = LOW | (word >> 4) | 1
        if is_prime(candidate):
            return candidate
    raise InputError("no prime among the candidates", remedy="give 4,096 random words")
