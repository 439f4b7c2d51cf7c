"""field: the prime is uniform and prime, and every compiled body gives the integers of its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import InputError
from mpc_ray.kernels import field
from mpc_ray.kernels import field_reference as plain
from mpc_ray.kernels.field import PrimeField
from mpc_ray.kernels.field_prime import HIGH, LOW, is_prime, uniform_prime
from mpc_ray.kernels.field_vectors import LANES_TURNS

SMALLEST, LARGEST = 2**60 + 33, 2**61 - 1
MIDDLE = uniform_prime(range(2**63, 2**63 + 2**12, 16))
primes = st.sampled_from([SMALLEST, MIDDLE, LARGEST])
word = st.one_of(st.sampled_from([0, 1, 2**63, 2**64 - 1, 2**60, LARGEST]), st.integers(0, 2**64 - 1))


def array(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


def elements(p: int, count: int, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    edge = [0, 1, p - 1]
    return [edge[int(rng.integers(3))] if rng.random() < 0.2 else int(rng.integers(p)) for _ in range(count)]


def corners(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Words, half of them at the ends of the ring."""
    x = rng.integers(0, 2**64, shape, dtype=np.uint64)
    ends = rng.choice(np.array([0, 1, 2**63, 2**64 - 1], np.uint64), shape)
    return np.where(rng.random(shape) < 0.5, ends, x)


def test_primes_are_told_from_composites() -> None:
    small = [n for n in range(4000) if n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))]
    assert [n for n in range(4000) if is_prime(n)] == small
    assert all(map(is_prime, [SMALLEST, LARGEST, 18446744073709551557]))
    # Carmichael numbers, squares, and the least strong pseudoprimes to the first 4, 5, 7 and 9 prime bases
    composites = [561, 41041, 825265, 321197185, (2**31 - 1) ** 2, 1373653 * 1373653]
    composites += [3215031751, 2152302898747, 341550071728321, 3825123056546413051]
    assert not any(map(is_prime, composites))


def test_the_least_and_greatest_primes_of_the_interval() -> None:
    assert not any(is_prime(n) for n in range(LOW, SMALLEST))
    assert not any(is_prime(n) for n in range(LARGEST + 1, HIGH))


def test_a_drawn_prime_is_the_first_among_the_candidates() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        words = [int(x) for x in rng.integers(0, 2**64, 4096, dtype=np.uint64)]
        candidates = [(1 << 60) + (w >> 5) * 2 + 1 for w in words]
        assert uniform_prime(words) == next(c for c in candidates if is_prime(c))
    with pytest.raises(InputError, match="no prime"):
        uniform_prime([0] * 10)  # 2^60 + 1 is divisible by 17


@pytest.mark.parametrize("p", [2**60 + 1, 2**62 - 57, 2**59 + 19, 4, 2**61 + 1])
def test_a_modulus_that_is_no_prime_of_61_bits_is_refused(p: int) -> None:
    with pytest.raises(InputError, match="no prime"):
        PrimeField(p)


@settings(max_examples=40)
@given(primes, st.integers(0, 40), st.integers(0, 2**32))
def test_cross_fold_and_inner_are_the_definitions(p: int, blocks: int, seed: int) -> None:
    f = PrimeField(p)
    u, v = elements(p, 4 * blocks, seed), elements(p, 4 * blocks, seed + 1)
    assert f.cross(array(u), array(v)) == plain.cross(u, v, p)
    assert f.inner(array(u), array(v)) == plain.inner(u, v, p)
    for r, cut in ((4, 0), (4, 3), (16, 5), (64, 1)):
        c, x = elements(p, r, seed + r), u[: len(u) - cut]
        assert f.fold(array(x), f.coefficients(c)).tolist() == plain.fold(x, c, p)


def test_sums_at_their_bounds_do_not_wrap() -> None:
    """All elements p - 1, the largest p: what lazy reduction could overflow."""
    f, p = PrimeField(LARGEST), LARGEST
    x = [p - 1] * (8 * LANES_TURNS + 20)  # more than sums of limbs hold without being emptied
    assert f.cross(array(x), array(x)) == plain.cross(x, x, p)
    assert f.inner(array(x), array(x)) == plain.inner(x, x, p)
    for r in (4, 16, 64):
        assert f.fold(array(x), f.coefficients([p - 1] * r)).tolist() == plain.fold(x, [p - 1] * r, p)


