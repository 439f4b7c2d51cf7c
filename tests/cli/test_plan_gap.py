"""`mpc-ray plan gap`: what is printed, and how errors and impossible problems end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc_ray.planner.assignment import generate, parse, write

from .conftest import Cli

MOVES = ("--moves", "20000")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "problem"
    path.write_text(write(generate("c", 3, 12, 1)))
    return path


@pytest.mark.timeout(900)  # the first run compiles
def test_json_holds_the_assignment(cli: Cli, file: Path) -> None:
    ended = cli("plan", "gap", str(file), *MOVES, "--seed", "3", "--json")
    assert ended.code == 0
    said = ended.json
    problem = parse(file.read_text())
    agents = np.array(said["assignment"])
    assert problem.violations(agents) == []
    assert said["cost"] == problem.cost_of(agents) and isinstance(said["cost"], int)
    assert said["feasible"] is True and said["solver"] == "annealing" and said["status"] == "optimal"
    assert said["bound"] == said["cost"] and said["gap"] == 0 and said["seconds"] > 0


def test_people_read_cost_and_bound(cli: Cli, file: Path) -> None:
    ended = cli("plan", "gap", str(file), "--moves", "20", "--solver", "descent")
    assert ended.code == 0
    assert "12 jobs on 3 agents, descent" in ended.out and "% above the bound" in ended.out


def test_impossible_is_an_answer_and_nothing_found_is_a_failure(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "tight"
    file.write_text("2 3  1 1 1 1 1 1  6 6 6 6 6 6  10 10")
    proved = cli("plan", "gap", str(file), *MOVES, "--json")
    assert proved.code == 0
    assert (
        proved.json["status"] == "infeasible" and proved.json["feasible"] is False and proved.json["reason"]
    )
    assert proved.json["assignment"] is None and proved.json["cost"] is None
    assert "no feasible assignment exists" in cli("plan", "gap", str(file), *MOVES).out
    unsure = cli("plan", "gap", str(file), "--moves", "5", "--solver", "descent", "--json")
    assert unsure.code == 1
    assert unsure.json["status"] == "none found" and unsure.json["reason"] == ""
    assert (
        "no proof that there is none"
        in cli("plan", "gap", str(file), "--moves", "5", "--solver", "descent").out
    )


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        ("2 2 1", (), "take 10 numbers"),
        ("1 1 -1 1 1", (), "agent 0, job 0: cost is -1"),
        ("1 1 1 1 nan", (), "capacity is nan"),
        ("1 1 1 1 1", ("--solver", "magic"), "no solver 'magic'"),
        ("1 1 1 1 1", ("--instance", "2"), "there is no problem 2"),
        ("1 1 1 1 1", ("--seconds", "-1"), "seconds are -1"),
        ("1 1 1 1 1", ("--settings", "/nowhere.yaml"), "/nowhere.yaml cannot be read"),
    ],
)
def test_bad_input_ends_in_one_line(
    cli: Cli, tmp_path: Path, text: str, flags: tuple[str, ...], words: str
) -> None:
    file = tmp_path / "bad"
    file.write_text(text)
    cli("plan", "gap", str(file), *flags).one_line_error(2, words)
