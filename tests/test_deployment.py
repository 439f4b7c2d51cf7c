"""docs/deployment.md: what it tells an operator to type exists, with these options; its settings are valid."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
if str(ROOT / "tests") not in sys.path:
    sys.path.append(str(ROOT / "tests"))

from test_readme import blocks, cli, parse, targets  # noqa: E402

TEXT = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
HEREDOC = re.compile(
    r"^(?P<line>[^\n]*)<<'(?P<end>[A-Z]+)'\n(?P<body>.*?)^(?P=end)$", re.MULTILINE | re.DOTALL
)
# Programs of other people; what we know of them is not checked here.
OTHERS = {
    "export",
    "mkdir",
    "cd",
    "cat",
    "curl",
    "kill",
    "echo",
    "sleep",
    "do",
    "done",
    "tail",
    "test",
    "umask",
    "aws",
}


def script() -> str:
    return "\n".join(blocks(TEXT, "bash"))


def documents() -> dict[str, str]:
    """Files that the reader writes by `cat > NAME <<`, programs given to `python -`; the last of a name counts."""
    found = {}
    for match in HEREDOC.finditer(script()):
        name = match["line"].partition("> ")[2] or match["line"]
        found[name.strip()] = match["body"]
    return found


def simple(line: str) -> list[list[str]]:
    """The simple commands of one line, without redirections, assignments and shell words around them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    found: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if skip:
            skip = False
        elif set(word) <= set("();|&"):
            found.append([])
        elif set(word) <= set("<>&"):
            skip = True
            if found[-1] and found[-1][-1].isdigit():  # 2>&1
                found[-1].pop()
        else:
            found[-1].append(word)
    return [words for words in map(stripped, found) if words]


def stripped(words: list[str]) -> list[str]:
    while words and (
        words[0] in {"nohup", "until", "then", "do", "sudo"}
        or re.fullmatch(r"[A-Z_]+=.*", words[0], re.DOTALL)
    ):
        words = words[3:] if words[:2] == ["sudo", "-u"] else words[1:]
    return words


def commands(text: str) -> list[list[str]]:
    """All commands of a script, those inside $(…) and those that `ray exec` runs elsewhere included."""
    text = HEREDOC.sub(lambda found: found["line"], text).replace("\\\n", " ")
    found: list[list[str]] = []
    for whole in text.splitlines():
        line = whole
        for inner in re.findall(r"\$\(([^()]*)\)", line):
            found += simple(inner)
        line = re.sub(r"\"?\$\([^()]*\)\"?", "X", line)
        for words in simple(line):
            found.append(words)
            if words[:2] == ["ray", "exec"]:
                found += simple(words[-1])
    return found


def inline() -> list[str]:
    """Commands of ours in the running text."""
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    return [code for code in re.findall(r"`([^`\n]+)`", prose) if code.startswith("mpc-ray ")]


ALL = commands(script())


def check(words: list[str]) -> None:
    program = Path(words[0]).name
    if program == "mpc-ray":
        arguments = words[1:]
        if arguments[0] == "supervise":  # hands on all that follows
            parse(cli(), arguments[:2])
            arguments = arguments[1:]
        parse(cli(), arguments)
    elif program == "make":
        assert set(words[1:]) <= targets()
    elif program == "ray":
        parse(pytest.importorskip("ray.scripts.scripts").cli, words[1:])
    elif program not in OTHERS | {"python", "install", "systemctl", "journalctl"}:
        pytest.fail(f"{' '.join(words)}: no test knows {program}")


