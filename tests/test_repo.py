"""What a stranger meets first: the files of the repository hold together."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

import mpc_ray

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mpc_ray"
MACHINE_PATH = re.compile(r"(?<![\w.~/])/(?:work|tmp/v)(?=/|$|[^\w/])")


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def make(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env=clean | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def targets() -> set[str]:
    """Targets of the Makefile that explain themselves."""
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_version_is_the_same_everywhere() -> None:
    version = project()["version"]
    assert mpc_ray.__version__ == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_installed_package_has_its_command() -> None:
    scripts = metadata.entry_points(group="console_scripts", name="mpc-ray")
    assert {script.value for script in scripts} in ({"mpc_ray.cli.main:main"}, set())
    assert project()["scripts"] == {"mpc-ray": "mpc_ray.cli.main:main"}


def test_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert project()["license"] == "Apache-2.0"


@pytest.mark.parametrize("name", ["kernels", "planner"])
def test_outer_folders_are_relative_links(name: str) -> None:
    assert (PACKAGE / name).is_symlink()
    assert os.readlink(PACKAGE / name) == f"../{name}"


def test_every_folder_of_the_package_is_a_package() -> None:
    """Else the wheel would lack it."""
    missing = [
        folder
        for folder, _, files in os.walk(PACKAGE, followlinks=True)
        if any(name.endswith(".py") for name in files) and "__init__.py" not in files
    ]
    assert missing == []


def test_make_help_lists_every_target() -> None:
    answer = make("help")
    assert answer.returncode == 0, answer.stderr
    listed = set(re.findall(r"^  make ([a-z-]+) ", answer.stdout, re.MULTILINE))
    assert listed == targets()
    assert {"help", "venv", "demo", "test", "lint", "bench", "test-gpu", "clean"} <= listed


def test_make_says_which_python_is_missing(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3").write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 || exit 1\n')
    (tools / "python3").chmod(0o755)
    for tool in ("bash", "sh", "make"):
        found = next(path for path in (Path("/bin", tool), Path("/usr/bin", tool)) if path.exists())
        (tools / tool).symlink_to(found)
    answer = make("venv", f"VENV={tmp_path / 'venv'}", PATH=str(tools))
    assert answer.returncode != 0
    assert "needs Python 3.11 or newer; found: Python 3.9.2" in answer.stderr
    assert not (tmp_path / "venv").exists()


def test_ci_stops_at_the_first_failure(tmp_path: Path) -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    (tmp_path / "make").write_text('#!/bin/sh\necho "ran $1"; [ "$1" != lint ]\n')
    (tmp_path / "make").chmod(0o755)
    (tmp_path / "apt-get").symlink_to("/bin/true")  # this is no reason to install anything
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    answer = subprocess.run(
        ["bash", str(script)], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode != 0
    assert "ran lint" in answer.stdout
    assert "ran test" not in answer.stdout
    assert "FAILED" in answer.stdout
    (tmp_path / "make").write_text('#!/bin/sh\necho "ran $1"\n')
    answer = subprocess.run(
        ["bash", str(script)], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode == 0
    assert [line for line in answer.stdout.splitlines() if line.startswith("ran ")] == [
        "ran venv",
        "ran lint",
        "ran demo",
        "ran test",
        "ran test-clusters",
        "ran rehearsal",
    ]
    assert ".ci/run: passed" in answer.stdout


def test_makefile_names_no_registry() -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "index-url" not in text
        assert "find-links" not in text


def test_architecture_names_every_folder_of_the_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert {name for name in folders if f"{name}/" not in text} == set()


def tracked() -> list[Path]:
    """The files under version control; without git (an unpacked archive) there is nothing to look at."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    answer = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    paths = [ROOT / name for name in answer.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def test_sources_are_short() -> None:
    """Over 500 lines is an error; over 300 is allowed, and said."""
    counts = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in tracked()
        if path.suffix == ".py"
    }
    assert counts
    if long := {name: lines for name, lines in counts.items() if 300 < lines <= 500}:
        listed = ", ".join(f"{name} ({lines})" for name, lines in sorted(long.items()))
        warnings.warn(f"over 300 lines: {listed}", stacklevel=1)
    assert {name: lines for name, lines in counts.items() if lines > 500} == {}


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in tracked()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if (match := MACHINE_PATH.search(line))
    ]
    assert found == []


def test_machine_paths_are_recognised() -> None:
    root = "/"
    for path in ("work/main/x", "work", "tmp/v/bin/python"):
        assert MACHINE_PATH.search(f"see {root}{path}"), path
    for text in ("https://example.org/work/main", "~/work/main", "/tmp/values.json", "/workers", "a/work/b"):
        assert not MACHINE_PATH.search(text), text


def test_no_top_level_folder_is_empty() -> None:
    """Left over from something that moved away. Caches and environments begin with a dot."""
    empty = [
        path.name
        for path in ROOT.iterdir()
        if path.is_dir()
        and not path.name.startswith(".")
        and not any(child.is_file() and child.suffix != ".pyc" for child in path.rglob("*"))
    ]
    assert empty == []


def test_configs_are_yaml() -> None:
    for path in sorted(ROOT.glob("configs/**/*.yaml")):
        assert yaml.safe_load(path.read_text(encoding="utf-8")) is not None, path
