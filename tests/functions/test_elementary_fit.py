"""Plans of the elementary functions: the error they promise, where their windows lie, what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mpc_ray.errors import ScaleError
from mpc_ray.functions import elementary as plans
from mpc_ray.functions.rows import l2_plan, layer_norm_plan, mask_depth, softmax_error, softmax_plan
from mpc_ray.functions.spline import Spline
from mpc_ray.kernels.dpf import key_bytes


def gelu(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * 0.5 * (1 + torch.erf(torch.from_numpy(x) / 2**0.5).numpy()))


CENTRED: list[tuple[str, Callable[..., Spline], Any, tuple[float, float]]] = [
    ("gelu", plans.gelu, gelu, (-8.0, 8.0)),
    ("gelu, lopsided", plans.gelu, gelu, (-3.1, 20.7)),
    ("silu", plans.silu, lambda x: x / (1 + np.exp(-x)), (-8.0, 8.0)),
    ("sigmoid", plans.sigmoid, lambda x: 1 / (1 + np.exp(-x)), (-8.0, 8.0)),
    ("sigmoid, wide", plans.sigmoid, lambda x: 1 / (1 + np.exp(-x)), (-100.0, 300.0)),
    ("tanh", plans.tanh, np.tanh, (-5.0, 5.0)),
    ("exp", plans.exp, np.exp, (-16.0, 0.0)),
    ("exp, growing", plans.exp, np.exp, (-3.0, 5.0)),
]
POSITIVE: list[tuple[str, Callable[..., Spline], Any, tuple[float, float]]] = [
    ("reciprocal", plans.reciprocal, lambda x: 1 / x, (0.5, 100.0)),
    ("reciprocal, narrow", plans.reciprocal, lambda x: 1 / x, (3.0, 3.5)),
    ("rsqrt", plans.rsqrt, lambda x: x**-0.5, (0.1, 100.0)),
]


def value(spline: Spline, j: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The tables' polynomial, in exact integers."""
    total = np.zeros(j.shape, dtype=object)
    for row in spline.tables.numpy().astype(object)[::-1]:
        total = total * v.astype(object) + row[j]
    return np.array([int(t) / 2**spline.scale for t in total])


def errors(spline: Spline, f: Any, x: np.ndarray) -> np.ndarray:
    """The largest of what the protocol may answer for x: two cells, position rounded down or up."""
    units = (x - spline.window.low) / spline.window.cell
    worst = np.zeros_like(x)
    for up in (0, 1):
        j = np.floor(units).astype(np.int64) + up
        exact = np.ldexp(units - j, spline.fraction)
        for v in (np.floor(exact), np.ceil(exact)):
            worst = np.maximum(worst, np.abs(value(spline, j, v.astype(np.int64)) - f(x)))
    return worst


@pytest.mark.parametrize(("name", "make", "f", "used"), CENTRED, ids=[c[0] for c in CENTRED])
def test_centred_functions(name: str, make: Callable[..., Spline], f: Any, used: tuple[float, float]) -> None:
    spline = make(*used, 32)
    window = spline.window
    size = math.exp(used[1]) if "exp" in name else 1.0
    assert spline.max_error <= plans.TOLERANCE * size
    x = np.concatenate([np.random.default_rng(1).uniform(*used, 4000), used])
    assert errors(spline, f, x).max() <= spline.max_error * 1.05
    assert window.low + window.width / 4 <= used[0] + 2.0**-30
    assert used[1] <= window.low + 3 * window.width / 4 + 2.0**-30
    assert int(spline.tables.abs().max()) < 2**62


@pytest.mark.parametrize(("name", "make", "f", "used"), POSITIVE, ids=[c[0] for c in POSITIVE])
def test_positive_functions(
    name: str, make: Callable[..., Spline], f: Any, used: tuple[float, float]
) -> None:
    spline = make(*used, 30)
    x = np.concatenate([np.exp(np.random.default_rng(1).uniform(*np.log(used), 4000)), used])
    assert (errors(spline, f, x) / f(x)).max() <= spline.max_error * 1.05 <= plans.TOLERANCE * 1.05
    assert spline.window.low == 0
    assert used[1] <= spline.window.width / 2


