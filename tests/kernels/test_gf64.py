"""gf64: every compiled body, with and without the processor's carry-less product, gives its definition's elements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.kernels import gf64, gf64_loops
from mpc_ray.kernels import gf64_reference as plain
from mpc_ray.kernels.gf64 import BinaryField

word = st.one_of(st.sampled_from([0, 1, 2**63, 2**64 - 1, 0x1B]), st.integers(0, 2**64 - 1))
F = BinaryField()


def words(rng: np.random.Generator, count: int) -> list[int]:
    found = rng.integers(0, 2**64, count, dtype=np.uint64)
    found[rng.random(count) < 0.1] = 2**64 - 1
    return [int(x) for x in found]


def array(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint64)


@given(word, word)
def test_products(x: int, y: int) -> None:
    assert F.mul(x, y) == plain.multiply(x, y) == plain.multiply(y, x)
    low, high = gf64_loops.plain_product(np.uint64(x), np.uint64(y))
    assert int(low) | int(high) << 64 == plain.carry_less(x, y)


@given(word, word, word)
def test_it_is_a_field(x: int, y: int, z: int) -> None:
    assert F.mul(x, F.mul(y, z)) == F.mul(F.mul(x, y), z)
    assert F.mul(x, F.add(y, z)) == F.add(F.mul(x, y), F.mul(x, z))
    inverse, square = 1, x  # x^(2^64 - 2)
    for _ in range(63):
        square = F.mul(square, square)
        inverse = F.mul(inverse, square)
    assert F.mul(x, inverse) == int(x != 0)


def test_known_products() -> None:
    """x^63·x = x^4 + x^3 + x + 1, and (x + 1)^2 = x^2 + 1."""
    assert F.mul(1 << 63, 2) == 0b11011
    assert F.mul(3, 3) == 5


@settings(max_examples=25)
@given(st.integers(0, 34), st.integers(0, 2**32))
def test_cross_fold_and_inner_are_the_definitions(blocks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    u, v = words(rng, 4 * blocks), words(rng, 4 * blocks)
    assert F.cross(array(u), array(v)) == plain.cross(u, v)
    assert F.inner(array(u), array(v)) == plain.inner(u, v)
    for r, cut in ((4, 0), (4, 3), (16, 5), (64, 1)):
        c, x = words(rng, r), u[: len(u) - cut]
        assert F.fold(array(x), F.coefficients(c)).tolist() == plain.fold(x, c)


@settings(max_examples=8)
@given(st.integers(0, 3), st.integers(0, 2**32))
def test_claims_on_words(blocks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    omega = words(rng, blocks)
    u, v = ((words(rng, 8 * blocks), words(rng, 8 * blocks)) for _ in range(2))
    got = gf64.cross_words(array(omega), (array(u[0]), array(u[1])), (array(v[0]), array(v[1])))
    assert got == plain.cross_words(omega, u, v)
    c = words(rng, 16)
    out = np.empty(64 * blocks, np.uint64)
    for weights in (omega, None):
        gf64.fold_words(array(u[0]), array(u[1]), c, None if weights is None else array(weights), out)
        assert out.tolist() == plain.fold_words(u[0], u[1], c, weights)
    assert gf64.weighted_words(array(omega), array(u[0])) == plain.weighted_words(omega, u[0])


def test_the_matrix_folds_to_the_inner_product() -> None:
    """Σ λ_j·μ_k·D[j][k] is the inner product of the folded vectors: what the Boolean proof rests on."""
    rng = np.random.default_rng(2)
    omega, (u, v) = words(rng, 4), [(words(rng, 32), words(rng, 32)) for _ in range(2)]
    lam, mu = words(rng, 16), words(rng, 16)
    d = gf64.cross_words(array(omega), (array(u[0]), array(u[1])), (array(v[0]), array(v[1])))
    left, right = np.empty(256, np.uint64), np.empty(256, np.uint64)
    gf64.fold_words(array(u[0]), array(u[1]), lam, array(omega), left)
    gf64.fold_words(array(v[0]), array(v[1]), mu, None, right)
    expected = plain.total(
        plain.multiply(plain.multiply(lam[j], mu[k]), d[16 * j + k]) for j in range(16) for k in range(16)
    )
    assert F.inner(left, right) == expected


@pytest.mark.parametrize("nonzero", [False, True])
def test_random_elements(nonzero: bool) -> None:
    assert F.element(bytes(8), nonzero) == int(nonzero)
    assert F.element(b"\1" + bytes(7), nonzero) == 1
    assert F.element(b"\xff" * 8, nonzero) == 2**64 - 1
    assert F.valid(2**64 - 1)
