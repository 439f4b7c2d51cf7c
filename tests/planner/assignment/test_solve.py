"""Solvers by name: rules kept, optima found and proved, impossibility told, budgets obeyed."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from mpc_ray.planner import ProblemError
from mpc_ray.planner.assignment import SOLVERS, Answer, Assignment, GapSettings, exact, generate, solve
from mpc_ray.planner.assignment.chains import anneal
from mpc_ray.planner.assignment.descent import descend
from mpc_ray.planner.assignment.knapsacks import _climb as knapsack_climb
from mpc_ray.planner.assignment.knapsacks import _rises as rise_loop
from mpc_ray.planner.assignment.potts import bifurcate
from mpc_ray.planner.assignment.prices import _climb

from .brute import optimum, small

QUICK = {"annealing": 20_000, "prices-greedy": 1, "descent": 40, "potts-sb": 10, "cp-sat": 150}


def checked(problem: Assignment, answer: Answer) -> None:
    if answer.agents is None:
        assert answer.cost is None and answer.gap is None and not answer.feasible
        return
    agents = np.array(answer.agents)
    assert answer.feasible and problem.violations(agents) == []
    assert answer.cost == problem.cost_of(agents)
    assert answer.bound is None or answer.bound <= answer.cost
    assert [cost for _, cost in answer.trace] == sorted({cost for _, cost in answer.trace}, reverse=True)
    assert answer.trace[-1][1] == answer.cost


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["a", "d"])
def test_every_solver_keeps_the_rules(kind: str, solver: str) -> None:
    problem = generate(kind, 5, 30, 4)
    answer = solve(problem, moves=QUICK[solver], solver=solver, seed=2)
    checked(problem, answer)
    assert answer.solver == solver
    assert answer.feasible
    assert answer.gap is not None and answer.gap < 0.15


@pytest.mark.parametrize("seed", range(10))
def test_small_problems_are_settled_by_proof(seed: int) -> None:
    problem = small(seed, tightness=1.0)
    best = optimum(problem)
    answer = solve(problem, moves=30_000, seed=seed)
    checked(problem, answer)
    if best == np.inf:
        assert answer.status == "infeasible" and answer.reason
    else:
        assert answer.status == "optimal" and answer.cost == best == answer.bound


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_same_seed_and_moves_give_the_same_assignment(solver: str) -> None:
    problem = generate("c", 8, 60, 1)
    first, second = (solve(problem, moves=QUICK[solver], solver=solver, seed=3) for _ in range(2))
    assert first.agents == second.agents and first.agents is not None
    if solver == "descent":  # others may find the same best from another seed
        assert solve(problem, moves=QUICK[solver], solver=solver, seed=4).agents != first.agents


def test_the_default_is_better_than_its_controls() -> None:
    problem = generate("d", 10, 80, 1)
    costs = {name: solve(problem, moves=moves, solver=name).cost for name, moves in QUICK.items()}
    best = solve(problem, moves=200_000).cost
    assert best is not None
    for name in ("prices-greedy", "descent", "potts-sb"):
        assert costs[name] is None or best < costs[name]


def test_the_default_is_within_the_target_on_hard_types() -> None:
    for kind in "de":
        answer = solve(generate(kind, 10, 80, 2), moves=400_000)
        assert answer.gap is not None and answer.gap < 0.007


def test_impossible_problems_are_told_apart_from_unsolved_ones() -> None:
    # Two agents of 10, four jobs of 6: enough room together, but one job an agent.
    problem = Assignment(np.ones((2, 3)), np.full((2, 3), 6.0), np.array([10.0, 10.0]))
    assert solve(problem, moves=1000).status == "infeasible"
    proved = solve(problem, moves=1000, solver="cp-sat")
    assert proved.status == "infeasible" and "CP-SAT" in proved.reason and proved.bound is None
    control = solve(problem, moves=10, solver="descent")
    assert control.status == "none found" and control.reason == ""
    checked(problem, control)


def test_simple_impossibility_needs_no_solver() -> None:
    problem = Assignment(np.ones((2, 3)), np.full((2, 3), 6.0), np.array([5.0, 5.0]))
    for solver in SOLVERS:
        answer = solve(problem, moves=1, solver=solver)
        assert answer.status == "infeasible" and "job 0 fits no agent" in answer.reason


def test_tight_problems_are_saved_by_cp_sat() -> None:
    """One assignment in 4^16 keeps the capacities; walks do not meet it, CP-SAT does."""
    draw = np.random.default_rng(5)
    needs = draw.integers(20, 99, (4, 16)).astype(float)
    agents = draw.integers(0, 4, 16)
    room = np.bincount(agents, needs[agents, np.arange(16)], 4)
    problem = Assignment(draw.integers(1, 50, (4, 16)).astype(float), needs, room)
    answer = solve(problem, seconds=20)
    checked(problem, answer)
    assert answer.feasible


def test_without_or_tools_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "installed", lambda: False)
    problem = Assignment(np.ones((2, 3)), np.full((2, 3), 6.0), np.array([10.0, 10.0]))
    assert solve(problem, moves=20_000).status == "none found"
    with pytest.raises(ProblemError, match=r"needs the package ortools: pip install 'mpc-ray\[planner\]'"):
        solve(problem, solver="cp-sat", seconds=1)


def test_decimals_are_exact_and_fractions_are_solved() -> None:
    whole = small(3, tightness=1.2)
    best = optimum(whole)
    tenths = Assignment(whole.costs / 10, whole.needs / 10, whole.capacities / 10)
    answer = solve(tenths, moves=20_000)
    assert answer.status == "optimal" and answer.cost == pytest.approx(best / 10)
    thirds = Assignment(whole.costs / 3, whole.needs / 3, whole.capacities / 3)
    answer = solve(thirds, moves=20_000)
    checked(thirds, answer)
    assert answer.cost == pytest.approx(best / 3)
    with pytest.raises(ProblemError, match="costs have too many digits"):
        solve(thirds, solver="cp-sat", seconds=1)


@pytest.mark.parametrize("solver", ["annealing", "descent", "potts-sb", "cp-sat"])
def test_the_clock_is_kept(solver: str) -> None:
    problem = generate("d", 20, 200, 1)
    began = time.perf_counter()
    answer = solve(problem, seconds=0.4, solver=solver)
    assert time.perf_counter() - began < 15  # generous: the machine may be busy
    checked(problem, answer)


def test_progress_is_told_from_the_first_bound_on() -> None:
    seen: list[tuple[float, float | None, float | None]] = []
    solve(generate("c", 5, 30, 1), moves=2000, threads=1, progress=lambda *said: seen.append(said))
    assert seen[0][1] is None and seen[0][2] is not None
    assert seen[-1][1] is not None


def test_an_error_in_a_thread_is_raised_to_the_caller() -> None:
    def angry(*_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("from a thread")

    with pytest.raises(RuntimeError, match="from a thread"):
        solve(generate("c", 5, 30, 1), seconds=30, progress=angry)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"solver": "magic"}, "no solver 'magic': solvers are annealing"),
        ({"seconds": 0.0}, "seconds are 0"),
        ({"seconds": float("nan")}, "seconds are nan"),
        ({"moves": 0}, "must be at least 1"),
        ({"threads": 0}, "must be at least 1"),
        ({"seed": -1}, "not below 0"),
    ],
)
def test_budgets_that_make_no_sense_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        solve(small(1), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (2, 2), (1, 1)])
def test_the_smallest_problems_work(shape: tuple[int, int]) -> None:
    problem = Assignment(np.ones(shape), np.ones(shape), np.full(shape[0], float(shape[1])))
    for solver in SOLVERS:
        answer = solve(problem, moves=10, solver=solver)
        checked(problem, answer)
        assert answer.cost == shape[1]


def test_loops_are_compiled_once() -> None:
    """Else a solver would compile while its clock runs: `warm` must meet every kind of array that problems bring."""
    for shape in ((1, 4), (4, 1), (3, 5)):
        for scale in (1.0, 0.1, 1 / 3):
            problem = Assignment(
                np.full(shape, scale), np.full(shape, scale), np.full(shape[0], shape[1] * scale)
            )
            for solver in SOLVERS:
                if solver != "cp-sat":
                    solve(problem, moves=10, solver=solver)
    for loop in (_climb, bifurcate, anneal, descend, knapsack_climb, rise_loop):
        assert len(loop.signatures) == 1  # type: ignore[attr-defined]


def test_needs_and_costs_of_nothing_work() -> None:
    problem = Assignment(np.zeros((2, 4)), np.zeros((2, 4)), np.zeros(2))
    for solver in SOLVERS:
        assert solve(problem, moves=10, solver=solver).status == "optimal"


def test_settings_reach_the_walk() -> None:
    problem = generate("d", 10, 60, 1)
    shallow = solve(problem, moves=40_000, settings=GapSettings(depth=1))
    deep = solve(problem, moves=40_000, settings=GapSettings(depth=4))
    assert shallow.agents != deep.agents
