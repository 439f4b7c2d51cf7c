"""Local products: the doubled form against the textbook form and the clear product, and both before a truncation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from three import share
from transcript import run_role

from mpc_ray.errors import ScaleError
from mpc_ray.protocols.semi_honest import product
from mpc_ray.protocols.semi_honest.product import Linear, factor, matmul_textbook
from mpc_ray.protocols.semi_honest.truncate import truncate
from mpc_ray.sharing.replicated import Shared, Summand, reconstruct

PARTIES = range(3)
LARGEST = 2**61 - 1  # of a product: its double still fits the exact truncation, |2z| < 2^62
EDGES = [0, 1, -1, LARGEST, -LARGEST, LARGEST - 1, 1 - LARGEST, 2**31, -(2**63), 2**63 - 1]
seeds = st.integers(0, 2**31)
sizes = st.integers(1, 5)


def random(seed: int, *shape: int) -> torch.Tensor:
    """Uniform ring elements, with the edges mixed in."""
    rng = np.random.default_rng(seed)
    x = rng.integers(-(2**63), 2**63, shape, dtype=np.int64)
    return torch.from_numpy(np.where(rng.random(shape) < 0.4, rng.choice(EDGES, shape), x))


def edge_shares(x: torch.Tensor, scale: int, seed: int) -> list[Shared]:
    """⟨x⟩ whose first two summands hold edges too: no party's half need look random for the sum to be right."""
    first, second = random(seed, *x.shape), random(seed + 1, *x.shape)
    pieces = [first, second, x - first - second]
    return [Shared(pieces[i], pieces[(i + 1) % 3], scale) for i in PARTIES]


