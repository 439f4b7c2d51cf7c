"""The sweep file: which settings are searched, on which problems, and how long. configs/planner/sweep.yaml shows all.

Everything is checked before anything runs: names, ranges, sizes, and that no held-out problem is among the training
ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpc_ray.planner import fields
from mpc_ray.planner.problem import ProblemError
from mpc_ray.planner.settings import SECTIONS, section_class
from mpc_ray.planner.tuning.targets import TARGETS

SEARCHES = ("tpe", "random")


@dataclass(frozen=True, order=True)
class ProblemSpec:
    """One problem: `generate` makes the same one from it each time."""

    family: str
    size: str
    seed: int


@dataclass(frozen=True)
class Knob:
    """A setting and the range it is searched in, both ends included; `log`: small values matter as much."""

    name: str
    low: float
    high: float
    log: bool
    whole: bool


@dataclass(frozen=True)
class Target:
    """One kind of problem. A run has `seconds`, or `moves` instead; `train` is in the order in which trials see it."""

    name: str
    seconds: float | None
    moves: int | None
    knobs: tuple[Knob, ...]
    train: tuple[ProblemSpec, ...]
    held_out: tuple[ProblemSpec, ...]


@dataclass(frozen=True)
class Sweep:
    """The whole file. `rungs`: how many problems a trial has seen when it may be stopped; the last is all of them."""

    trials: int
    at_once: int
    search: str
    rungs: tuple[int, ...]
    seed: int
    held_out_seeds: int
    targets: tuple[Target, ...]

    def digest(self, target: str) -> str:
        """Of all that the results of one target depend on: what was computed for another digest is of no use."""
        said = dataclasses.asdict(self)
        said["targets"] = [t for t in said["targets"] if t["name"] == target]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def read(path: Path) -> Sweep:
    """The sweep in a YAML file. Raises ProblemError: unreadable, or not a sweep."""
    content = fields.content(path, "sweep")
    try:
        return parse(content)
    except ProblemError as error:
        raise ProblemError(f"sweep {path}: {error}") from error


def parse(content: Any) -> Sweep:
    """The same from what the file holds."""
    top = fields.mapping(
        content, "the sweep", ("targets",), ("trials", "at_once", "search", "rungs", "seed", "held_out_seeds")
    )
    rungs = top.get("rungs", [4, 12, 24])
    if (
        not (isinstance(rungs, list) and rungs and all(fields.is_whole(r, 1) for r in rungs))
        or sorted(set(rungs)) != rungs
    ):
        raise ProblemError(f"rungs are {rungs!r}, must be whole numbers from 1, each above the one before")
    search = top.get("search", "tpe")
    if search not in SEARCHES:
        raise ProblemError(f"search is {search!r}, must be one of {', '.join(SEARCHES)}")
    seed = fields.whole(top, "seed", 1, 0)
    targets = fields.mapping(top["targets"], "targets", (), tuple(SECTIONS))
    if not targets:
        raise ProblemError(f"targets are missing: there are {', '.join(TARGETS)}")
    return Sweep(
        fields.whole(top, "trials", 40, 1),
        fields.whole(top, "at_once", 2, 1),
        search,
        tuple(rungs),
        seed,
        fields.whole(top, "held_out_seeds", 3, 2),  # of one there is no spread
        tuple(_target(name, values, rungs[-1], seed) for name, values in targets.items()),
    )


def _target(name: str, content: Any, seen: int, seed: int) -> Target:
    if name not in TARGETS:
        raise ProblemError(f"there is no target {name!r}: there are {', '.join(TARGETS)}")
    values = fields.mapping(content, name, ("settings", "train", "held_out"), ("seconds", "moves"))
    if ("seconds" in values) == ("moves" in values):
        raise ProblemError(f"{name} needs either seconds or moves of a run")
    seconds = values.get("seconds")
    if seconds is not None and not (isinstance(seconds, int | float) and 0 < seconds < 1e6):
        raise ProblemError(f"{name}: seconds are {seconds!r}, must be a number above 0")
    moves = fields.whole(values, "moves", 1, 1) if "moves" in values else None
    train, held_out = (_problems(name, values[part], part) for part in ("train", "held_out"))
    both = set(train) & set(held_out)
    if both:
        one = min(both)
        raise ProblemError(
            f"{name}: {one.family} {one.size} with seed {one.seed} is in train and in held_out"
        )
    if len(train) < seen:
        raise ProblemError(
            f"{name}: the last rung is {seen} problems, and there are {len(train)} to train on"
        )
    # Mixed, so that the first rung has seen of every family.
    random.Random(seed).shuffle(train)  # noqa: S311 - the order of problems is no secret
    return Target(
        name,
        None if seconds is None else float(seconds),
        moves,
        _knobs(name, values["settings"]),
        tuple(train[:seen]),
        tuple(held_out),
    )


def _knobs(name: str, content: Any) -> tuple[Knob, ...]:
    known = {field.name: field for field in dataclasses.fields(section_class(name))}
    knobs = []
    for setting, values in fields.mapping(content, f"{name}: settings", (), tuple(known)).items():
        where = f"{name}: {setting}"
        said = fields.mapping({} if values is None else values, where, (), ("low", "high", "log"))
        whole = isinstance(known[setting].default, int)
        low, high = (said.get(end, known[setting].metadata[end]) for end in ("low", "high"))
        for value in (low, high):
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise ProblemError(f"{where}: {value!r} must be a {'whole ' if whole else ''}number")
            if not known[setting].metadata["low"] <= value <= known[setting].metadata["high"]:
                ends = (known[setting].metadata[end] for end in ("low", "high"))
                raise ProblemError(
                    f"{where}: {value:g} is out of its range, {' to '.join(f'{e:g}' for e in ends)}"
                )
        log = said.get("log", False)
        if not isinstance(log, bool) or low >= high or (log and low <= 0):
            raise ProblemError(
                f"{where}: low must be below high, log true or false, and with log low above 0"
            )
        knobs.append(Knob(setting, low, high, log, whole))
    if not knobs:
        raise ProblemError(f"{name}: settings are missing: there are {', '.join(known)}")
    return tuple(knobs)


def _problems(name: str, content: Any, part: str) -> list[ProblemSpec]:
    if not isinstance(content, list) or not content:
        raise ProblemError(f"{name}: {part} must list problems: family, size, count, first_seed")
    found: list[ProblemSpec] = []
    for entry in content:
        said = fields.mapping(entry, f"{name}: {part}", ("family", "size"), ("count", "first_seed"))
        count, first = fields.whole(said, "count", 1, 1), fields.whole(said, "first_seed", 0, 0)
        family, size = str(said["family"]), str(said["size"])
        TARGETS[name].check(family, size)
        found += [ProblemSpec(family, size, first + k) for k in range(count)]
    if len(set(found)) < len(found):
        raise ProblemError(f"{name}: {part} names a problem twice")
    return found
