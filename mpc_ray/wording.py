"""What is wrong with a setting, in words for whoever wrote it: the validation library's own speak to programmers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_PLAIN = {
    "missing": "is missing",
    "extra_forbidden": "is not a setting",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must hold `setting: value` lines",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "list_type": "must be a list, such as [first, second]",
    "model_type": "must hold `setting: value` lines",
    "path_type": "must be a path",
    "string_pattern_mismatch": "has not the form that it must have",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "tuple_type": "must be a list, such as [first, second]",
}
_BOUNDS = {
    "greater_than": ("gt", "must be more than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
    "literal_error": ("expected", "must be"),
}


def where(problem: Mapping[str, Any]) -> str:
    """The setting that one of pydantic's ``errors()`` is about, as in ``policy.jurisdictions``; "" for several."""
    return ".".join(map(str, problem["loc"]))


def plain(problem: Mapping[str, Any]) -> str:
    """What one of pydantic's ``errors()`` says, to go on after the setting's name; never what was typed there."""
    kind = problem["type"]
    if kind in _PLAIN:
        return _PLAIN[kind]
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {problem['ctx'][name]}"
    text = str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{text[:1].lower()}{text[1:]}"


def after(name: str, problem: Mapping[str, Any]) -> str:
    """``name`` with what is wrong with it: "slotz is not a setting", "slots: must be at least 1"."""
    between = " " if problem["type"] in ("missing", "extra_forbidden") else ": "
    return f"{name}{between}{plain(problem)}"


def meant(problem: Mapping[str, Any], known: Iterable[str]) -> str:
    """The setting that an unknown one was perhaps meant to be; "" where there is none."""
    if problem["type"] != "extra_forbidden":
        return ""
    return next(iter(get_close_matches(str(problem["loc"][-1]), list(known), n=1)), "")
