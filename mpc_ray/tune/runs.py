"""Single runs of settings on problems: Ray tasks, each kept in a file and not run again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mpc_ray.planner.tuning import ProblemSpec, Target, log_value

# Where a stage is: its name, parts done and in all, and a remark.
Progress = Callable[[str, int, int, str], None]


class Runs:
    """Runs of settings on problems, as Ray tasks; each is kept in a file, and not run again."""

    def __init__(self, file: Path, target: Target) -> None:
        self.file = file
        self.target = target
        self.known: dict[str, float] = {}
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                try:
                    said = json.loads(line)
                    self.known[said["run"]] = float(said["value"])
                except (json.JSONDecodeError, KeyError, TypeError):
                    continue  # the line that a kill cut short: its run is done again

    def all(
        self,
        settings: dict[str, Any],
        problems: Sequence[ProblemSpec],
        seeds: Sequence[int],
        stage: str,
        progress: Progress,
    ) -> list[list[float]]:
        """Logarithms [problems][seeds]."""
        wanted = [(settings, spec, seed) for spec in problems for seed in seeds]
        self._run(wanted, stage, progress)
        return self._table(settings, problems, seeds)

    def pairs(
        self,
        first: dict[str, Any],
        second: dict[str, Any],
        problems: Sequence[ProblemSpec],
        seeds: Sequence[int],
        progress: Progress,
    ) -> tuple[list[list[float]], list[list[float]]]:
        """The same of two settings, whose runs take turns."""
        wanted = [(each, spec, seed) for spec in problems for seed in seeds for each in (first, second)]
        self._run(wanted, "held out", progress)
        return self._table(first, problems, seeds), self._table(second, problems, seeds)

    def _table(
        self, settings: dict[str, Any], problems: Sequence[ProblemSpec], seeds: Sequence[int]
    ) -> list[list[float]]:
        return [[self.known[_key(settings, spec, seed)] for seed in seeds] for spec in problems]

    def _run(
        self, wanted: Sequence[tuple[dict[str, Any], ProblemSpec, int]], stage: str, progress: Progress
    ) -> None:
        import ray

        todo = {_key(*run): run for run in wanted if _key(*run) not in self.known}
        total = len({_key(*run) for run in wanted})
        task = ray.remote(num_cpus=1, max_retries=2)(measured)
        waiting = {task.remote(self.target, *run): key for key, run in todo.items()}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(
                "\n" * bool(self.file.stat().st_size)
            )  # a line cut short must not swallow the next one
            while waiting:
                progress(stage, total - len(waiting), total, "")
                ready, _ = ray.wait(list(waiting), num_returns=1)
                key = waiting.pop(ready[0])
                self.known[key] = ray.get(ready[0])
                file.write(json.dumps({"run": key, "value": self.known[key]}) + "\n")
                file.flush()
        progress(stage, total, total, "")


def _key(settings: dict[str, Any], spec: ProblemSpec, seed: int) -> str:
    return json.dumps([settings, dataclasses.astuple(spec), seed], sort_keys=True)


def measured(target: Target, settings: dict[str, Any], spec: ProblemSpec, seed: int) -> float:
    return log_value(target.name, spec, settings, seed, target.seconds, target.moves)
