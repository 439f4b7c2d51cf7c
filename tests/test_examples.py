"""What README.md and examples/ show runs: the example, README's Python, and every `mpc-ray` command in it.

On a tiny model, with threads: the commands are the reader's own, and what makes them small is added at their end, where
the last of two equal options wins.
"""

from __future__ import annotations

import importlib.util
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = {
    "demo": ("--model", "tiny", "--launcher", "threads", "--no-tls"),
    "embed": ("--model", "tiny", "--launcher", "threads", "--no-tls"),
    "bench encoder": (
        "--shape",
        "1x32x2x64",
        "--seq",
        "16",
        "--runs",
        "1",
        "--launcher",
        "threads",
        "--no-tls",
    ),
    "bench ops": ("--op", "gelu", "--size", "4x8", "--runs", "1", "--launcher", "threads", "--no-tls"),
    "doctor": ("--model", "tiny"),
}


def shown(language: str) -> list[str]:
    """The blocks of README in one language."""
    return [body for found, body in FENCE.findall(README) if found == language]


def commands() -> Iterator[Any]:
    """README's `mpc-ray` commands, as words."""
    for body in shown("bash"):
        for line in body.splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "mpc-ray":
                yield pytest.param(words[1:], id=" ".join(words[1:])[:70])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model of two small layers; its calibration is kept in a cache of these tests' own."""
    from mpc_ray.models.synthetic import random_bert, save_bert

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield save_bert(random_bert(seed=3), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def place(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as README's reader has it: the model, and a file of texts."""
    (tmp_path / "tiny").symlink_to(tiny)
    (tmp_path / "texts.txt").write_text("how do i reset my password\ni forgot my login\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def example() -> ModuleType:
    """examples/embed.py as a module."""
    spec = importlib.util.spec_from_file_location("example_embed", ROOT / "examples" / "embed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("words", list(commands()))
def test_readme_command_runs(
    words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mpc_ray.cli.main import run

    name = next(name for name in SMALL if words[: len(name.split())] == name.split())
    monkeypatch.setattr(sys, "stdin", io.StringIO("a first text\nanother text\n"))
    assert "--ray" not in words, "Ray is started by CI's demo and by tests/session"
    code = run([*words, *SMALL[name]])
    said = capsys.readouterr()
    assert code == 0, said.err
    assert said.out


def test_readme_shows_every_command() -> None:
    shown_words = [param.values[0] for param in commands()]
    for name in SMALL:
        assert any(words[: len(name.split())] == name.split() for words in shown_words), name


def test_readme_python_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPC_LAUNCHER", "threads")
    monkeypatch.setenv("MPC_TLS", "false")
    blocks = shown("python")
    assert blocks
    names: dict[str, Any] = {}
    for body in blocks:
        exec(body.replace('"path/to/all-MiniLM-L6-v2"', '"tiny"'), names)
    assert names["vectors"].shape == (2, 32)
    assert np.allclose(np.linalg.norm(names["vectors"], axis=1), 1, atol=1e-4)


def test_example_agrees_with_plaintext(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mpc_ray.models.bert_float import embed
    from mpc_ray.models.load import load_bert

    module = example()
    sentences = ["hello world", "hello worlds", "quite another text"]
    assert module.main([*sentences, "--model", "tiny", "--launcher", "threads"]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = module.neighbours(embed(load_bert(place / "tiny"), sentences))
    for sentence, line, (other, cosine) in zip(sentences, lines, wanted, strict=False):
        found, rest = line.split(maxsplit=1)
        assert rest == f"{sentence}  ->  {sentences[other]}"
        assert abs(float(found) - cosine) < 2e-3
    assert "rounds" in lines[3]
    assert "for tests only" in lines[4]


def test_example_runs_as_a_program_on_three_processes(place: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-P", str(ROOT / "examples" / "embed.py"), "--model", str(place / "tiny")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.splitlines()) == 6
    assert "trust: three processes of one machine" in answer.stdout


def test_example_says_what_is_wrong_in_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert example().main(["--model", "nowhere", "--launcher", "threads"]) == 3
    assert capsys.readouterr().err.startswith("error: no model folder at nowhere (")
    with pytest.raises(SystemExit, match="2"):
        example().main(["alone"])
