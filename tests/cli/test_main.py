"""The program as a whole: start, help, version, and how every kind of error ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import mpc_ray
from mpc_ray import errors
from mpc_ray.cli.output import explain

PROGRAM = (sys.executable, "-P", "-c", "from mpc_ray.cli.main import main; main()")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["demo", "--help"], ["bench", "--help"]])
def test_starting_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from mpc_ray.cli.main import run\n"
        f"status = run({arguments!r})\n"
        "heavy = {'torch', 'ray', 'numba', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else status)\n"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout


def test_version(cli: Any) -> None:
    assert cli("--version").out == f"mpc-ray {mpc_ray.__version__}\n"
    assert cli("--version", "--json").json == {"version": mpc_ray.__version__}


def test_no_command_shows_the_help(cli: Any) -> None:
    ended = cli()
    assert ended.code == 0
    for command in ("demo", "embed", "bench", "doctor"):
        assert command in ended.out


def test_help_tells_every_exit_code(cli: Any) -> None:
    text = " ".join(cli("demo", "--help").out.split())
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.MpcError)]
    assert len(classes) > 10
    for code in {0, 1, 130, 141, 143, *(c.exit_code for c in classes)}:
        assert f" {code} " in text


@pytest.mark.parametrize(
    "arguments",
    [("no-such-command",), ("demo", "--no-such-option"), ("embed", "--threads", "x"), ("bench", "y")],
)
def test_wrong_usage_is_one_line(cli: Any, arguments: tuple[str, ...]) -> None:
    cli(*arguments).one_line_error(2)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--launcher", "cloud"), "launcher"),
        (("--protocol", "magic"), "protocol"),
        (("--timeout", "0"), "timeout_s"),
        (("--num-gpus", "1", "--launcher", "threads"), "num_gpus"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_a_wrong_setting_is_one_line(cli: Any, flags: tuple[str, ...], word: str) -> None:
    cli("embed", "a text", *flags).one_line_error(2, word)


def test_settings_come_from_file_environment_and_flags_in_this_order(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.yaml").write_text("launcher: from-file\n")
    cli("embed", "a", "--config", "s.yaml").one_line_error(2, "file s.yaml")
    monkeypatch.setenv("MPC_LAUNCHER", "from-environment")
    cli("embed", "a", "--config", "s.yaml").one_line_error(2, "MPC_LAUNCHER")
    cli("embed", "a", "--config", "s.yaml", "--launcher", "x").one_line_error(2, "launcher (argument)")


def test_an_error_is_one_json_object_too(cli: Any) -> None:
    ended = cli("embed", "", "--json")
    ended.one_line_error(2, "text 0 is empty")
    assert ended.json == {
        "error": "InputError",
        "cause": "text 0 is empty",
        "remedy": "leave it out",
        "exit_code": 2,
    }
    assert cli("embed", "", "--", "--json").out == ""  # a text, no option


def raising(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object, **named: object) -> None:
        raise error

    monkeypatch.setattr("mpc_ray.cli.texts.read", fail)


@pytest.mark.parametrize(
    ("error", "code", "cause"),
    [
        (errors.ModelError("no config.json in x", remedy="copy it"), 3, "no config.json in x"),
        (errors.RangeExceeded("left the range in layer 3/softmax", remedy="calibrate"), 4, "layer 3/softmax"),
        (errors.ChannelError("port 7000 is in use", remedy="choose another"), 5, "port 7000 is in use"),
        (errors.PeerLost("party 2", "never came", remedy="start it"), 5, "party 2: never came"),
        (errors.CertificateError("of another authority", remedy="use one"), 5, "of another authority"),
        (errors.HelloMismatch("another version", remedy="use one"), 5, "another version"),
        (errors.DeviceError("no usable GPU", remedy="use cpu"), 6, "no usable GPU"),
        (errors.PlacementError("too busy", remedy="wait"), 6, "too busy"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "torch cannot be imported"),
        (ZeroDivisionError("in one\nof ours"), 1, "ZeroDivisionError: in one of ours"),
    ],
)
def test_every_error_is_one_line_with_its_exit_code(
    cli: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, cause: str
) -> None:
    raising(error, monkeypatch)
    cli("demo").one_line_error(code, cause)


def test_a_traceback_needs_debug(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(ZeroDivisionError("ours"), monkeypatch)
    assert "Traceback" not in cli("demo").err
    ended = cli("demo", "--debug")
    assert "Traceback" in ended.err
    assert ended.code == 1


def test_remedies_speak_of_flags() -> None:
    _, remedy, code = explain(errors.InputError("too long", remedy="split it, or truncate=True"))
    assert (remedy, code) == ("split it, or --truncate", 2)


def test_interrupt_in_this_process(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(KeyboardInterrupt(), monkeypatch)
    ended = cli("demo")
    assert (ended.code, ended.out, ended.err) == (130, "", "stopped\n")
    ended = cli("demo", "--json")
    assert (ended.code, ended.err) == (130, "stopped\n")
    assert ended.json == interrupted("Ctrl-C", 130)


def interrupted(by: str, code: int) -> dict[str, Any]:
    return {"error": "Interrupted", "cause": f"stopped by {by}", "remedy": "", "exit_code": code}


STOPS = [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)]


@pytest.mark.parametrize(("number", "by", "code"), STOPS)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_signal_ends_the_parties_and_the_program(
    tiny: Path, tmp_path: Path, number: signal.Signals, by: str, code: int, as_json: bool
) -> None:
    flags = ["--json"] if as_json else []
    child = subprocess.Popen(
        [*PROGRAM, "embed", "a text", "--launcher", "processes", "--model", str(tiny), *flags],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell ignores Ctrl-C, and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread here
    )
    assert child.stderr is not None
    assert "starting three parties" in child.stderr.readline()
    time.sleep(0.3)
    parties = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    child.send_signal(number)
    child.send_signal(number if number == signal.SIGTERM else 0)  # some send it twice
    out, err = child.communicate(timeout=20)
    assert child.returncode == code, err
    assert (json.loads(out) == interrupted(by, code)) if as_json else (out == "")
    assert err.endswith("stopped\n")
    assert "Traceback" not in err
    assert parties
    assert not any(Path(f"/proc/{pid}").exists() for pid in parties)
    assert not list(tmp_path.glob("mpc-*"))  # no logs, no keys


def test_leaving_runs_exit_functions_and_waits_for_no_thread(tmp_path: Path) -> None:
    code = (
        "import atexit, sys, threading, time\n"
        "atexit.register(print, 'cleaned up')\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "sys.argv = ['mpc-ray', 'embed', '']\n"
        "from mpc_ray.cli.main import main\n"
        "main()\n"
    )
    answer = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (answer.returncode, answer.stdout) == (2, "cleaned up\n")
    assert "text 0 is empty" in answer.stderr


@pytest.mark.parametrize(
    "output", [["--help"], ["--version"], ["embed", "x"], ["embed", "x", "-o", "-"], ["embed", "x", "--json"]]
)
def test_a_reader_that_left_ends_it_quietly(
    tiny: Path, tmp_path: Path, fast: tuple[str, ...], output: list[str]
) -> None:
    more = ["--model", str(tiny), *fast] if "embed" in output else []
    child = subprocess.Popen(
        [*PROGRAM, *output, *more],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    err = child.stderr.read()
    assert "Traceback" not in err
    assert "error" not in err
    assert child.wait(timeout=30) == 141  # as shells say it: 128 + SIGPIPE
    child.stderr.close()
