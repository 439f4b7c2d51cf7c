"""Search the planner's settings with Ray Tune: `mpc-ray plan tune`.

For each target of a sweep: run the defaults on the training problems; search (Optuna's TPE or at random, stopped
early by ASHA, whose resource is the number of problems seen); run the best and the defaults on held-out problems;
write the best into the settings file if `judge` says so.

Everything is in a folder and is taken up again from there, after a kill at any time: single runs in `runs.jsonl`,
one line each, the search in Ray's own files, saved every second. A folder belongs to one sweep: its digest is in
its name.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpc_ray.errors import ConfigError, InputError
from mpc_ray.launch_ray import start_own
from mpc_ray.planner.problem import ProblemError
from mpc_ray.planner.settings import made, read, section_class
from mpc_ray.planner.tuning import Sweep, Target, Verdict, judge
from mpc_ray.tune.runs import Progress, Runs
from mpc_ray.tune.search import search

_RUNS = "runs.jsonl"


@dataclass(frozen=True)
class Outcome:
    """What came of one target. `best`: the settings searched, with the best values; `train_loss` of `verdict.loss`."""

    target: str
    trials: int
    stopped_early: int
    failed: int
    best: dict[str, float | int]
    train_loss: float
    verdict: Verdict
    written: bool


def tune(
    sweep: Sweep,
    folder: Path,
    write_to: Path,
    *,
    targets: Sequence[str] = (),
    progress: Progress = lambda stage, done, total, remark: None,
) -> list[Outcome]:
    """Run the sweep, or go on with it, for all its targets or those named; settings that are better go into `write_to`.

    Sections of `write_to` that are not tuned, or not better, stay as they are.

    Raises:
        ConfigError: no such target in the sweep; the settings file is not one.
        InputError: the folder cannot be written.
        MpcError: every trial failed.
    """
    chosen = [target for target in sweep.targets if not targets or target.name in targets]
    missing = set(targets) - {target.name for target in sweep.targets}
    if missing:
        have = ", ".join(target.name for target in sweep.targets)
        raise ConfigError(f"the sweep has no target {min(missing)}", remedy=f"it has {have}")
    try:
        if write_to.exists():
            read(write_to)
    except ProblemError as error:
        raise ConfigError(str(error), remedy="name another file to write to") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made: {error.strerror}", remedy="name another folder"
        ) from error
    with _ray(sweep.at_once):
        return [_one(sweep, target, folder.absolute(), write_to, progress) for target in chosen]


def _one(sweep: Sweep, target: Target, folder: Path, write_to: Path, progress: Progress) -> Outcome:
    place = folder / f"{target.name}-{sweep.digest(target.name)}"
    place.mkdir(exist_ok=True)
    runs = Runs(place / _RUNS, target)
    defaults = {knob.name: getattr(section_class(target.name)(), knob.name) for knob in target.knobs}
    base = runs.all(defaults, target.train, [sweep.seed], "defaults", progress)
    trials, best, train_loss = search(sweep, target, place, defaults, [row[0] for row in base], progress)
    seeds = [sweep.seed + 1 + k for k in range(sweep.held_out_seeds)]
    # In turn, so that what else the machine does is shared fairly.
    held = runs.pairs(best, defaults, target.held_out, seeds, progress)
    verdict = judge(*held)
    if verdict.better:
        write_settings(write_to, target.name, best, verdict)
    return Outcome(target.name, *trials, best, train_loss, verdict, verdict.better)


@contextlib.contextmanager
def _ray(cpus: int) -> Iterator[None]:
    """A Ray of our own, unless this process has one already."""
    os.environ |= {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1",  # with Ray's own choice, nothing is saved for the first minutes
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the program, and the folder goes on later
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        yield
        return
    start_own(cpus)
    try:
        yield
    finally:
        import ray

        ray.shutdown()


def write_settings(path: Path, name: str, best: dict[str, float | int], verdict: Verdict) -> None:
    """Put the section into the settings file, whole or not at all."""
    import yaml

    made(section_class(name), best)
    content = {**(read(path) if path.exists() else {}), name: best}
    said = (
        "# Written by mpc-ray plan tune; MPC_PLANNER_SETTINGS names it to the planner.\n"
        f"# {name}: better than the defaults by {100 * verdict.improvement:.3f} % on held-out problems, "
        f"spread {100 * verdict.spread:.3f} %.\n"
    )
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(said + yaml.safe_dump(content, sort_keys=True), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}", remedy="name another file") from error
