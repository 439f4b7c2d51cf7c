"""What a problem is, how it is read, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc_ray.planner import ProblemError
from mpc_ray.planner.assignment import KINDS, Assignment, generate, parse, read, write
from mpc_ray.planner.assignment.problem import unit_of

TWO = "2 3\n 1 2 3\n 4 5 6\n 1 1 2\n 2 1 1\n 3 4\n"


def two() -> Assignment:
    return parse(TWO)


def test_the_format_is_by_agent() -> None:
    problem = two()
    assert problem.costs.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert problem.needs.tolist() == [[1, 1, 2], [2, 1, 1]]
    assert problem.capacities.tolist() == [3, 4]


def test_cost_loads_and_violations() -> None:
    problem = two()
    agents = np.array([0, 0, 1])
    assert problem.cost_of(agents) == 9
    assert problem.loads(agents).tolist() == [2, 1]
    assert problem.violations(agents) == []
    assert problem.violations(np.zeros(3, int)) == ["agent 0: load 4 is beyond its capacity 3"]
    assert "one is 2" in problem.violations(np.array([0, 2, 1]))[0]
    assert "3 jobs" in problem.violations(np.array([0, 1]))[0]
    assert "float64" in problem.violations(np.array([0.0, 1.0, 1.0]))[0]


def test_what_is_written_is_read_again() -> None:
    for kind in KINDS:
        problem = generate(kind, 4, 9, 3)
        again = parse(write(problem))
        for name in ("costs", "needs", "capacities"):
            assert (getattr(again, name) == getattr(problem, name)).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no problem"),
        ("2", "holds no problem"),
        (TWO + " 7 7", "take 14 numbers after the first two"),
        (TWO[:-3], "the file has 13"),
        (TWO.replace("5", "x"), "word 7 of the file, 'x', is not a number"),
        (TWO.replace("5", "-5"), "agent 1, job 1: cost is -5"),
        (TWO.replace(" 2 1 1\n", " 2 nan 1\n"), "agent 1, job 1: need is nan"),
        (TWO.replace("3 4\n", "3 inf\n"), "agent 1: capacity is inf"),
        (TWO.replace("2 3\n", "2.5 3\n"), "number of agents is 2.5"),
        (TWO.replace("2 3\n", "0 3\n"), "number of agents is 0"),
        ("2 " + TWO + TWO, "holds 2 problems: choose one"),
    ],
)
def test_bad_files_are_refused(text: str, words: str) -> None:
    with pytest.raises(ProblemError, match=words.replace("(", r"\(")):
        parse(text)


def test_one_of_several_is_chosen() -> None:
    text = "2 " + TWO + TWO.replace("5", "8")
    assert parse(text, 1).costs[1, 1] == 5
    assert parse(text, 2).costs[1, 1] == 8
    assert parse("1 " + TWO).costs[1, 1] == 5
    with pytest.raises(ProblemError, match="there is no problem 3: the file holds 2"):
        parse(text, 3)
    with pytest.raises(ProblemError, match="the file holds 1"):
        parse(TWO, 0)


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="gone cannot be read: No such file"):
        read(tmp_path / "gone")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    with pytest.raises(ProblemError, match="binary is not a text file"):
        read(tmp_path / "binary")
    (tmp_path / "short").write_text("2 2 1")
    with pytest.raises(ProblemError, match=r"short: 2 agents and 2 jobs"):
        read(tmp_path / "short")


def test_shapes_must_fit() -> None:
    with pytest.raises(ProblemError, match="agents x jobs"):
        Assignment(np.ones(3), np.ones(3), np.ones(3))
    with pytest.raises(ProblemError, match="needs one capacity"):
        Assignment(np.ones((2, 3)), np.ones((2, 3)), np.ones(3))


def test_the_numbers_are_the_problem_s_own() -> None:
    costs = np.ones((2, 2))
    problem = Assignment(costs, np.ones((2, 2)), np.ones(2))
    costs[0, 0] = 7
    assert problem.costs[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        problem.costs[0, 0] = 7


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([2.0, 4.0, 10.0], 2.0),
        ([0.1, 0.25], 0.05),
        ([0.0, 0.0], 1.0),
        ([1e-6], 1e-6),
        ([1 / 3], None),
        ([np.pi * 1e5, 1.0], None),
    ],
)
def test_units(values: list[float], unit: float | None) -> None:
    found = unit_of(np.array(values))
    assert found is None if unit is None else found == pytest.approx(unit)


def test_bounds_are_rounded_up_to_the_unit() -> None:
    whole = two()
    assert whole.round_up(8.001) == 9
    assert whole.round_up(8.0 + 1e-12) == 8
    tenths = Assignment(whole.costs / 10, whole.needs, whole.capacities)
    assert tenths.round_up(0.81) == pytest.approx(0.9)
    assert tenths.proves(0.81, 0.9) and not tenths.proves(0.79, 0.9)
    thirds = Assignment(whole.costs / 3, whole.needs, whole.capacities)
    assert thirds.cost_unit is None
    assert thirds.round_up(0.81) == 0.81


@pytest.mark.parametrize("kind", KINDS)
def test_types_are_as_the_literature_has_them(kind: str) -> None:
    problem = generate(kind, 5, 400, 1)
    again = generate(kind, 5, 400, 1)
    assert (problem.costs == again.costs).all() and (problem.capacities == again.capacities).all()
    assert (problem.costs != generate(kind, 5, 400, 2).costs).any()
    low, high = {"d": (1, 100), "e": (2, 200)}.get(kind, (5, 25))
    assert problem.needs.min() >= low and problem.needs.max() <= high
    tie = np.corrcoef(problem.costs.ravel(), problem.needs.ravel())[0, 1]
    assert tie < -0.4 if kind in "de" else abs(tie) < 0.1
    if kind in "cde":
        assert problem.capacities.tolist() == np.floor(0.8 * problem.needs.sum(1) / 5).tolist()
    if kind == "b":
        assert problem.capacities == pytest.approx(0.7 * generate("a", 5, 400, 1).capacities, rel=0.3)


def test_unknown_types_are_refused() -> None:
    with pytest.raises(ProblemError, match="no type f: types are a, b, c, d, e"):
        generate("f", 2, 2, 0)
    with pytest.raises(ProblemError, match="at least one agent"):
        generate("a", 0, 2, 0)
