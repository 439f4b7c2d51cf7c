"""What the documents tell a reader to type exists, and its links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/benchmarks.md")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(text: str, *languages: str) -> list[str]:
    """Fenced blocks in one of `languages`."""
    return [body for language, body in FENCE.findall(text) if language in languages]


def commands(text: str) -> list[list[str]]:
    """Shell commands of a document as words, without comments, prompts and leading assignments."""
    found = []
    for body in blocks(text, "bash", "sh", "shell", "console"):
        for line in body.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words:
                found.append(words)
    return found


def documented() -> Iterator[Any]:
    for name in DOCUMENTS:
        for words in commands((ROOT / name).read_text(encoding="utf-8")):
            yield pytest.param(words, id=f"{name}: {' '.join(words)[:60]}")


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE))


def cli() -> Any:
    """The command line as a click command; the test is skipped as long as there is none."""
    if not (ROOT / "mpc_ray" / "cli" / "main.py").exists():
        pytest.skip("there is no command line yet")
    import typer

    from mpc_ray.cli import main

    application = next((value for value in vars(main).values() if isinstance(value, typer.Typer)), None)
    assert application is not None, "mpc_ray.cli.main holds no typer.Typer"
    return typer.main.get_command(application)


def parse(command: Any, words: list[str]) -> None:
    """Parse `words` down to the last subcommand, running nothing; raises where something is unknown."""
    name = "mpc-ray"
    context = None
    while True:
        with command.make_context(name, list(words), parent=context, resilient_parsing=False) as context:
            nested: Callable[..., Any] | None = getattr(command, "resolve_command", None)
            if nested is None:
                return
            rest = [*getattr(context, "_protected_args", []), *context.args]
            assert rest, f"{name} needs a subcommand"
            name, command, words = nested(context, rest)


@cache
def script_help(name: str) -> str:
    """What `benchmarks/NAME.py --help` prints."""
    path = ROOT / "benchmarks" / f"{name}.py"
    assert path.is_file(), f"there is no benchmarks/{name}.py"
    answer = subprocess.run(
        [sys.executable, str(path), "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.parametrize("words", list(documented()))
def test_documented_command_exists(words: list[str]) -> None:
    program = words[0].removeprefix(".venv/bin/")
    if program == "make":
        named = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        assert named, "make without a target"
        assert set(named) <= targets()
    elif program == "mpc-ray":
        parse(cli(), words[1:])
    elif program == "python" and (script := re.fullmatch(r"benchmarks/(\w+)\.py", words[1])):
        options = {word.partition("=")[0] for word in words[2:] if word.startswith("-")}
        assert options <= set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", script_help(script[1])))
    else:
        pytest.fail(
            f"{' '.join(words)}: neither make, mpc-ray nor a script of benchmarks/, so no test knows it"
        )


def test_readme_shows_the_two_commands_that_ci_runs() -> None:
    shown = [" ".join(words) for words in commands((ROOT / "README.md").read_text(encoding="utf-8"))]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("make demo", "make test"):
        assert command in shown
        assert command in script


def test_unknown_commands_are_found() -> None:
    shell = '```bash\n$ make no-such-target   # a comment\nX=1 mpc-ray \\\n  demo "a b"\n```\n'
    text = shell + "```python\nmake demo\n```\n"
    assert commands(text) == [["make", "no-such-target"], ["mpc-ray", "demo", "a b"]]
    with pytest.raises(AssertionError):
        test_documented_command_exists(["make", "no-such-target"])
    with pytest.raises(AssertionError, match="there is no benchmarks/gone"):
        test_documented_command_exists(["python", "benchmarks/gone.py"])
    with pytest.raises(AssertionError):
        test_documented_command_exists(["python", "benchmarks/compare.py", "--no-such-option"])
    with pytest.raises(pytest.fail.Exception, match="no test knows it"):
        test_documented_command_exists(["python", "setup.py"])


def test_an_unknown_subcommand_or_option_is_found() -> None:
    command = cli()
    for words in (["no-such-command"], ["doctor", "--no-such-option"]):
        with pytest.raises(Exception, match="No such") as caught:
            parse(command, words)
        # By name: typer brings click's classes along from some version on, and uses click itself before.
        assert "UsageError" in {base.__name__ for base in type(caught.value).__mro__}


def test_python_examples_parse_and_use_what_exists() -> None:
    import mpc_ray

    for body in blocks((ROOT / "README.md").read_text(encoding="utf-8"), "python"):
        for node in ast.walk(ast.parse(body)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "mpc_ray"
            ):
                assert node.attr in mpc_ray.__all__


@pytest.mark.parametrize(
    "name", [*DOCUMENTS, "SECURITY.md", "CHANGELOG.md", "docs/architecture.md", "docs/operations.md"]
)
def test_relative_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), target
