"""Splines, unit rows, layer norm and softmax on shares: whole windows, all roles and lengths, exact costs."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from three import JOB, share, summands
from transcript import UNCHECKED, run_role

from mpc_ray.errors import InputError, ScaleError
from mpc_ray.functions import elementary as plans
from mpc_ray.functions.plan import EXP_SCALE, NormPlan, SoftmaxPlan, exp_plan
from mpc_ray.functions.rows import (
    LayerNormPlan,
    l2_plan,
    layer_norm_plan,
    mask_depth,
    softmax_error,
    softmax_plan,
)
from mpc_ray.functions.spline import Spline
from mpc_ray.kernels.dpf import key_bytes
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.protocols.semi_honest.elementary import evaluate, l2_normalise, layer_norm, softmax
from mpc_ray.protocols.semi_honest.lookup import PLAIN_BITS
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.sharing.fixed import decode, encode
from mpc_ray.sharing.replicated import reconstruct

SCALE = 28
LENGTHS = (1, 2, 255, 256, 257, 512)
LOW, HIGH = -10.0, 10.0
roles = pytest.mark.parametrize("k", range(3))


def gelu(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * 0.5 * (1 + torch.erf(torch.from_numpy(x) / 2**0.5).numpy()))


FUNCTIONS: dict[str, tuple[Any, Any, tuple[float, float]]] = {
    "gelu": (plans.gelu, gelu, (-8, 8)),
    "silu": (plans.silu, lambda x: x / (1 + np.exp(-x)), (-8, 8)),
    "sigmoid": (plans.sigmoid, lambda x: 1 / (1 + np.exp(-x)), (-8, 8)),
    "tanh": (plans.tanh, np.tanh, (-5, 5)),
    "exp": (plans.exp, np.exp, (-12, 0)),
    "reciprocal": (plans.reciprocal, lambda x: 1 / x, (0.5, 100)),
    "rsqrt": (plans.rsqrt, lambda x: x**-0.5, (0.2, 100)),
}


@cache
def plan_of(name: str) -> Spline:
    make, _, used = FUNCTIONS[name]
    return make(*used, SCALE)


def one_hot_bytes(n: int) -> tuple[int, int]:
    """What D sends to E0 and to E1."""
    return (0, (1 << n) // 8) if n <= PLAIN_BITS else (key_bytes(n), key_bytes(n))


def answers(spline: Spline, x: torch.Tensor) -> torch.Tensor:
    """The four integers that the protocol may answer: index true or one high, position rounded down or up. (4, …)"""
    window, b = spline.window, spline.fraction
    u = x - window.low_units
    found = []
    for up in (0, 1):
        j = (u >> window.t) + up
        position = u - (j << window.t)
        exact = position << b
        for v in (exact >> window.t, -(-exact >> window.t)):
            total = torch.zeros_like(x)
            for row in spline.tables.flip(0):
                total = total * v + row[j & ((1 << window.n) - 1)]
            found.append(total)
    return torch.stack(found)


# -- splines -------------------------------------------------------------------------------------------


@roles
@pytest.mark.parametrize("name", FUNCTIONS)
def test_whole_window(name: str, k: int) -> None:
    """Every answer is one that the tables allow, over all usable cells; in the range the error keeps its bound."""
    _, f, used = FUNCTIONS[name]
    spline = plan_of(name)
    window = spline.window
    first = window.low_units
    last = first + (((1 << window.n) - 1) << window.t) - 1  # the last cell is a guard
    edges = [first, first + 1, first + (1 << window.t) - 1, last - (1 << window.t) + 1, last - 1, last]
    inside = np.random.default_rng(k).integers(first, last, 600, endpoint=True)
    x = torch.from_numpy(np.concatenate([edges, inside, [round(e * 2**SCALE) for e in used]]))
    z = summands(x, SCALE, seed=k)
    positive = window.low == 0
    run = run_role(k, lambda role, me: evaluate(role, z[me], spline, UNCHECKED))
    y = reconstruct(run.results)
    assert run.results[0].scale == spline.scale
    assert bool((y == answers(spline, x)).any(0).all())
    real = decode(x, SCALE)
    chosen = (real >= used[0]) & (real <= used[1])
    error = np.abs(decode(y, spline.scale) - f(np.where(chosen, real, used[1])))[chosen]
    if positive:
        error = error / f(real[chosen])
    assert error.max() <= spline.max_error * 1.02


@roles
@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("name", ["silu", "reciprocal"])
def test_lengths_and_cost(name: str, n: int, k: int) -> None:
    spline = plan_of(name)
    x = encode(np.random.default_rng(n).uniform(1, 8, n), SCALE)
    for z in (share(x, SCALE), summands(x, SCALE)):
        run = run_role(k, lambda role, me: evaluate(role, z[me], spline, UNCHECKED))  # noqa: B023
        assert bool((reconstruct(run.results) == answers(spline, x)).any(0).all())
        d, (to_e0, to_e1) = spline.degree, one_hot_bytes(spline.window.n)
        flag = name == "reciprocal"
        evaluator = n * (8 + 8 * (d + 1) + 8 + 8 * flag)
        assert run.rounds == 3
        assert run.payload == (evaluator, evaluator, n * (8 * (d + 2) + 16 * flag + to_e0 + to_e1))
        assert run.to_dealer == 0
        cost = plans.cost(spline.window.n, d, flag)
        assert (cost.evaluator * n, cost.to_e0, cost.total * n) == (evaluator, to_e0, sum(run.payload))


def flagged(k: int, x: np.ndarray, spline: Spline) -> bool:
    z = summands(encode(x, SCALE), SCALE)

    def body(role: Role, me: int) -> Protocol[dict[str, tuple[int, torch.Tensor]]]:
        checks = RangeChecks(JOB)
        yield from evaluate(role, z[me], spline, checks)
        return checks.finish()

    return any_set(run_role(k, body, function="f").results)


def any_set(found: list[dict[str, tuple[int, torch.Tensor]]]) -> bool:
    """What the client sees: whether any of the sums of all three parties is not zero."""
    assert found[0]
    for label, (bits, _) in found[0].items():
        total = sum(party[label][1] for party in found)
        if bool(((total & ((1 << bits) - 1)) != 0).any()):
            return True
    return False


@roles
@pytest.mark.parametrize("name", ["silu", "tanh", "reciprocal"])
def test_range_check(name: str, k: int) -> None:
    spline = plan_of(name)
    low, high = FUNCTIONS[name][2]
    window, positive = spline.window, spline.window.low == 0
    inside = np.linspace(low, high, 200)
    assert not flagged(k, inside, spline)
    above = window.low + window.width * (1 if positive else 1.25) + 1
    below = (
        [-1.0, -(2.0**-SCALE), 0.0, low - 2.01 * window.cell]
        if positive
        else [window.low - window.width / 4 - 1]
    )
    for outside in (above, *below):
        assert flagged(k, np.append(inside, outside), spline), outside


def test_scale_is_checked_before_any_message() -> None:
    z = summands(encode(np.ones(3), 20), 20)
    with pytest.raises(ScaleError, match="scale 20 where 28"):
        run_role(0, lambda role, me: evaluate(role, z[me], plan_of("silu"), UNCHECKED))


# -- rows ----------------------------------------------------------------------------------------------


@cache
def unit_plan(width: int) -> NormPlan:
    return l2_plan(width, 0.5, 16)


@cache
def norm_plan(width: int) -> LayerNormPlan:
    return layer_norm_plan(width, (0.5, 50), eps=1e-5, largest_gain=2, out_scale=20)


def norm_bytes(rows: int, width: int, plan: NormPlan, scale: int) -> tuple[int, int]:
    m, d = -(-max(0, scale - plan.centre_scale) // 8), plan.rsqrt.degree
    n = rows * width
    evaluator = 16 * n + rows * (16 + 8 * (d + 1))
    dealer = n * (8 + 2 * m + (d + 2) * (8 + m))
    dealer += rows * (24 + 8 * (d + 2) + sum(one_hot_bytes(plan.rsqrt.window.n)))
    return evaluator, dealer


@roles
@pytest.mark.parametrize("width", LENGTHS)
def test_unit_rows(width: int, k: int) -> None:
    rng = np.random.default_rng(width)
    x = rng.normal(size=(5, width))
    x *= (np.array([0.5, 0.51, 3, 15.9, 16]) / np.linalg.norm(x, axis=1))[:, None]
    plan = unit_plan(width)
    scale = 30
    z = summands(encode(x, scale), scale)
    run = run_role(k, lambda role, me: l2_normalise(role, z[me], plan, UNCHECKED))
    y = decode(reconstruct(run.results), run.results[0].scale)
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert (np.abs(y - expected) <= plans.TOLERANCE * (np.abs(expected) + 0.25) * 1.02).all()
    evaluator, dealer = norm_bytes(5, width, plan, scale)
    assert (run.rounds, run.payload) == (4, (evaluator, evaluator, dealer))


def test_small_scales_are_raised() -> None:
    x = np.array([[3.0, 4.0]])
    shares = share(encode(x, 4), 4)
    run = run_role(2, lambda role, me: l2_normalise(role, shares[me], unit_plan(2), UNCHECKED))
    assert decode(reconstruct(run.results), run.results[0].scale) == pytest.approx(
        np.array([[0.6, 0.8]]), abs=1e-4
    )
    evaluator, dealer = norm_bytes(1, 2, unit_plan(2), 4)
    assert run.payload == (evaluator, evaluator, dealer)


@roles
@pytest.mark.parametrize("width", LENGTHS[1:])
def test_layer_norm(width: int, k: int) -> None:
    rng = np.random.default_rng(width)
    plan = norm_plan(width)
    x = rng.normal(size=(4, width))
    x = (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)
    x = x * np.sqrt([[0.5], [0.6], [10], [50]]) + np.array([[0], [40], [-200], [7]])  # means are removed here
    gain, bias = rng.uniform(-2, 2, width), rng.uniform(-3, 3, width)
    scale = 20
    shares = share(encode(x, scale), scale)
    gains = share(encode(gain, plan.gain_scale), plan.gain_scale, seed=5)
    biases = share(encode(bias, 20), 20, seed=6)
    run = run_role(k, lambda role, me: layer_norm(role, shares[me], plan, gains[me], biases[me], UNCHECKED))
    y = decode(reconstruct(run.results), run.results[0].scale)
    centred = x - x.mean(1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)
    gain_step = 2.0 ** -(plan.gain_scale + 1)
    bound = 2e-4 * (np.abs(normal) + 0.25) * 2 + np.abs(normal) * gain_step + 2.0**-19 + 2.0**-15
    assert (np.abs(y - (normal * gain + bias)) <= bound).all()
    assert run.results[0].scale == plan.out_scale
    evaluator, dealer = norm_bytes(4, width, plan.norm, scale)
    n, g = 4 * width, plan.norm.scale + plan.gain_scale + 1 - plan.out_scale
    assert run.rounds == 6
    assert run.payload == (evaluator + 16 * n, evaluator + 16 * n, dealer + n * (8 + -(-g // 8)))


def test_layer_norm_of_another_width() -> None:
    x, g = share(encode(np.ones((2, 3)), 20), 20), share(encode(np.ones(3), 16), 16)
    with pytest.raises(InputError, match="rows of 3"):
        run_role(0, lambda role, me: layer_norm(role, x[me], norm_plan(255), g[me], g[me], UNCHECKED))


# -- softmax -------------------------------------------------------------------------------------------


@cache
def scores_plan(length: int, masked: bool = False) -> SoftmaxPlan:
    return softmax_plan(LOW, HIGH, length, SCALE, masked=masked)


def some_rows(n: int, seed: int) -> np.ndarray:
    """Spread, one high, all equal, all low but the last, and the two edges of the range."""
    rng = np.random.default_rng(seed)
    x = np.full((6, n), LOW)
    x[0] = rng.uniform(LOW, HIGH, n)
    x[1] = rng.normal(-5, 1, n).clip(LOW, HIGH)
    x[1, rng.integers(n)] = 2.9
    x[2] = rng.uniform(LOW, HIGH)
    x[3, -1] = HIGH
    x[4] = HIGH
    return x


def true_softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def assert_close(y: np.ndarray, expected: np.ndarray, plan: SoftmaxPlan) -> None:
    n = y.shape[-1]
    relative, absolute = softmax_error(plan)
    assert (np.abs(y - expected) <= relative * expected + absolute * (1 + n * expected)).all()
    assert np.abs(y - expected).mean() <= 1e-3 / n  # what is usual
    assert np.abs(y.sum(-1) - 1).max() <= plan.reciprocal.max_error + 2.0 ** (9 - plan.context_scale) * n


def softmax_bytes(rows: int, n: int, plan: SoftmaxPlan) -> tuple[int, int]:
    b, k, d = plan.buckets[0], plan.count_bits, plan.reciprocal.degree
    m = -(-(EXP_SCALE - plan.context_scale) // 8)
    scores, cells = rows * n, 1 << exp_plan(b, plan.bucket_log).bits
    counts = -(-rows * (b - 1) * k // 8)
    evaluator = 32 * scores + counts + rows * (b // 8 + 8 + 8 * (d + 1))
    code = -(-scores * b * k // 8)
    dealer = code + scores * (cells // 8 + 16 + (d + 2) * (8 + m))
    dealer += rows * (
        (b - 1) * (1 << k) // 8 + 2 + 8 * (d + 2) + sum(one_hot_bytes(plan.reciprocal.window.n))
    )
    return evaluator, dealer


@roles
@pytest.mark.parametrize("n", LENGTHS)
def test_softmax(n: int, k: int) -> None:
    plan = scores_plan(n)
    x = some_rows(n, n + k)
    z = summands(encode(x, SCALE), SCALE)
    run = run_role(k, lambda role, me: softmax(role, z[me], plan, UNCHECKED))
    y = decode(reconstruct(run.results), run.results[0].scale)
    assert run.results[0].scale == plan.scale
    assert_close(y, true_softmax(x), plan)
    evaluator, dealer = softmax_bytes(6, n, plan)
    assert run.rounds == 8
    assert run.payload == (evaluator, evaluator, dealer)


@roles
@pytest.mark.parametrize("n", [2, 100, 255, 256])
def test_public_and_shared_masks(n: int, k: int) -> None:
    x = some_rows(n, n).reshape(2, 3, n)
    rng = np.random.default_rng(n)
    there = rng.integers(0, 2, (2, 1, n))
    there[..., 0] = 1
    shares = share(encode(x, SCALE), SCALE)

    plan = scores_plan(n)
    keep = torch.from_numpy(there.astype(np.uint8))
    run = run_role(k, lambda role, me: softmax(role, shares[me], plan, UNCHECKED, keep=keep))
    y = decode(reconstruct(run.results), plan.scale)
    assert_close(y, true_softmax(np.where(there, x, -np.inf)), plan)
    assert (y[np.broadcast_to(there, y.shape) == 0] == 0).all()

    plan = scores_plan(n, masked=True)
    depth = mask_depth(LOW, HIGH, plan.bucket_log)
    masks = share(encode((there - 1) * depth, SCALE), SCALE, seed=9)
    run = run_role(k, lambda role, me: softmax(role, shares[me], plan, UNCHECKED, mask=masks[me]))
    y = decode(reconstruct(run.results), plan.scale)
    assert_close(y, true_softmax(np.where(there, x, -np.inf)), plan)
    assert run.rounds == 8


@pytest.mark.parametrize(("n", "bits"), [(256, 8), (257, 8), (512, 9), (512, 8)])
def test_counts_that_would_wrap_are_refused_before_any_message(n: int, bits: int) -> None:
    plan = replace(scores_plan(256), count_bits=bits)
    z = summands(torch.zeros(2, n, dtype=torch.int64), SCALE)
    meters = []

    def body(role: Role, me: int) -> Protocol[Any]:
        meters.append(role.runtime.channel.meter)
        return softmax(role, z[me], plan, UNCHECKED)

    with pytest.raises(InputError, match=f"rows of {n} scores"):
        run_role(0, body)
    assert [meter.frames_sent for meter in meters] == [0, 0, 0]


def test_a_row_must_keep_a_score() -> None:
    z = summands(torch.zeros(2, 4, dtype=torch.int64), SCALE)
    keep = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.uint8)
    with pytest.raises(InputError, match="without a score to keep"):
        run_role(0, lambda role, me: softmax(role, z[me], scores_plan(2), UNCHECKED, keep=keep))


def test_softmax_range_check() -> None:
    plan = scores_plan(2)
    for value, flag in ((HIGH, False), (LOW, False), (HIGH + 45, True), (LOW - 40, True)):
        z = summands(encode(np.array([[0.0, value]]), SCALE), SCALE)

        def body(role: Role, me: int) -> Protocol[Any]:
            checks = RangeChecks(JOB)
            yield from softmax(role, z[me], plan, checks)  # noqa: B023
            return checks.finish()

        found = run_role(1, body, function="softmax").results
        assert any_set(found) == flag, value


def test_theta_fits_its_byte() -> None:
    for n in LENGTHS:
        plan = scores_plan(n)
        exp = exp_plan(plan.buckets[0], plan.bucket_log)
        fine = min(plan.bucket_log, exp.cell_log)
        assert math.log2(plan.buckets[0]) + plan.bucket_log - fine <= 8
