"""Functions on shares: error over the range, exact costs, true claims; norms, attention and the range check."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from running import run
from test_primitives import numbers
from three import JOB, share

from mpc_ray.functions.exp_digits import LEVELS
from mpc_ray.functions.piecewise import activation, row_function
from mpc_ray.models.plan import ACTIVATIONS
from mpc_ray.protocols.aby3.convert import add_gates, add_rounds
from mpc_ray.protocols.aby3.exponential import EXP_SCALE, exp_below_zero
from mpc_ray.protocols.aby3.norm import RowNorm, normalise
from mpc_ray.protocols.aby3.piecewise import activate, lookup, row_values
from mpc_ray.protocols.aby3.range_check import SUMS, RangeChecks
from mpc_ray.protocols.aby3.softmax import _below_zero
from mpc_ray.protocols.aby3.thresholds import compare_rounds, threshold_gates
from mpc_ray.sharing.fixed import encode


def real(x: torch.Tensor, scale: int) -> np.ndarray:
    return np.ldexp(x.numpy().astype(np.float64), -scale)


def test_an_activation_over_its_window() -> None:
    f = activation(ACTIVATIONS["gelu"], -8.0, 7.75, 4, 54, 35)
    x = np.linspace(-7.8, 7.5, 700)
    shares = share(encode(x, 54), 54)
    found = run(lambda place, me: activate(place, shares[me], f))
    error = np.abs(real(found.value, 35) - ACTIVATIONS["gelu"](x))
    assert error.max() < 2e-3 and error.mean() < 4e-4 and found.results[0].scale == 35
    assert found.rounds == add_rounds(f.n) + compare_rounds(f.n) + 3
    found.claims()


def test_a_function_of_one_piece_needs_no_comparison() -> None:
    f = activation(lambda x: 2 * x + 1, -8.0, 7.75, 4, 54, 35)
    x = np.linspace(-7.8, 7.5, 64)
    shares = share(encode(x, 54), 54)
    found = run(lambda place, me: activate(place, shares[me], f))
    assert not f.knots and np.abs(real(found.value, 35) - 2 * x - 1).max() < 3e-3
    found.claims()


@pytest.mark.parametrize("power", [-1.0, -0.5])
def test_a_row_function_over_its_range(power: float) -> None:
    f = row_function(lambda u: np.maximum(u, 0.1) ** power, 7, 27, 0.2)
    u = np.geomspace(0.21, 127, 500)
    shares = share(encode(u, 27), 27)
    found = run(lambda place, me: row_values(place, shares[me], f, 22))
    error = np.abs(real(found.value, 22) / u**power - 1)
    assert error.max() < 4e-3 and error.mean() < 3e-4 and found.results[0].scale == 22
    assert found.rounds == add_rounds(f.n) + compare_rounds(f.n) + 2 + 1 + 2
    found.claims()


def test_a_table_is_looked_up_exactly() -> None:
    table = numbers(1, 16)
    x = torch.arange(-40, 120)
    shares = share(x, 3)
    found = run(lambda place, me: lookup(place, shares[me], table, -8, 2, 9))
    assert torch.equal(found.value, table[((x + 8) >> 2) & 15]) and found.results[0].scale == 9
    found.claims()


def test_the_exponential() -> None:
    bits, scale = 6, 33
    x = np.concatenate([np.linspace(-12, -1e-6, 400), np.linspace(-200, -20, 112)])
    shares = share(encode(x, scale), scale)
    found = run(lambda place, me: exp_below_zero(place, shares[me], bits))
    value = real(found.value, EXP_SCALE)
    assert (np.abs(value - np.exp(x))[:400] <= 6e-3 * np.exp(x[:400]) + 3e-5).all()
    assert (np.abs(value[400:]) <= 2.0 ** (1 - EXP_SCALE)).all()
    levels = [(1 << bits) - LEVELS + j for j in range(LEVELS)]
    assert found.rounds == add_rounds(bits) + compare_rounds(bits) + 4
    gates = add_gates(bits) + threshold_gates(bits, levels)
    assert sum(found.payload) == 512 * (8 * (LEVELS + 3) + 16) + 3 * gates * 512 // 8
    found.claims()


def test_every_score_is_below_its_reference_and_the_largest_near_it() -> None:
    scores = np.random.default_rng(0).uniform(40, 90, (13, 64))
    scores[:, 5] = 50.0
    shares = share(encode(scores, 33), 33)
    found = run(lambda place, me: _below_zero(place, shares[me], 8))
    x = real(found.value, 33)
    assert (x < 0).all() and (x.max(0) >= -1.5).all()
    assert np.allclose(x - x[:1], scores - scores[:1], atol=1e-9)
    found.claims()


def test_rows_are_normalised() -> None:
    rng = np.random.default_rng(2)
    x = rng.standard_normal((70, 24)) * rng.uniform(0.5, 3, (70, 1))
    f = row_function(lambda u: (u / 24 + 1e-5) ** -0.5, 10, 34, 2.0)
    plan = RowNorm(17, f, 17, 2.0)
    checks = [RangeChecks(me, JOB) for me in range(3)]
    shares = share(encode(x, 50), 50)
    found = run(lambda place, me: normalise(place, shares[me], plan, checks[me]))
    wanted = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    assert np.abs(real(found.value, 34) - wanted).max() < 3e-3 and found.results[0].scale == 34
    found.claims()


def struck(x: torch.Tensor, m: int, centre: int = 0, texts: tuple[int, ...] = ()) -> list[bool]:
    """By job: whether the check of |x - centre| < 2^(m-1) reports anything."""
    shares = share(x)
    checks = [RangeChecks(me, JOB, True, texts) for me in range(3)]

    def body(place: object, me: int) -> object:
        checks[me].symmetric("layer/test", shares[me], m, centre)
        return checks[me].settle(place.runtime)  # type: ignore[attr-defined]

    found = run(body)  # type: ignore[arg-type]
    found.claims()
    sums = [result["layer/test"] for result in found.results]
    assert all(torch.equal(sums[i].next, sums[(i + 1) % 3].own) for i in range(3))
    total = sums[0].own ^ sums[1].own ^ sums[2].own
    assert total.shape == (max(1, len(texts)), SUMS)
    return [bool(row.any()) for row in total]


@pytest.mark.parametrize("m", [62, 40])
def test_the_range_check_is_silent_inside_and_strikes_outside(m: int) -> None:
    half, quarter = 1 << (m - 1), 1 << (m - 2)
    centre = 12345 << 8
    inside = torch.linspace(-1, 1, 500, dtype=torch.float64).mul(quarter - 1024).to(torch.int64) + centre
    assert struck(inside, m, centre) == [False]
    for far in (half, -half - 1, half + quarter, -2 * half):
        wrong = inside.clone()
        wrong[77] = far + centre
        assert struck(wrong, m, centre) == [True]


def test_the_range_check_tells_jobs_apart() -> None:
    x = torch.zeros((6, 70), dtype=torch.int64)
    x[5, 3] = 1 << 61
    assert struck(x, 62, 0, (1, 2, 3)) == [False, False, True]
    x[0, 0] = -(1 << 61) - 1
    assert struck(x, 62, 0, (1, 2, 3)) == [True, False, True]


@pytest.mark.parametrize(("factor", "reported"), [(1.0, False), (1.9, False), (0.2, True), (9.0, True)])
def test_a_sum_of_squares_is_checked_at_both_ends(factor: float, reported: bool) -> None:
    f = row_function(lambda u: u**-0.5, 6, 30, 2.0)
    u = np.array([4.0, 10.0, 15.0] * 30)
    u[50] = 4.0 * factor if factor < 1 else 15.0 * factor
    checks = [RangeChecks(me, JOB) for me in range(3)]
    shares = share(encode(u, 30), 30)

    def body(place: object, me: int) -> object:
        checks[me].positive("layer/test", shares[me], f, 2.0)
        return checks[me].settle(place.runtime)  # type: ignore[attr-defined]

    sums = [result["layer/test"] for result in run(body).results]  # type: ignore[arg-type]
    assert bool((sums[0].own ^ sums[1].own ^ sums[2].own).any()) is reported


def test_a_disabled_check_costs_nothing() -> None:
    checks = RangeChecks(0, JOB, enabled=False)
    checks.product("a/b", share(numbers(1, 3))[0])
    found = run(lambda place, me: checks.settle(place.runtime))
    assert found.results == [{}] * 3 and found.rounds == 0