def clear(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x @ y mod 2^64 in Python's integers."""
    whole = np.matmul(x.numpy().astype(object), y.numpy().astype(object))
    return torch.from_numpy(((whole + 2**63) % 2**64 - 2**63).astype(np.int64))


def total(parts: Sequence[Summand], scale: int) -> torch.Tensor:
    assert [part.scale for part in parts] == [scale] * 3
    return parts[0].value + parts[1].value + parts[2].value


@settings(max_examples=40)
@given(seeds, sizes, sizes, sizes, st.integers(0, 2))
def test_matmul(seed: int, m: int, k: int, n: int, batch: int) -> None:
    lead = (2,) * batch
    x, y = random(seed, *lead, m, k), random(seed + 1, *lead, k, n)
    shared_x, shared_y = edge_shares(x, 5, seed + 2), edge_shares(y, 7, seed + 4)
    want = clear(x, y)
    textbook = total([matmul_textbook(shared_x[i], shared_y[i]) for i in PARTIES], 12)
    doubled = total([product.matmul(i, shared_x[i], factor(i, shared_y[i])) for i in PARTIES], 13)
    assert torch.equal(textbook, want)
    assert torch.equal(doubled, want << 1)
    assert factor(0, shared_y[0]).shape == y.shape


@settings(max_examples=40)
@given(seeds, sizes, sizes, st.sampled_from(["alike", "row", "column", "scalar"]))
def test_multiply(seed: int, m: int, n: int, kind: str) -> None:
    """Element by element; a diagonal matrix product is the textbook form of it."""
    x = random(seed, m, n)
    y = random(seed + 1, *{"alike": (m, n), "row": (n,), "column": (m, 1), "scalar": ()}[kind])
    shared_x, shared_y = edge_shares(x, 3, seed + 2), edge_shares(y, 4, seed + 4)
    doubled = total([product.multiply(i, shared_x[i], shared_y[i]) for i in PARTIES], 8)
    assert torch.equal(doubled, (x * y) << 1)
    flat_x = [s.map(lambda t: t.reshape(-1, 1, 1)) for s in shared_x]
    flat_y = [s.map(lambda t: t.expand(m, n).reshape(-1, 1, 1)) for s in shared_y]
    textbook = total([matmul_textbook(flat_x[i], flat_y[i]) for i in PARTIES], 7)
    assert torch.equal(doubled, textbook.reshape(m, n) << 1)


@settings(max_examples=30)
@given(seeds, sizes, st.lists(sizes, min_size=1, max_size=3), st.integers(1, 9))
def test_linear(seed: int, m: int, widths: list[int], n: int) -> None:
    """Stacked inputs at different scales: each block of rows of the weight is at 20 less its input's scale."""
    scales = tuple(range(4, 4 + len(widths)))
    inputs = [random(seed + 10 * j, m, width) for j, width in enumerate(widths)]
    weights = [random(seed + 10 * j + 1, width, n) for j, width in enumerate(widths)]
    bias = random(seed + 7, n)
    shared = [edge_shares(x, s, seed + 3) for x, s in zip(inputs, scales, strict=True)]
    blocks = [edge_shares(w, 20 - s, seed + 5) for w, s in zip(weights, scales, strict=True)]
    stacked = edge_shares(torch.cat(weights), 16, seed + 5)
    shared_bias = edge_shares(bias, 21, seed + 8)
    got = [
        Linear(i, stacked[i], shared_bias[i], scales).apply(*(halves[i] for halves in shared))
        for i in PARTIES
    ]
    doubled = total(got, 21)
    assert torch.equal(doubled, (clear(torch.cat(inputs, -1), torch.cat(weights)) << 1) + bias)
    textbook = torch.zeros(m, n, dtype=torch.int64)
    for x, w in zip(shared, blocks, strict=True):
        textbook += total([matmul_textbook(x[i], w[i]) for i in PARTIES], 20)
    assert torch.equal(doubled, (textbook << 1) + bias)


def test_linear_refuses_another_scale() -> None:
    x, y = share(random(1, 2, 3), 4), share(random(2, 2, 1), 6)
    layer = Linear(0, share(random(3, 4, 2), 16)[0], share(random(4, 2), 21)[0], (4, 5))
    with pytest.raises(ScaleError, match="input of a linear layer: scale 6 where 5 is needed"):
        layer.apply(x[0], y[0])
    with pytest.raises(ScaleError, match="scale 6 where 4 is needed"):
        layer.apply(y[0], x[0])
    with pytest.raises(ValueError, match="longer"):
        layer.apply(x[0])


def small(seed: int, m: int, k: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x, y with |x @ y| < 2^61, of every magnitude; the first row of x and column of y give the largest."""
    rng = np.random.default_rng(seed)
    bits = int(rng.integers(0, 59))
    x = rng.integers(-(2**bits), 2**bits + 1, (m, k))
    y = rng.integers(-(2 ** (58 - bits)), 2 ** (58 - bits) + 1, (k, n))  # k ≤ 5 < 2^3
    if seed % 2:
        x[0], y[:] = 0, 0
        x[0, 0], y[0] = rng.choice([LARGEST, -LARGEST]), rng.choice([1, -1], n)
        x[1:] = np.sign(x[1:]) * LARGEST
    return torch.from_numpy(x), torch.from_numpy(y)


@settings(max_examples=24)
@given(seeds, sizes, sizes, sizes, st.sampled_from([1, 2, 16, 33, 55, 60]), st.integers(0, 2))
def test_truncated_products_are_the_floor_or_one_more(
    seed: int, m: int, k: int, n: int, f: int, role_of: int
) -> None:
    x, y = small(seed, m, k, n)
    shared_x, shared_y = edge_shares(x, 40, seed + 2), edge_shares(y, 30, seed + 4)
    forms: dict[str, Any] = {
        "textbook": [matmul_textbook(shared_x[i], shared_y[i]) for i in PARTIES],
        "doubled": [product.matmul(i, shared_x[i], factor(i, shared_y[i])) for i in PARTIES],
    }
    z = clear(x, y)
    assert int(z.abs().max()) <= LARGEST
    for name, parts in forms.items():
        shift = f + (name == "doubled")
        run = run_role(role_of, lambda role, me, z=parts, by=shift: truncate(role, z[me], by))
        above = reconstruct(run.results) - (z >> f)
        assert run.results[0].scale == 70 - f
        assert set(above.unique().tolist()) <= {0, 1}, name
        whole = (z & ((1 << f) - 1)) == 0
        assert not above[whole].any(), f"{name}: an exact quotient is not rounded up"
