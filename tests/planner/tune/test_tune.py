"""Tuning on Ray: killed in the middle of the search, taken up again, finished once; what is written, and when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mpc_ray.errors import ConfigError
from mpc_ray.planner.settings import section
from mpc_ray.planner.tuning import Verdict, parse
from mpc_ray.tune import tune
from mpc_ray.tune.runs import Runs
from mpc_ray.tune.sweep import write_settings

pytest.importorskip("ray")

SWEEP = {
    "trials": 8,
    "rungs": [1, 3],
    "held_out_seeds": 2,
    "search": "tpe",
    "targets": {
        "gap": {
            "moves": 40_000,
            "settings": {"hot": {"log": True}, "depth": {"low": 1, "high": 4}},
            "train": [{"family": "d", "size": "6x40", "count": 3, "first_seed": 1}],
            "held_out": [{"family": "d", "size": "5x40", "count": 2, "first_seed": 50}],
        }
    },
}


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-P",
            "-c",
            "from mpc_ray.cli.main import main; main()",
            *("plan", "tune", str(folder / "sweep.yaml"), "--folder", str(folder / "kept")),
            *("--write", str(folder / "tuned.yaml"), "--json"),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.clusters
@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    first = start(tmp_path)
    assert first.stderr is not None
    ended = 0
    for line in first.stderr:
        if line.startswith("search: "):
            ended = int(line.split()[1])
            if ended >= 2:
                break
    assert ended >= 2, "the search was never seen"
    time.sleep(1.5)  # Ray saves each second
    first.send_signal(signal.SIGKILL)
    first.communicate()
    (kept,) = (tmp_path / "kept").iterdir()
    runs = (kept / "runs.jsonl").read_text().splitlines()
    assert len([line for line in runs if line]) == 3  # the defaults on three problems
    tried = {path.name for path in (kept / "search").glob("trial_*")}
    assert 2 <= len(tried) <= 8

    second = start(tmp_path)
    out, err = second.communicate(timeout=600)
    assert second.returncode == 0, err
    assert "defaults: 0 of 3" not in err and "defaults: 3 of 3" in err
    said = json.loads(out)
    (outcome,) = said["targets"]
    assert outcome["target"] == "gap" and outcome["trials"] == 8 and outcome["failed"] == 0
    assert tried <= {path.name for path in (kept / "search").glob("trial_*")}
    assert set(outcome["best"]) == {"hot", "depth"}
    assert outcome["train_loss"] <= 1e-9  # the defaults are the first trial, and count moves
    held = outcome["held_out"]
    assert held["better"] is (held["improvement"] > held["spread"]) is outcome["written"]
    assert said["settings_file"] == (str(tmp_path / "tuned.yaml") if outcome["written"] else None)
    assert (tmp_path / "tuned.yaml").exists() is outcome["written"]
    # Done is done: a third time only reads.
    runs_after = (kept / "runs.jsonl").read_text()
    third = start(tmp_path)
    out, err = third.communicate(timeout=600)
    assert third.returncode == 0, err
    assert json.loads(out)["targets"] == said["targets"]
    assert (kept / "runs.jsonl").read_text().split() == runs_after.split()


def test_a_line_cut_short_is_run_again(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text('{"run": "a", "value": 1.5}\n{"run": "b", "va')
    assert Runs(file, parse(SWEEP).targets[0]).known == {"a": 1.5}


def test_other_sections_stay_when_one_is_written(tmp_path: Path) -> None:
    file = tmp_path / "tuned.yaml"
    file.write_text("maxcut: {merged: 9}\ngap: {depth: 2}\n")
    write_settings(file, "gap", {"hot": 0.5}, Verdict(0.02, 0.01, (0.02, 0.02), 0.02, 0.01, True))
    assert section("gap", file).hot == 0.5 and section("gap", file).depth == 4
    assert section("maxcut", file).merged == 9
    assert "2.000 %" in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["tuned.yaml"]


def test_mistakes_are_told_before_ray_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no target maxcut"):
        tune(parse(SWEEP), tmp_path / "kept", tmp_path / "tuned.yaml", targets=["maxcut"])
    (tmp_path / "tuned.yaml").write_text("gap: {hot: 99}")
    with pytest.raises(ConfigError, match="hot is 99"):
        tune(parse(SWEEP), tmp_path / "kept", tmp_path / "tuned.yaml")
    assert not (tmp_path / "kept").exists()
