"""What the tests of the command line share: a tiny model, its calibration, and the program run in this process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

FAST = ("--launcher", "threads", "--no-tls")


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that standard output must hold."""
        value: dict[str, Any] = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    def one_line_error(self, code: int, *words: str) -> None:
        """Standard error ends in one line with the cause and one with the remedy, and no traceback is there."""
        assert self.code == code, self.err
        assert "Traceback" not in self.err
        cause, remedy = self.err.splitlines()[-2:]
        assert cause.startswith("error: ")
        assert remedy.startswith("what to do: ")
        assert len(remedy) > len("what to do: ")
        for word in words:
            assert word in cause, cause


Cli = Callable[..., Ended]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A calibration cache of the tests' own: the first run fills it."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    yield folder
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def tiny(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of two small layers: a letter is a token, 64 at most."""
    from mpc_ray.models.synthetic import random_bert, save_bert

    return save_bert(random_bert(seed=3), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def broken(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, for a test to damage."""
    return Path(shutil.copytree(tiny, tmp_path / "broken"))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """``cli("demo", "a text")`` runs the program in this process, in an empty folder."""
    from mpc_ray.cli.main import run

    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return call


def program(*arguments: object, cwd: Path, stdin: str | None = None) -> Ended:
    """The program in a process of its own, as the command ``mpc-ray`` starts it."""
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, "-P", "-c", "from mpc_ray.cli.main import main; main()", *map(str, arguments)],
        cwd=cwd,
        env=environ,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Ended(answer.returncode, answer.stdout, answer.stderr)


@pytest.fixture
def own_process(tmp_path: Path) -> Cli:
    """``own_process("--version")`` runs the program in a process of its own, in an empty folder."""

    def call(*arguments: object, stdin: str | None = None) -> Ended:
        return program(*arguments, cwd=tmp_path, stdin=stdin)

    return call


@pytest.fixture(scope="session")
def fast() -> tuple[str, ...]:
    """Options for the fastest launcher."""
    return FAST
