"""The compiled loops keep their books, and do what they say."""

from __future__ import annotations

import numpy as np
import pytest

from mpc_ray.planner.assignment import generate
from mpc_ray.planner.assignment.chains import Schedule, anneal
from mpc_ray.planner.assignment.descent import descend, overload_price
from mpc_ray.planner.assignment.potts import bifurcate
from mpc_ray.planner.assignment.prices import prices
from mpc_ray.planner.assignment.state import State, Table, seeds, state, table
from mpc_ray.planner.draws import below

GO, STOP = np.zeros(1, np.int64), np.ones(1, np.int64)


def consistent(t: Table, s: State) -> None:
    jobs = np.arange(len(s.agent))
    assert s.load == pytest.approx(np.bincount(s.agent, t.need[jobs, s.agent], len(t.room)))
    for agent in range(len(t.room)):
        listed = s.member[agent, : s.held[agent]]
        assert sorted(listed) == np.flatnonzero(s.agent == agent).tolist()
        assert (s.place[listed] == np.arange(len(listed))).all()


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["c", "d"])
def test_a_walk_keeps_its_books(kind: str, depth: int) -> None:
    problem = generate(kind, 6, 40, 1)
    t = table(problem, prices(problem).unit, 4)
    s = state(t, t.choice[:, 0])
    best, done = np.zeros(40, np.int64), np.zeros(2, np.int64)
    plan = Schedule(20_000, 5.0, 0.2, 1.5, 0.8, depth)
    least = anneal(t, s, plan, seeds(1, 1)[0], best, np.inf, GO, done)
    consistent(t, s)
    assert done[0] == 20_000 and 0 < done[1] < 20_000
    if np.isfinite(least):
        assert problem.violations(best) == []
        assert problem.cost_of(best) == least
    else:
        assert depth == 1


def test_chains_find_what_shifts_alone_do_not() -> None:
    problem = generate("d", 10, 60, 3)
    t = table(problem, prices(problem).unit, 4)

    def least(depth: int) -> float:
        best, done = np.zeros(60, np.int64), np.zeros(2, np.int64)
        plan = Schedule(30_000, 1.0, 0.05, 1.5, 0.8, depth)
        return float(
            min(
                anneal(t, state(t, t.choice[:, 0]), plan, seed, best, np.inf, GO, done)
                for seed in seeds(7, 3)
            )
        )

    assert least(4) < least(1)


def test_a_walk_stops_when_told() -> None:
    problem = generate("c", 5, 30, 1)
    t = table(problem, prices(problem).unit, 4)
    done = np.zeros(2, np.int64)
    plan = Schedule(10**12, 1.0, 0.1, 1.5, 0.8, 4)
    anneal(t, state(t, t.choice[:, 0]), plan, seeds(1, 1)[0], np.zeros(30, np.int64), np.inf, STOP, done)
    assert done[0] == 0


@pytest.mark.parametrize("kind", ["a", "c", "d", "e"])
def test_descent_ends_where_no_shift_or_swap_helps(kind: str) -> None:
    problem = generate(kind, 5, 25, 2)
    t = table(problem, prices(problem).unit, 5)
    s = state(t, np.random.default_rng(3).integers(0, 5, 25))
    cost = descend(t, s, overload_price(t), GO)
    consistent(t, s)
    if not np.isfinite(cost):
        assert kind != "a"
        return
    assert problem.violations(s.agent) == [] and problem.cost_of(s.agent) == pytest.approx(cost)
    for j in range(25):
        for other in range(25):
            for to in range(5):
                tried = s.agent.copy()
                tried[j] = to
                if other != j:  # a swap
                    tried[j], tried[other] = tried[other], s.agent[j]
                assert problem.violations(tried) or problem.cost_of(tried) >= cost - 1e-6


def test_bifurcation_chooses_among_the_cheapest_and_differs_by_seed() -> None:
    problem = generate("c", 6, 40, 1)
    t = table(problem, prices(problem).unit, 3)
    first, second = (bifurcate(t, 100, seed, GO) for seed in seeds(1, 2))
    assert (first != second).any()
    for chosen in (first, second):
        assert all(chosen[j] in t.choice[j] for j in range(40))
    # Better than chance by far: priced cost near the cheapest.
    chance = t.extra[
        np.arange(40), t.choice[np.arange(40), np.random.default_rng(1).integers(0, 3, 40)]
    ].sum()
    assert t.extra[np.arange(40), first].sum() < 0.7 * chance


def test_draws_are_uniform() -> None:
    seed = seeds(5, 1)[0]
    counts = np.bincount([below(seed, 10) for _ in range(20_000)], minlength=10)
    assert ((counts - 2000) ** 2 / 2000).sum() < 30  # chi square with 9 degrees: 1 in 2,000


def test_jobs_are_never_offered_what_they_do_not_fit() -> None:
    problem = generate("c", 6, 30, 1)
    needs = problem.needs.copy()
    needs[1:, 0] = 1e6  # job 0 fits agent 0 alone
    from mpc_ray.planner.assignment import Assignment

    narrow = Assignment(problem.costs, needs, problem.capacities)
    t = table(narrow, prices(narrow).unit, 4)
    assert t.choice[0].tolist() == [0, 0, 0, 0]
    assert np.isinf(t.extra[0, 1:]).all()
