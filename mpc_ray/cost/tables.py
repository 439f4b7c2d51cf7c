"""Schedules on disk: those measured on this machine, and the reference ones that come with the release."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from mpc_ray.cost.links import Link, predict
from mpc_ray.cost.schedule import Schedule
from mpc_ray.errors import ConfigError

VARIANTS = {"semi_honest_3pc": ("bytes", "rounds")}  # what there is to choose from; of other protocols one
REFERENCE = Path(__file__).parent / "reference.json"


def cached_file(protocol: str, variant: str, shape: str, seq: int, batch: int, weights: str) -> Path:
    """Where a schedule measured on this machine lies: under ``$XDG_CACHE_HOME/mpc-ray/costs``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(base) if base else Path.home() / ".cache"
    name = f"{protocol}-{variant}-{shape}-{weights}-{seq}x{batch}.json"
    return folder / "mpc-ray" / "costs" / name


def read(path: Path) -> Schedule | None:
    """The schedule in a file, or None where there is none. Raises ConfigError for one that cannot be read."""
    try:
        return Schedule.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} holds no schedule: {type(error).__name__}", remedy="mpc-ray bench predict --refresh"
        ) from None


def write(path: Path, schedule: Schedule) -> None:
    """Keep a schedule; the file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(schedule.to_json(), separators=(",", ":")), encoding="utf-8")
    part.replace(path)


@cache
def references() -> dict[tuple[str, str], Schedule]:
    """By protocol and variant: MiniLM's sizes at 128 tokens, measured for the release on the machine they name."""
    found = [Schedule.from_json(one) for one in json.loads(REFERENCE.read_text(encoding="utf-8"))]
    return {(one.protocol, one.variant): one for one in found}


def fastest(schedules: list[Schedule], link: Link, cores: int | None = None) -> Schedule:
    """Of several variants the one that the model says is done first; of equals the first."""
    return min(schedules, key=lambda one: predict(one, link, cores).seconds)


def choose(protocol: str, link: Link) -> str:
    """The variant of ``protocol`` for parties on machines of their own with such links, by the reference encoder.

    A longer text or a larger model sends more for each round, so where the two are close the choice may differ by
    shape: ``mpc-ray bench predict`` says for one.
    """
    names = VARIANTS.get(protocol, ())
    known = references()
    if not names or any((protocol, name) not in known for name in names):
        return "bytes"
    return fastest([known[protocol, name] for name in names], link).variant
