"""examples/regions.py with two of its three sets: real endpoints behind relays, fail-over, residency, recovery."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.clusters
def test_the_story_ends_well() -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    answer = subprocess.run(
        [sys.executable, "-P", str(ROOT / "examples" / "regions.py"), "--sets", "eu", "us"],
        env=clean,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    lines = [line.split() for line in answer.stdout.splitlines() if "numbers in" in line]
    paths = [" ".join(line).split(" numbers")[0].rsplit(" ", 1)[0] for line in lines]
    assert paths == [
        "may go anywhere eu",
        "European Union only eu",
        "may go anywhere eu then us",
        "may go anywhere eu",
        "European Union only eu",
    ]
    assert answer.stdout.count("European Union only          not computed") == 1
