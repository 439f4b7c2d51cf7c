"""``mpc-ray bench``: one JSON object on standard output, or a table; errors with an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpc_ray.cli.main import run

LOCAL = ("--launcher", "threads", "--no-tls", "--runs", "1")
TINY = ("--shape", "1x32x2x64", "--seq", "8")


def test_encoder_prints_one_object(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dump = tmp_path / "pass.npz"
    assert run(["bench", "encoder", *TINY, *LOCAL, "--no-range-check", "--json", "--dump", str(dump)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["seq"], said["batch"], said["runs"], said["range_check"]) == (8, 1, 1, False)
    assert dump.stat().st_size > 0


def test_encoder_shows_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "encoder", *TINY, *LOCAL]) == 0
    shown = capsys.readouterr().out
    for words in ("rounds", "bytes sent, by party", "with range checks", "softmax"):
        assert words in shown


def test_ops_print_one_object_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "ops", "--op", "truncate", "--size", "30", *LOCAL, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["op"], said["size"], said["rounds"]) == ("truncate", "30", 2)
    assert run(["bench", "ops", "--op", "truncate", "--size", "30", *LOCAL]) == 0
    assert "truncate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["encoder", "--shape", "nothing", *LOCAL], 2),
        (["encoder", *TINY, *LOCAL, "--dump", "/no/such/folder/x.npz"], 2),
        (["encoder", *TINY, *LOCAL, "--dump", "x.txt"], 2),
        (["encoder", *TINY, *LOCAL, "--profile", "x.txt"], 2),
        (["encoder", *TINY, "--launcher", "processes", "--no-tls"], 2),
        (["encoder", *TINY, *LOCAL, "--protocol", "trust_me"], 2),
        (["ops", "--op", "nothing", *LOCAL], 2),
        (["ops", "--op", "kernels", "--size", "3"], 2),
    ],
)
def test_errors_have_a_code(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *words, "--json"]) == code
    out = capsys.readouterr()
    assert json.loads(out.out)["exit_code"] == code
    assert "Traceback" not in out.err