@pytest.mark.parametrize("words", ALL, ids=lambda words: " ".join(words)[:70])
def test_a_command_exists(words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize("code", sorted(set(inline())))
def test_a_command_in_the_text_exists(code: str) -> None:
    in_the_text(code)


def in_the_text(code: str) -> None:
    """A command in running text may lack arguments, and all of it after its name; what is there must exist."""
    words = shlex.split(code.rstrip("…").replace("…", ""))[1:]
    command = cli()
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, code
        command = command.commands[words.pop(0)]
    options = {name: parameter for parameter in command.params for name in parameter.opts}
    free = sum(
        parameter.nargs if parameter.nargs > 0 else 99
        for parameter in command.params
        if _is_argument(parameter)
    )
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            assert word.partition("=")[0] in options, code
            if "=" not in word and not options[word].is_flag:
                del words[:1]
        elif command.name != "supervise":  # which hands all of it on
            free -= 1
            assert free >= 0, f"{code}: {word}"


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


CONFIGS = sorted(
    path
    for pattern in ("configs/**/*.yaml", "configs/systemd/*.service", "cluster.yaml")
    for path in ROOT.glob(pattern)
)


def named_in(text: str) -> set[str]:
    """Commands of ours that a file's comments name, in backticks or in brackets."""
    found = re.findall(r"`((?:\.venv/bin/)?mpc-ray [^`\n]+)`", text) + re.findall(
        r"[(] ?(mpc-ray [a-z-]+ [a-z-]+)", text
    )
    return {code.removeprefix(".venv/bin/") for code in found}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_command_in_a_settings_file_exists(path: Path) -> None:
    for code in named_in(path.read_text(encoding="utf-8")):
        in_the_text(code)


def test_commands_of_settings_files_are_seen() -> None:
    with pytest.raises(AssertionError):
        in_the_text("mpc-ray certs request gateway")
    with pytest.raises(AssertionError):
        in_the_text("mpc-ray certs requests")
    found = [code for path in CONFIGS for code in named_in(path.read_text(encoding="utf-8"))]
    assert "mpc-ray certs request --gateway" in found and len(set(found)) > 8


@pytest.mark.parametrize("name", [name for name in documents() if name.endswith(".yaml")])
def test_settings_are_valid(name: str, tmp_path: Path) -> None:
    """Each file as the text has it; where a name comes twice, in parts A and B, both."""
    loaders = {"gateway.yaml": gateway, "proxy.yaml": proxy}
    found = [m["body"] for m in HEREDOC.finditer(script()) if m["line"].strip() == f"cat > {name}"]
    assert found
    for body in found:
        assert isinstance(yaml.safe_load(body), dict)
        path = tmp_path / name
        path.write_text(body)
        loaders.get(name, party)(path)


def party(path: Path) -> Any:
    return pytest.importorskip("mpc_ray.endpoint.config").PartyConfig.load(path)


def gateway(path: Path) -> Any:
    return pytest.importorskip("mpc_ray.serve.config").GatewayConfig.load(path)


def proxy(path: Path) -> Any:
    return pytest.importorskip("mpc_ray.client.settings").ClientSettings.load(path, environ={})


def test_programs_are_python() -> None:
    (program,) = [body for name, body in documents().items() if name.startswith("python")]
    ast.parse(program)


def test_files_that_are_named_exist() -> None:
    for name in set(re.findall(r"\b(?:configs/[\w./-]+\.(?:yaml|json)|cluster\.yaml)\b", TEXT)):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target


def test_the_steps_fit_together() -> None:
    """Ports that parties ask for are those they listen on; what is installed was signed."""
    files = documents()
    requests = {w[w.index("--out") + 1]: w for w in ALL if w[:3] == ["mpc-ray", "certs", "request"]}
    for operator in ("alpha", "beta", "gamma"):
        settings, words = yaml.safe_load(files[f"{operator}.yaml"]), requests[operator]
        assert settings["folder"] == operator
        for option, name in (("--peer", "peer"), ("--endpoint", "gateway")):
            assert words[words.index(option) + 1] == f"{settings[name]['host']}:{settings[name]['port']}"
    assert {
        words[words.index("--party") + 1]
        for name, words in requests.items()
        if name in files or name in ("alpha", "beta", "gamma")
    } == {"0", "1", "2"}
    signed = next(w for w in ALL if w[:3] == ["mpc-ray", "certs", "sign"])
    assert {f"{name}/request.json" for name in ("alpha", "beta", "gamma", "gw")} <= set(signed)


def test_waiting_ends_and_shows_why_it_was_in_vain() -> None:
    assert not re.search(r"\b(?:until|while)\b", script())
    waits = [line for line in script().splitlines() if line.startswith("curl ")]
    assert len(waits) == 2
    for line in waits:
        assert "--retry-max-time" in line and re.search(r"\|\| tail -n \d+ \w+\.log", line), line


def test_everybody_that_has_a_certificate_rotates_it() -> None:
    """Parties and the gateway, in part A's folders and in part B's; each is signed and installed again."""
    rotated = {words[words.index("--folder") + 1] for words in ALL if words[1:3] == ["certs", "rotate"]}
    assert rotated == {"alpha", "gw", "/var/lib/mpc-ray/party", "/var/lib/mpc-ray/gw"}
    after = commands("\n".join(blocks(TEXT.partition("### Rotation")[2], "bash")))
    signed = {word for words in after if words[:3] == ["mpc-ray", "certs", "sign"] for word in words[3:]}
    assert {"alpha/request.json", "gw/request.json", "request-alpha.json", "request-gateway.json"} <= signed


def test_a_request_is_looked_at_before_it_is_signed() -> None:
    part_b = commands("\n".join(blocks(TEXT.partition("## B.")[2], "bash")))
    shown = set()
    for words in part_b:
        if words[:3] == ["mpc-ray", "certs", "show"]:
            shown.add(words[3])
        if words[:3] == ["mpc-ray", "certs", "sign"]:
            assert {word for word in words if word.startswith("request-")} <= shown


def test_commands_are_seen() -> None:
    text = "A=1 nohup mpc-ray supervise party --config x > y 2>&1 & echo $! > z\n"
    text += "(umask 077 && mpc-ray keys list) # no\n"
    text += (
        'X="$(mpc-ray certs show p | tail -n 1)"\nray exec f "sudo -u u /opt/bin/mpc-ray doctor && true"\n'
    )
    text += "cat > f <<'YAML'\nmpc-ray nothing\nYAML\n"
    found = [words for words in commands(text) if Path(words[0]).name == "mpc-ray"]
    assert [words[1:3] for words in found] == [
        ["supervise", "party"],
        ["keys", "list"],
        ["certs", "show"],
        ["doctor"],
    ]
    with pytest.raises(Exception, match="No such"):
        check(["mpc-ray", "certs", "show", "p", "--no-such-option"])
    with pytest.raises(Exception, match="No such"):
        check(["ray", "up", "--no-such-option", "f"])
    with pytest.raises(AssertionError):
        check(["make", "no-such-target"])
