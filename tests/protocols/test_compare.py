"""Exact comparison, selection, ReLU, maximum and argmax: every value, every role, and what they cost."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from three import share, summands
from transcript import run_role

from mpc_ray.channel.meter import HEADERS
from mpc_ray.errors import InputError, ScaleError
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.protocols.semi_honest.bits import (
    BitProducts,
    SecretBit,
    dealt_products,
    pack,
    packed_bytes,
    unpack,
)
from mpc_ray.protocols.semi_honest.compare import less_than, less_than_zero, sign, sign_bytes
from mpc_ray.protocols.semi_honest.open import Opening
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.select import relu, relu_bytes, select, to_shared
from mpc_ray.protocols.semi_honest.tournament import argmax, maximum, rounds, tournament_bytes
from mpc_ray.sharing.replicated import reconstruct

LARGEST = 2**62 - 1
EDGES = [0, 1, -1, 2, -2, LARGEST, -LARGEST, 2**61, -(2**61), LARGEST - 1, 1 - LARGEST]
LENGTHS = (1, 2, 255, 256, 257, 512)
values = st.one_of(st.sampled_from(EDGES), st.integers(-20, 20), st.integers(-LARGEST, LARGEST))
roles = pytest.mark.parametrize("k", range(3))


def opened(bits: list[SecretBit]) -> np.ndarray:
    """The bits that two evaluators' shares make."""
    shares = [b.share for b in bits if b.share is not None]
    assert len(shares) == 2
    return unpack(shares[0] ^ shares[1], bits[0].count).reshape(bits[0].shape).numpy()


def tensor(x: Any) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.int64)


def random(shape: tuple[int, ...], bound: int = LARGEST, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(-bound, bound, shape, dtype=np.int64))


# -- sign ----------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(values, min_size=1, max_size=40), st.integers(0, 2), st.binary(min_size=4, max_size=4))
def test_sign_of_anything(x: list[int], k: int, master: bytes) -> None:
    shares = share(tensor(x))
    run = run_role(k, lambda role, me: less_than_zero(role, shares[me]), master)
    assert opened(run.results).tolist() == [v < 0 for v in x]


@roles
def test_sign_near_zero_and_at_every_power(k: int) -> None:
    powers = [s * (2**i + d) for i in range(62) for s in (1, -1) for d in (-1, 0, 1)]
    x = tensor([*range(-300, 301), *powers, *EDGES, 2**63 - 1, -(2**63), 2**62, -(2**62)])
    z = summands(x)
    run = run_role(k, lambda role, me: less_than_zero(role, z[me]))
    assert np.array_equal(opened(run.results), (x < 0).numpy())


@roles
def test_equal_digits_and_borrows(k: int) -> None:
    """c and r agree in all digits above the i-th, for every i: a random mask would show that once in 16^(15-i)."""
    rng = np.random.default_rng(k)
    masks, publics = [], []
    for i, step, high in product(range(17), (-1, 0, 1), (0, 1)):
        r = int(rng.integers(0, 2**63)) | high << 63
        c = r
        if i < 16:
            digit = (r >> 4 * i) & 15
            c += ((digit + step) % 16 - digit) << 4 * i
            below = int(rng.integers(0, 2**63)) & ((1 << 4 * i) - 1)
            c = (c >> 4 * i << 4 * i) | below
        masks.append(r)
        publics.append(c)
    r, c = (torch.from_numpy(np.array(x, np.uint64).view(np.int64)) for x in (masks, publics))

    def body(role: Role, me: int) -> Protocol[SecretBit]:
        opening = Opening(r.shape, None, None, r if role.is_d else None)
        opening._c = None if role.is_d else c
        return sign(role, opening)

    assert np.array_equal(opened(run_role(k, body).results), ((c - r) < 0).numpy())


@settings(max_examples=20)
@given(st.lists(st.tuples(values, values), min_size=1, max_size=30), st.integers(0, 2))
def test_less_than(pairs: list[tuple[int, int]], k: int) -> None:
    pairs = pairs + [(a, a) for a, _ in pairs]
    x, y = share(tensor([a for a, _ in pairs])), share(tensor([b for _, b in pairs]), seed=7)
    run = run_role(k, lambda role, me: less_than(role, x[me], y[me]))
    assert opened(run.results).tolist() == [a < b for a, b in pairs]


