"""The program as a whole, where it starts a Ray of its own: how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = (sys.executable, "-P", "-c", "from mpc_ray.cli.main import main; main()")


@pytest.mark.parametrize("line", ["starting three parties", "importing"])
def test_sigterm_under_ray(tiny: Path, tmp_path: Path, line: str) -> None:
    """Ray installs a handler of its own: while it starts, and once the parties run."""
    pytest.importorskip("ray")
    child = subprocess.Popen(
        [*PROGRAM, "embed", "a text", "--launcher", "ray", "--model", str(tiny), "--json"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    while not (heard := child.stderr.readline()).count(line):
        assert heard, "it ended before"
    time.sleep(2.5 if line.startswith("starting") else 0)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 143, err
    assert json.loads(out) == {
        "error": "Interrupted",
        "cause": "stopped by SIGTERM",
        "remedy": "",
        "exit_code": 143,
    }
    assert err.splitlines()[-1] == "stopped"
    assert "***" not in err  # no native stack
    assert "Traceback" not in err
