"""What a YAML file says, taken apart with errors that name the place: mappings, whole numbers, numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from math import inf, isfinite, isnan
from pathlib import Path
from typing import Any

from mpc_ray.planner.problem import ProblemError


def content(path: Path, what: str) -> Any:
    """What a YAML file holds. Raises ProblemError: unreadable, or not YAML."""
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProblemError(f"{what} {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProblemError(f"{what} {path} is not YAML: {str(error).splitlines()[0]}") from error


def mapping(value: Any, what: str, needed: Sequence[str], optional: Sequence[str]) -> Mapping[str, Any]:
    """A mapping that has all of `needed`, and nothing that is neither there nor in `optional`."""
    if not isinstance(value, dict):
        raise ProblemError(f"{what} must be a mapping, is {type(value).__name__}")
    known = [*needed, *optional]
    for name in value:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, 1)
            hint = f"{close[0]!r} is meant?" if close else f"there are {', '.join(known)}"
            raise ProblemError(f"{what}: there is no {name!r}; {hint}")
    for name in needed:
        if name not in value:
            raise ProblemError(f"{what}: {name} is missing")
    return value


def entries(value: Any, what: str) -> list[Any]:
    """A list that is not empty."""
    if not isinstance(value, list) or not value:
        raise ProblemError(f"{what} must be a list that is not empty")
    return value


def is_whole(value: Any, least: int) -> bool:
    """Whether it is a whole number, and not below `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def whole(said: Mapping[str, Any], name: str, default: int, least: int, where: str = "") -> int:
    """A whole number, `default` where nothing is said."""
    value = said.get(name, default)
    if not is_whole(value, least):
        raise ProblemError(
            f"{where}{': ' if where else ''}{name} is {value!r}, must be a whole number from {least}"
        )
    return int(value)


def number(
    said: Mapping[str, Any], name: str, default: float, where: str, low: float = 0.0, *, above: bool = False
) -> float:
    """A number not below `low`, or `above` it; infinity only as a default."""
    value = said.get(name, default)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and not isnan(value)
    if (
        not fits
        or not (value > low or (value == low and not above))
        or not (isfinite(value) or default == inf)
    ):
        raise ProblemError(
            f"{where}: {name} is {value!r}, must be a number {'above' if above else 'not below'} {low:g}"
        )
    return float(value)


def texts(said: Mapping[str, Any], name: str, where: str) -> frozenset[str] | None:
    """Names in a list; None where nothing is said."""
    value = said.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ProblemError(f"{where}: {name} is {value!r}, must be a list of names")
    return frozenset(value)