def test_scales_must_agree() -> None:
    x, y = share(tensor([1]), 3), share(tensor([1]), 4)
    with pytest.raises(ScaleError, match="scale 4 where 3"):
        run_role(0, lambda role, me: less_than(role, x[me], y[me]))


@pytest.mark.parametrize("n", LENGTHS)
def test_cost_of_a_sign(n: int) -> None:
    b = -(-n // 8)
    evaluator, dealer = 8 * n + 33 * b, 32 * n + 96 * b
    assert sign_bytes(n) == (evaluator, dealer)
    for k in range(3):
        x = random((n,), seed=n)
        shares = share(x)
        run = run_role(k, lambda role, me: less_than_zero(role, shares[me]))  # noqa: B023
        assert np.array_equal(opened(run.results), (x < 0).numpy())
        assert run.rounds == 3
        assert run.payload == (evaluator, evaluator, dealer)
        assert run.to_dealer == 0


# -- products of bits ----------------------------------------------------------------------------------


@roles
def test_products_of_bits(k: int) -> None:
    """All 16 assignments of four bits, every term at once."""
    plain = np.array(list(product((0, 1), repeat=4)), np.uint8).T
    halves = np.random.default_rng(3).integers(0, 2, plain.shape, np.uint8)
    inputs = (pack(halves), pack(plain ^ halves))
    terms = ((0,), (1, 3), (0, 1, 2), (0, 1, 2, 3))

    def body(role: Role, me: int) -> Protocol[list[np.ndarray] | None]:
        mine = None if role.is_d else inputs[int(role.is_e1)]
        products = BitProducts(role, mine, (4, 2), terms, "and")
        yield
        return None if role.is_d else products.shares()

    run = run_role(k, body)
    first, second = (r for r in run.results if r is not None)
    for term, a, b in zip(terms, first, second, strict=True):
        assert np.array_equal(unpack(a ^ b, 16).numpy(), plain[list(term)].prod(0)), term
    assert dealt_products(terms) == 11  # every subset of two or more
    assert run.payload == (8, 8, 22)
    assert packed_bytes(16) == 2


# -- selection -----------------------------------------------------------------------------------------


@roles
@pytest.mark.parametrize("n", LENGTHS)
def test_bit_to_ring_and_select(n: int, k: int) -> None:
    x, y = random((n,), 2**63 - 1, seed=1), random((n,), 2**63 - 1, seed=2)
    chosen = (x ^ y) & 1
    halves = np.random.default_rng(3).integers(0, 256, packed_bytes(n), np.uint8)
    other = halves ^ pack(chosen.numpy().astype(np.uint8))
    xs, ys = share(x, 9), share(y, 9, seed=4)

    def bit(role: Role) -> SecretBit:
        return SecretBit(x.shape, None if role.is_d else (halves if role.is_e0 else other))

    run = run_role(k, lambda role, me: to_shared(role, bit(role)))
    b = packed_bytes(n)
    assert torch.equal(reconstruct(run.results), chosen)
    assert run.results[0].scale == 0
    assert (run.rounds, run.payload) == (2, (b + 8 * n, b + 8 * n, 8 * n))

    run = run_role(k, lambda role, me: select(role, bit(role), xs[me], ys[me]))
    assert torch.equal(reconstruct(run.results), torch.where(chosen.bool(), x, y))
    assert run.results[0].scale == 9
    assert (run.rounds, run.payload) == (2, (16 * n + b, 16 * n + b, 16 * n))

    flipped = run_role(k, lambda role, me: to_shared(role, bit(role).flipped(role)))
    assert torch.equal(reconstruct(flipped.results), 1 - chosen)


@roles
@pytest.mark.parametrize("n", LENGTHS)
def test_relu_is_exact(n: int, k: int) -> None:
    x = torch.cat([tensor([1, -1]), tensor(EDGES), random((250,), seed=n), random((250,), 9, seed=n)])[:n]
    shares = share(x, 5)
    additive = summands(x, 5)
    for z, local in ((shares, True), (additive, False)):
        run = run_role(k, lambda role, me: relu(role, z[me]))  # noqa: B023
        assert torch.equal(reconstruct(run.results), x.clamp(min=0))
        assert run.results[0].scale == 5
        evaluator, dealer = relu_bytes(n, 0, local)
        assert run.rounds == 5
        assert run.payload == (evaluator, evaluator, dealer)
        b = -(-n // 8)
        assert (evaluator, dealer) == (16 * n + 34 * b, (48 if local else 56) * n + 96 * b)


def test_what_could_be_dealt_ahead() -> None:
    """What D deals for an additive z depends on its summand, all but the bits; for a replicated z nothing does."""
    n, b = 100, 13
    x = random((n,))
    for z, online in ((summands(x), (32 + 16) * n), (share(x), 0)):
        run = run_role(0, lambda role, me: relu(role, z[me]))  # noqa: B023
        counts = run.parties[2].channel.meter.snapshot()
        headers = sum(e["bytes"] for e in counts["split"] if e["label"] == HEADERS)
        assert counts["bytes_sent_online"] - headers == online
        assert counts["bytes_sent_offline"] == sum(run.payload) - 2 * relu_bytes(n, 0, True)[0] - online
        assert counts["bytes_sent_offline"] >= 96 * b + 8 * n


@roles
@pytest.mark.parametrize("f", [1, 8, 16, 39, 61])
def test_relu_with_truncation(f: int, k: int) -> None:
    x = torch.cat([tensor(EDGES), tensor([2**f, -(2**f), 2**f - 1, 1 - 2**f]), random((300,), seed=f)])
    z = summands(x, 40)
    run = run_role(k, lambda role, me: relu(role, z[me], f))
    y = reconstruct(run.results)
    up = y - (x >> f)
    assert bool((y[x < 0] == 0).all())
    assert bool(((up == 0) | (up == 1))[x >= 0].all())
    assert bool((up[(x >= 0) & (x % 2**f == 0)] == 0).all())  # nothing to round
    assert run.results[0].scale == 40 - f
    evaluator, dealer = relu_bytes(x.numel(), f, local=False)
    assert (run.rounds, run.payload) == (5, (evaluator, evaluator, dealer))


# -- maximum and argmax --------------------------------------------------------------------------------


@roles
@pytest.mark.parametrize("n", [1, 2, 3, 255, 256, 257, 512])
def test_maximum_and_argmax(n: int, k: int) -> None:
    x = random((3, n), seed=n)
    x[1] = random((n,), 3, seed=1)  # many equal entries: the first wins
    x[2] = LARGEST
    x[2, : n // 2] = -LARGEST
    shares = share(x, 11)
    best = run_role(k, lambda role, me: maximum(role, shares[me]))
    assert torch.equal(reconstruct(best.results), x.max(-1).values)
    assert best.results[0].scale == 11
    where = run_role(k, lambda role, me: argmax(role, shares[me]))
    assert np.array_equal(reconstruct(where.results).numpy(), x.numpy().argmax(-1))
    assert where.results[0].scale == 0
    for run, index in ((best, False), (where, True)):
        evaluator, dealer = tournament_bytes(3, n, index)
        assert run.payload == (evaluator, evaluator, dealer)
        assert run.rounds == rounds(n) == (4 * int(np.ceil(np.log2(n))) + 1 if n > 1 else 0)
        assert run.to_dealer == 0


def test_axes_and_ties() -> None:
    x = tensor([[[3, 3, 1], [0, 3, 2]], [[-1, -1, -1], [-2, -1, 0]]])
    shares = share(x)
    for axis in (0, 1, 2, -1, -2):
        best = run_role(1, lambda role, me: maximum(role, shares[me], axis))  # noqa: B023
        assert np.array_equal(reconstruct(best.results).numpy(), x.numpy().max(axis))
        where = run_role(1, lambda role, me: argmax(role, shares[me], axis))  # noqa: B023
        assert np.array_equal(reconstruct(where.results).numpy(), x.numpy().argmax(axis))


def test_maximum_of_nothing() -> None:
    shares = share(torch.zeros(2, 0, dtype=torch.int64))
    with pytest.raises(InputError, match="maximum of nothing"):
        run_role(0, lambda role, me: maximum(role, shares[me]))
