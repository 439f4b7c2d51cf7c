"""Numbers that the solvers run with, and the file that `mpc-ray plan tune` writes them to.

Each kind of problem has a section: a frozen dataclass whose fields have defaults and the range they may be tuned
in. A file overlays the defaults; what it does not name keeps its default:

    gap:
      hot: 0.25
      depth: 4

The file is the one given, else the one that MPC_PLANNER_SETTINGS names, else there is none: nothing is read unasked.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from mpc_ray.planner.problem import ProblemError

VARIABLE = "MPC_PLANNER_SETTINGS"

# Where the dataclass of each section is; imported when it is asked for, for it brings its solvers along.
SECTIONS: Mapping[str, str] = {
    "gap": "mpc_ray.planner.assignment.settings:GapSettings",
    "maxcut": "mpc_ray.planner.ising.settings:MaxcutSettings",
}

Section = TypeVar("Section")


def ranged(default: float, low: float, high: float, meaning: str) -> Any:
    """A field of a section: its default, and the range, both ends included, of values that make sense."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "meaning": meaning})


def section_class(name: str) -> type[Any]:
    """The dataclass of a section. Raises ProblemError where there is none of that name."""
    if name not in SECTIONS:
        raise ProblemError(f"there is no section {name!r}{_suggest(name, list(SECTIONS))}")
    module, attribute = SECTIONS[name].split(":")
    return getattr(import_module(module), attribute)  # type: ignore[no-any-return]


def made(kind: type[Section], values: Mapping[str, Any]) -> Section:
    """A section with these values and defaults for the rest.

    Raises:
        ProblemError: a name that the section lacks, a value of another type or out of its range.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    checked: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise ProblemError(f"there is no setting {name!r}{_suggest(name, list(fields))}")
        low, high = (fields[name].metadata[end] for end in ("low", "high"))
        whole = isinstance(fields[name].default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise ProblemError(f"setting {name} is {value!r}, must be a {'whole ' if whole else ''}number")
        if not low <= value <= high:
            raise ProblemError(f"setting {name} is {value:g}, must be from {low:g} to {high:g}")
        checked[name] = int(value) if whole else float(value)
    return kind(**checked)


def section(name: str, path: Path | None = None) -> Any:
    """The section `name` of the settings in `path`, of the file that the environment names, or its defaults."""
    return made(section_class(name), read(path).get(name, {}))


def read(path: Path | None = None) -> dict[str, dict[str, Any]]:
    """What the file says, section by section, checked; nothing where there is no file.

    Raises:
        ProblemError: the file cannot be read, or holds an unknown section or setting, or a value out of range.
    """
    if path is None:
        named = os.environ.get(VARIABLE, "")
        if not named:
            return {}
        path = Path(named)
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProblemError(f"planner settings {path} cannot be read: {_first_line(error)}") from error
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(part, dict) for part in content.values()):
        raise ProblemError(
            f"planner settings {path} must hold sections ({', '.join(SECTIONS)}) of names and values"
        )
    for name, values in content.items():
        try:
            made(section_class(name), values)
        except ProblemError as error:
            raise ProblemError(f"planner settings {path}, {name}: {error}") from error
    return content


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, 1)
    return f"; {close[0]!r} is meant?" if close else f"; there are {', '.join(known)}"


def _first_line(error: Exception) -> str:
    return (str(getattr(error, "strerror", None) or error).splitlines() or [type(error).__name__])[0]
