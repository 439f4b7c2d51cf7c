"""The settings file of the solvers: what it may hold, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpc_ray.planner import ProblemError
from mpc_ray.planner.assignment import GapSettings
from mpc_ray.planner.settings import SECTIONS, VARIABLE, made, read, section, section_class


def test_defaults_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert section("gap") == GapSettings()
    assert read() == {}


def test_a_file_overlays_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tuned.yaml"
    file.write_text("gap: {hot: 0.5, depth: 3}\n")
    assert section("gap", file) == GapSettings(hot=0.5, depth=3)
    monkeypatch.setenv(VARIABLE, str(file))
    assert section("gap") == GapSettings(hot=0.5, depth=3)
    file.write_text("")
    assert section("gap") == GapSettings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gap: {hott: 1}", "no setting 'hott'; 'hot' is meant"),
        ("gapp: {hot: 1}", "no section 'gapp'; 'gap' is meant"),
        ("gap: {hot: 99}", "hot is 99, must be from 0.02 to 3"),
        ("gap: {depth: 2.5}", "depth is 2.5, must be a whole number"),
        ("gap: {depth: true}", "depth is True, must be a whole number"),
        ("gap: {hot: warm}", "hot is 'warm', must be a number"),
        ("gap: {hot: .nan}", "hot is nan"),
        ("gap: 3", "must hold sections"),
        ("- 3", "must hold sections"),
        ("gap: {hot", "cannot be read"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "tuned.yaml"
    file.write_text(text)
    with pytest.raises(ProblemError, match=words):
        section("gap", file)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="cannot be read: No such file"):
        section("gap", tmp_path / "gone.yaml")


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_has_ranges_that_hold_its_defaults(name: str) -> None:
    kind = section_class(name)
    default = kind()
    assert made(kind, {key: getattr(default, key) for key in kind.__dataclass_fields__}) == default
