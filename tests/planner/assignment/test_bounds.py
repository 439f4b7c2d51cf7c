"""Bounds are below the optimum, proofs are right: against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from mpc_ray.planner.assignment import Assignment, generate
from mpc_ray.planner.assignment.knapsacks import MAX_CELLS, climb, knapsacks, rises, start
from mpc_ray.planner.assignment.prices import misfit, prices, reduced_costs

from .brute import optimum, small

GO = np.zeros(1, np.int64)


def linear(problem: Assignment) -> float:
    """The linear relaxation, by HiGHS."""
    m, n = problem.agents, problem.jobs
    room = np.zeros((m, m * n))
    once = np.zeros((n, m * n))
    for i in range(m):
        room[i, i * n : (i + 1) * n] = problem.needs[i]
        once[np.arange(n), i * n + np.arange(n)] = 1
    result = linprog(
        problem.costs.ravel(), A_ub=room, b_ub=problem.capacities, A_eq=once, b_eq=np.ones(n), method="highs"
    )
    return float(result.fun)


@pytest.mark.parametrize(("kind", "close"), [("a", 1e-4), ("c", 1e-4), ("d", 1e-4), ("e", 2e-3)])
def test_prices_reach_the_linear_bound(kind: str, close: float) -> None:
    problem = generate(kind, 5, 60, 2)
    bound, best = prices(problem).bound, linear(problem)
    assert best * (1 - close) <= bound <= best * (1 + 1e-9)


def test_reduced_costs_split_the_cost_of_any_assignment() -> None:
    problem = generate("c", 3, 12, 5)
    priced = prices(problem)
    extra = reduced_costs(problem, priced.unit)
    agents = np.random.default_rng(1).integers(0, 3, 12)
    unused = priced.unit @ (problem.capacities - problem.loads(agents))
    said = priced.bound + extra[agents, np.arange(12)].sum() + unused
    assert said == pytest.approx(problem.cost_of(agents))


@pytest.mark.parametrize("seed", range(12))
def test_no_bound_is_above_the_optimum(seed: int) -> None:
    problem = small(seed, tightness=1.1)
    best = optimum(problem)
    reason = misfit(problem)
    if reason:
        assert best == np.inf
        return
    if best == np.inf:
        pytest.skip("nothing fits, and it takes a search to see it")
    priced = prices(problem)
    sacks = knapsacks(problem)
    assert sacks is not None
    rewards = start(problem, priced.unit)
    climb(sacks, rewards, 100, best, GO)
    assert priced.bound <= best + 1e-6
    assert priced.bound - 1e-6 <= rewards.bound <= best + 1e-6
    rise = rises(sacks, rewards)
    assert rise.min() >= 0
    for agent in range(problem.agents):
        for job in range(problem.jobs):
            assert rewards.bound + rise[agent, job] <= optimum(problem, (agent, job)) + 1e-6


def test_the_knapsack_bound_is_the_better_one() -> None:
    problem = generate("c", 10, 60, 1)
    priced = prices(problem)
    sacks = knapsacks(problem)
    assert sacks is not None
    rewards = start(problem, priced.unit)
    climb(sacks, rewards, 150, priced.bound * 1.01, GO)
    assert rewards.bound > priced.bound + 1


def test_a_climb_goes_on_and_can_be_stopped() -> None:
    problem = generate("d", 4, 30, 1)
    sacks = knapsacks(problem)
    assert sacks is not None
    whole, parts = (start(problem, prices(problem).unit) for _ in range(2))
    climb(sacks, whole, 40, 3000.0, GO)
    for _ in range(4):
        climb(sacks, parts, 10, 3000.0, GO)
    assert parts.bound == whole.bound and (parts.now == whole.now).all()
    climb(sacks, parts, 10, 3000.0, np.ones(1, np.int64))
    assert (parts.now == whole.now).all()


def test_tables_that_would_be_too_large_are_not_made() -> None:
    ones = np.ones((2, 3))
    assert knapsacks(Assignment(ones, ones / 3, np.ones(2))) is None
    wide = np.array([[1.0, 3.0, float(MAX_CELLS)]])
    assert knapsacks(Assignment(np.ones((1, 3)), wide, np.array([2.0 * MAX_CELLS]))) is None
    # But room beyond all needs costs nothing.
    assert knapsacks(Assignment(ones, ones, np.full(2, 1e12))) is not None


def test_misfits_are_named() -> None:
    needs = np.full((2, 4), 3.0)
    needs[:, 2] = 9
    lone = Assignment(np.ones((2, 4)), needs, np.array([7.0, 8.0]))
    assert misfit(lone).startswith(
        "job 2 fits no agent: agent 1 lacks least, with a capacity of 8 for a need of 9"
    )
    total = Assignment(np.ones((2, 4)), np.full((2, 4), 3.0), np.array([5.0, 6.0]))
    assert misfit(total) == "all jobs need 12 at least, and all capacities together are 11"


def test_capacities_can_be_too_small_only_when_weighted() -> None:
    # Agent 1 is ten times slower: the least needs, 8, are below both capacities together, 16.
    problem = Assignment(np.ones((2, 8)), np.array([[1.0] * 8, [10.0] * 8]), np.array([4.0, 12.0]))
    assert "weighted by" in misfit(problem)
    assert misfit(Assignment(np.ones((2, 8)), problem.needs, np.array([7.0, 12.0]))) == ""
