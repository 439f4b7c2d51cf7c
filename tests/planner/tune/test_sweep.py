"""The sweep file, what a run is worth, and the verdict: all of tuning but Ray."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from mpc_ray.planner import ProblemError
from mpc_ray.planner.tuning import ProblemSpec, judge, log_value, loss, parse, problem, read

ROOT = Path(__file__).parents[3]

GOOD: dict[str, Any] = {
    "trials": 5,
    "rungs": [1, 3],
    "targets": {
        "gap": {
            "moves": 1000,
            "settings": {"hot": {"low": 0.1, "high": 1.0, "log": True}, "depth": None},
            "train": [
                {"family": "c", "size": "3x12", "count": 3, "first_seed": 1},
                {"family": "d", "size": "3x12", "count": 3, "first_seed": 1},
            ],
            "held_out": [{"family": "c", "size": "3x12", "count": 2, "first_seed": 50}],
        }
    },
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """`GOOD` with another value at a path such as targets.gap.moves; None removes it."""
    content = copy.deepcopy(GOOD)
    part = content
    *way, last = path.split(".")
    for name in way:
        part = part[name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return content


def test_the_shipped_sweep_is_one() -> None:
    sweep = read(ROOT / "configs" / "planner" / "sweep.yaml")
    assert {target.name for target in sweep.targets} == {"gap", "jobs", "maxcut"}
    for target in sweep.targets:
        assert len(target.train) == sweep.rungs[-1]
        families = {(spec.family, spec.size) for spec in target.train}
        assert not families & {(spec.family, spec.size) for spec in target.held_out}


def test_what_a_sweep_says() -> None:
    sweep = parse(GOOD)
    assert (sweep.trials, sweep.at_once, sweep.search, sweep.rungs) == (5, 2, "tpe", (1, 3))
    (target,) = sweep.targets
    assert target.moves == 1000 and target.seconds is None
    hot, depth = target.knobs
    assert (hot.name, hot.low, hot.high, hot.log, hot.whole) == ("hot", 0.1, 1.0, True, False)
    assert (depth.name, depth.low, depth.high, depth.log, depth.whole) == ("depth", 1, 6, False, True)
    assert len(target.train) == 3 and len(target.held_out) == 2


def test_all_trials_see_the_problems_in_one_mixed_order() -> None:
    content = changed("rungs", [2, 6])
    (first,), (second,) = parse(content).targets, parse(content).targets
    assert first.train == second.train
    assert {spec.family for spec in first.train[:4]} == {"c", "d"}
    assert sorted(first.train) == sorted(ProblemSpec(f, "3x12", s) for f in "cd" for s in (1, 2, 3))


def test_results_of_another_sweep_are_not_taken() -> None:
    digest = parse(GOOD).digest("gap")
    assert parse(GOOD).digest("gap") == digest
    for path, value in (("targets.gap.moves", 999), ("trials", 6), ("seed", 2)):
        assert parse(changed(path, value)).digest("gap") != digest


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("targets", None, "targets is missing"),
        ("targets", {}, "targets are missing"),
        ("trails", 3, "no 'trails'; 'trials' is meant"),
        ("trials", 0, "trials is 0, must be a whole number from 1"),
        ("held_out_seeds", 1, "must be a whole number from 2"),
        ("rungs", [4, 4], "each above the one before"),
        ("rungs", [], "whole numbers from 1"),
        ("rungs", [1, 9], "the last rung is 9 problems, and there are 6"),
        ("search", "grid", "must be one of tpe, random"),
        ("targets.gap.moves", None, "needs either seconds or moves"),
        ("targets.gap.seconds", 1, "needs either seconds or moves"),
        ("targets.gap.settings", {}, "settings are missing"),
        ("targets.gap.settings.hott", {}, "no 'hott'; 'hot' is meant"),
        ("targets.gap.settings.hot", {"low": 0.0001}, "out of its range"),
        ("targets.gap.settings.hot", {"low": 1.0, "high": 0.5}, "low must be below high"),
        ("targets.gap.settings.depth", {"low": 1.5}, "must be a whole number"),
        ("targets.gap.settings.again", {"log": True}, "with log low above 0"),
        ("targets.gap.train", [{"family": "z", "size": "3x12"}], "family is 'z'"),
        ("targets.gap.train", [{"family": "c", "size": "3"}], "size is '3'"),
        ("targets.gap.train", [{"family": "c"}], "size is missing"),
        ("targets.gap.train", [{"family": "c", "size": "3x12", "count": 4}] * 2, "names a problem twice"),
        (
            "targets.gap.held_out",
            [{"family": "c", "size": "3x12", "first_seed": 2}],
            "in train and in held_out",
        ),
        ("targets.gap.held_out", [], "must list problems"),
        ("targets.gapp", {}, "no 'gapp'; 'gap' is meant"),
    ],
)
def test_what_makes_no_sense_is_refused(path: str, value: Any, words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        parse(changed(path, value))


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match=r"gone\.yaml cannot be read"):
        read(tmp_path / "gone.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ProblemError, match=r"bad\.yaml is not YAML"):
        read(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ProblemError, match=r"list\.yaml: the sweep must be a mapping"):
        read(tmp_path / "list.yaml")


def test_the_loss_is_relative_and_minds_the_worst() -> None:
    assert loss([1.0, 2.0], [1.0, 2.0]) == 0
    assert loss([0.9, 2.1], [1.0, 2.0]) == pytest.approx(0.05)
    assert loss([0.9, 1.9], [1.0, 2.0]) == pytest.approx(-0.15)


def test_what_chance_can_do_is_not_better() -> None:
    defaults = [[1.00, 1.04], [2.00, 2.04]]  # the seed moves the mean by 0.04
    slightly = judge([[0.98, 1.00], [1.98, 2.02]], defaults)
    assert slightly.improvement == pytest.approx(0.025) and slightly.spread == pytest.approx(0.04)
    assert not slightly.better
    clearly = judge([[0.94, 0.97], [1.94, 1.97]], defaults)
    assert clearly.better and clearly.by_seed == pytest.approx((0.06, 0.07))
    assert clearly.median == clearly.worst == pytest.approx(0.065)
    # A best that is itself a matter of luck is not better either.
    assert not judge([[0.7, 1.0], [1.7, 2.0]], [[1.0, 1.0], [2.0, 2.0]]).better


@pytest.mark.timeout(900)  # the first run of a kind compiles
@pytest.mark.parametrize(
    ("target", "family", "size", "moves"),
    [
        ("gap", "d", "4x20", 5000),
        ("maxcut", "random", "64", 50_000),
        ("maxcut", "torus-signed", "64", 50_000),
        ("maxcut", "planar-signed", "64", 50_000),
        ("jobs", "mixed:6", "9x20", 2000),
    ],
)
def test_a_run_of_each_target_is_worth_a_number(target: str, family: str, size: str, moves: int) -> None:
    spec = ProblemSpec(family, size, 3)
    value = log_value(target, spec, {}, 1, None, moves)
    assert value == log_value(target, spec, {}, 1, None, moves)
    assert problem(target, family, size, 3) is problem(target, family, size, 3)
    assert -30 < value < 30
    if target != "jobs":  # more moves, never worse on problems this small
        assert log_value(target, spec, {}, 1, None, 20 * moves) <= value + 1e-9


def test_a_run_that_finds_nothing_is_dear() -> None:
    # One move is no walk: the start is beyond capacities, and the proof is a matter of CP-SAT's luck.
    spec = ProblemSpec("d", "12x60", 1)
    assert log_value("gap", spec, {"depth": 1}, 1, None, 1) >= log_value("gap", spec, {}, 1, None, 50_000)