def test_tails_stay_saturated() -> None:
    """No clamp: over the whole window, guard cell aside, the tails are the function's."""
    for make, f in ((plans.sigmoid, lambda x: 1 / (1 + np.exp(-x))), (plans.tanh, np.tanh)):
        spline = make(-8.0, 8.0, 32)
        x = np.linspace(spline.window.low + spline.window.cell, spline.window.high - spline.window.cell, 3001)
        assert errors(spline, f, x).max() <= 2 * plans.TOLERANCE


def test_cheapest_and_cost() -> None:
    loose, tight = plans.gelu(-8, 8, 32, tolerance=1e-2), plans.gelu(-8, 8, 32, tolerance=1e-5)
    costs = [plans.cost(s.window.n, s.degree).total for s in (loose, plans.gelu(-8, 8, 32), tight)]
    assert costs == sorted(costs)
    assert costs[0] < costs[2]
    assert plans.cost(8, 2) == plans.Cost(evaluator=40, to_e0=0, to_e1=64)
    assert plans.cost(16, 1) == plans.Cost(evaluator=32, to_e0=key_bytes(16), to_e1=key_bytes(16) + 24)
    assert plans.cost(8, 2).total == 64 + 24 * 2 + 32
    assert plans.cost(8, 2, flag=True).total == plans.cost(8, 2).total + 32
    assert plans.cost(16, 1).total == 64 + 24 + 326
    row = plans.rsqrt(1, 100, 30, row=10_000)
    assert row.degree <= plans.rsqrt(1, 100, 30).degree


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: plans.gelu(1, 1, 32), "range .* is empty"),
        (lambda: plans.gelu(-8, 8, 60), "does not fit the ring"),
        (lambda: plans.gelu(-8, 8, 32, out_scale=8), "no window"),
        (lambda: plans.exp(0, 40, 20, out_scale=30), "does not fit the ring at scale 30"),
        (lambda: plans.reciprocal(0, 4, 30), "not positive"),
        (lambda: plans.rsqrt(2, 1, 30), "not positive"),
        (lambda: plans.reciprocal(1e-3, 1e3, 30), "no window"),
        (lambda: softmax_plan(-500, 500, 32, 32), "window of 1024 buckets"),
        (lambda: softmax_plan(3, 3, 32, 32), "is empty"),
        (lambda: layer_norm_plan(768, (1e-3, 10)), "no window"),
        (lambda: layer_norm_plan(768, (1e-6, 1e3)), "do not fit the ring"),
    ],
)
def test_refusals(make: Callable[[], Any], match: str) -> None:
    with pytest.raises(ScaleError, match=match):
        make()


def test_row_plans() -> None:
    unit = l2_plan(32, 0.5, 20)
    assert unit.scale == 48
    assert unit.rsqrt.window.scale == 2 * unit.centre_scale
    assert 2.0**-unit.centre_scale / 0.5 <= plans.TOLERANCE / 4
    norm = layer_norm_plan(384, (0.1, 10), largest_gain=2)
    assert math.log2(2 * math.sqrt(384) * 2) + norm.norm.scale + norm.gain_scale + 1 <= 62


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [1, 128, 257])
def test_softmax_plans(length: int, masked: bool) -> None:
    low, high = -9.3, 10.4
    plan = softmax_plan(low, high, length, 30, masked=masked)
    bottom = low - (mask_depth(low, high, plan.bucket_log) if masked else 0)
    width = plan.buckets[0] * plan.bucket
    assert plan.low[0] + width / 4 <= bottom
    assert high <= plan.low[0] + 3 * width / 4
    assert length < 1 << plan.count_bits
    assert plan.scale == 44
    relative, absolute = softmax_error(plan)
    assert plan.reciprocal.max_error < relative < 0.02
    assert 0 < absolute < 3e-3