@settings(max_examples=40)
@given(primes, st.lists(st.tuples(word, word, word), max_size=40), st.integers(0, 56), st.integers(0, 2**32))
def test_weights_and_weighted_words(
    p: int, rows: list[tuple[int, int, int]], subsets: int, seed: int
) -> None:
    f = PrimeField(p)
    powers = elements(p, subsets, seed)
    bits, x, y = ([row[i] for row in rows] for i in range(3))
    w = np.empty(len(rows), np.uint64)
    f.weights(array(bits), f.weight_table(powers), w)
    expected = plain.weights(bits, powers, p)
    assert w.tolist() == f.montgomery(expected).tolist()
    u = np.array([x, y], np.uint64).T.copy()
    scaled, reduced = np.empty_like(u), np.empty(len(rows), np.uint64)
    f.scale_rows(w, u, scaled)
    f.reduce(array(x), reduced)
    assert scaled.tolist() == [[w * a % p, w * b % p] for w, a, b in zip(expected, x, y, strict=True)]
    assert reduced.tolist() == [value % p for value in x]
    total = np.zeros(3, np.uint64)
    field.weighted_sum(w, array(x), total)
    assert f.unweighted(total) == sum(a * b for a, b in zip(expected, x, strict=True)) % p
    assert f.combine_rows(expected, u).tolist() == [
        sum(w * row[t] for w, row in zip(expected, u.tolist(), strict=True)) % p for t in range(2)
    ]


def test_the_matrix_is_the_same_without_the_processors_52_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    f = PrimeField(MIDDLE)
    u, v = array(elements(f.p, 52, 1)), array(elements(f.p, 52, 2))
    found = f.cross(u, v)
    monkeypatch.setattr(field, "FAST", False)
    assert f.cross(u, v) == found


def test_more_subsets_than_a_table_holds_are_refused() -> None:
    with pytest.raises(InputError, match="57 subsets"):
        PrimeField(LARGEST).weight_table([1] * 57)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), max_size=3), st.data())
def test_quotients_are_exact(terms: list[int], data: st.DataObject) -> None:
    """For none to three groups of products, of any width, added in two parts: sums add up."""
    rows = data.draw(st.lists(st.tuples(word, word, word), max_size=20))
    a, b, bits = (array([row[i] for row in rows]) for i in range(3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    u, v = ([corners(rng, (len(rows), t)) for t in terms] for _ in range(2))
    sums, half = field.new_sums(), len(rows) // 2
    for part in (slice(half), slice(half, None)):
        field.add_quotients(a[part], b[part], [x[part] for x in u], [x[part] for x in v], bits[part], sums)
    flat = [np.concatenate([np.empty((len(rows), 0), np.uint64), *x], 1).tolist() for x in (u, v)]
    expected = plain.quotients(a.tolist(), b.tolist(), *flat, bits.tolist(), field.SUBSETS)
    assert field.quotients(sums) == expected
    if terms:
        x, y = u[0].tolist(), v[0].tolist()
        sums = [sum(i * j for i, j in zip(p, q, strict=True)) for p, q in zip(x, y, strict=True)]
        wanted = [(r - s - t) % 2**64 for r, s, t in zip(a.tolist(), b.tolist(), sums, strict=True)]
        assert field.less_products(a, b, u[0], v[0]).tolist() == wanted


def test_a_true_claim_has_an_integer_quotient() -> None:
    """Σ over a subset of a + b - uv is q·2^64 exactly, also for many terms of the largest words."""
    rng = np.random.default_rng(5)
    u = rng.integers(2**63, 2**64, (500, 2), dtype=np.uint64)
    v = rng.integers(2**63, 2**64, (500, 2), dtype=np.uint64)
    b, bits = (rng.integers(0, 2**64, 500, dtype=np.uint64) for _ in range(2))
    a = (u * v).sum(1) - b
    sums = field.new_sums()
    field.add_quotients(a, b, [u], [v], bits, sums)
    for t, q in enumerate(field.quotients(sums)):
        chosen = [g for g in range(500) if int(bits[g]) >> t & 1]
        exact = sum(
            int(a[g]) + int(b[g]) - sum(int(x) * int(y) for x, y in zip(u[g], v[g], strict=True))
            for g in chosen
        )
        assert exact == q << 64


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(0, 6), st.integers(0, 2**32))
def test_polynomial_products(s: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, x2, y2 = (rng.integers(0, 2**64, (s, k), dtype=np.uint64) for _ in range(4))
    x[rng.random((s, k)) < 0.5] = y[rng.random((s, k)) < 0.5] = 2**64 - 1
    lists = [m.tolist() for m in (x, y, x2, y2)]
    assert field.polynomial_products(x, y, x2, y2) == plain.polynomial_products(*lists)


@pytest.mark.parametrize("nonzero", [False, True])
def test_random_elements_cover_the_field_and_no_more(nonzero: bool) -> None:
    f = PrimeField(SMALLEST)
    ends = [f.element(bytes([b]) * field.RANDOM_BYTES, nonzero) for b in (0, 255)]
    assert all(int(nonzero) <= x < f.p for x in ends)
    assert ends[0] == int(nonzero)
    rng = np.random.default_rng(1)
    seen = [f.element(rng.bytes(field.RANDOM_BYTES), nonzero) for _ in range(4000)]
    counts = np.bincount([x * 16 // f.p for x in seen], minlength=16)
    assert ((counts - 250) ** 2 / 250).sum() < 50  # 15 degrees of freedom: 1e-5
