"""With few subsets, vectors or weight bits false claims get through at the predicted rate: the check measures what it
says. At full parameters the same claims never do (test_cheating).

A cell fails if its count has a probability below 1e-7 under the prediction, at either side: with 40 cells, a right
implementation fails with less than 1e-5 over all choices of the seeds (which are fixed).
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np
import pytest
from statements import Dealer, chunks, keys, play

from mpc_ray.protocols.malicious.chunks import Limits
from mpc_ray.protocols.malicious.keys import coin_words
from mpc_ray.protocols.malicious.schedule import Message
from mpc_ray.protocols.malicious.sumcheck import array, blinded_claim, less, next_claim

TOP = 2**63
UNLIKELY = 1e-7


def assert_binomial(count: int, runs: int, rate: float) -> None:
    """``count`` of ``runs`` is no surprise at ``rate``."""
    chances = [comb(runs, k) * rate**k * (1 - rate) ** (runs - k) for k in range(runs + 1)]
    assert sum(chances[count:]) > UNLIKELY, (count, runs, rate)
    assert sum(chances[: count + 1]) > UNLIKELY, (count, runs, rate)


LIES: dict[str, tuple[Callable[[Dealer], list], Callable[[int], float]]] = {
    "2^63": (lambda d: [d.product((12,), errors={0: {3: TOP}})], lambda s: 2.0**-s),
    "+e, -e": (lambda d: [d.product((12,), errors={0: {3: 7, 5: -7}})], lambda s: 2.0**-s),
    "mod 2^16": (lambda d: [d.one_party(0, 12, errors={3: 2**15})], lambda s: 2.0**-s),
    "matrix entry": (lambda d: [d.matrix(3, 4, 5, errors={0: {7: TOP}})], lambda s: 1 - (1 - 2.0**-s) ** 2),
    "gate": (lambda d: [d.words((8,), errors={0: {2: 1 << 9}})], lambda s: 2.0**-s),
}


class FullQuotients:
    """A prover's hook: of a sum that holds both false claims, whose errors cancel, the quotient is that of the whole.

    Its honest code rounds every claim down by itself, which is one less where the error is positive.
    """

    def __call__(self, message: Message, data: bytes) -> bytes:
        if message.name == "coin: subsets":
            self.bits = [int(x) for x in coin_words(data, "subsets", 12)]
        if message.name != "quotients":
            return data
        shares = [int.from_bytes(data[i : i + 32], "little", signed=True) for i in range(0, len(data), 32)]
        both = self.bits[3] & self.bits[5]
        return b"".join(
            (q - (both >> t & 1)).to_bytes(32, "little", signed=True) for t, q in enumerate(shares)
        )


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("s", [1, 2, 4, 8])
def test_false_claims_get_through_at_the_predicted_rate(lie: str, s: int) -> None:
    make, rate = LIES[lie]
    runs = 150 if s < 8 else 250
    three = [own[0] for own in chunks(make(Dealer(s)), Limits(subsets=s, vectors=s, weight_bits=s))]
    hook = FullQuotients() if lie == "+e, -e" else lambda message, data: data
    accepted = sum(play(three, 0, keys(f"{lie} {s} {t}".encode()), hook=hook).accepted for t in range(runs))
    assert_binomial(accepted, runs, rate(s))


# -- the sum-check with tiny primes: the best lie known meets the bound of 2/p a round ------------------------


class TinyField:
    """F_p for any prime, in Python's integers."""

    random_bytes = 8

    def __init__(self, p: int) -> None:
        self.p = p

    def add(self, x: int, y: int) -> int:
        return (x + y) % self.p

    def sub(self, x: int, y: int) -> int:
        return (x - y) % self.p

    def mul(self, x: int, y: int) -> int:
        return x * y % self.p

    def coefficients(self, elements: list[int]) -> np.ndarray:
        return array(elements)

    def fold(self, u: np.ndarray, c: np.ndarray) -> np.ndarray:
        return u.reshape(-1, len(c)) @ c % self.p

    def inner(self, u: np.ndarray, v: np.ndarray) -> int:
        return int((u * v).sum() % self.p)


def lies_through(f: TinyField, rounds: int, rng: np.random.Generator) -> bool:
    """A claim off by δ: in each round P puts the whole error on one diagonal entry, in the mask round it shifts its
    shares so that c·(λ - l)(μ - m) = 0 for a guessed pair. A's shares are 0, B's the errors: only their sum matters."""
    p = f.p
    delta = int(rng.integers(1, p))
    for _ in range(rounds):
        entries = [0] * 15
        entries[4] = delta  # M[1][1]: the corner takes the rest of the claim, 0
        lam, mu = (rng.integers(0, p, 4).tolist() for _ in range(2))
        delta = f.add(next_claim(f, 0, [0] * 15, lam, mu), next_claim(f, delta, less(f, entries, [0] * 15), lam, mu))  # type: ignore[arg-type]  # fmt: skip
        if not delta:
            return True
    guess_l, guess_m = (int(x) for x in rng.integers(1, p, 2))
    c = delta * pow(guess_l * guess_m, -1, p) % p
    shifts = [-c * guess_l % p, -c * guess_m % p, c]  # μ·⟨u, s_B⟩, λ·⟨s_A, v⟩, λμ·⟨s_A, s_B⟩
    lam_, mu_ = (int(x) for x in rng.integers(1, p, 2))
    return blinded_claim(f, delta, shifts, lam_, mu_) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("p", [31, 251])
@pytest.mark.parametrize("rounds", [1, 3])
def test_the_sum_check_fails_no_more_often_than_its_bound(p: int, rounds: int) -> None:
    """δ·λ_1·μ_1 = 0 with 2/p - 1/p², the mask round with 2/(p - 1) - 1/(p - 1)²."""
    rng = np.random.default_rng(p + rounds)
    f, runs = TinyField(p), 3000
    through = sum(lies_through(f, rounds, rng) for _ in range(runs))
    one, last = 2 / p - 1 / p**2, 2 / (p - 1) - 1 / (p - 1) ** 2
    expected = 1 - (1 - one) ** rounds * (1 - last)
    bound = 1 - (1 - 2 / p) ** rounds * (1 - 2 / (p - 1))
    assert expected <= bound
    spread = 5.3 * (expected * (1 - expected) / runs) ** 0.5  # 1e-7, in the normal approximation
    assert abs(through / runs - expected) < spread


@pytest.mark.parametrize("bits", [11, 13])
def test_a_fitted_quotient_passes_for_no_more_primes_than_its_size_allows(bits: int) -> None:
    """E ≢ 0 mod 2^64 and q with |E - 2^64·q| < 2^60: at most ⌊60/(bits - 1)⌋ primes of ``bits`` bits divide it."""
    low = 1 << bits - 1
    primes = [n for n in range(low, 2 * low) if all(n % d for d in range(2, int(n**0.5) + 1))]
    product, taken = 1, 0
    for p in primes:
        if product * p >= 1 << 60:
            break
        product, taken = product * p, taken + 1
    e = 0x1234567
    q = e * pow(1 << 64, -1, product) % product
    divides = sum((e - (q << 64)) % p == 0 for p in primes)
    assert taken <= divides <= (60 + 64) // (bits - 1)
