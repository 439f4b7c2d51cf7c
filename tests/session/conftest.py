"""What the tests of sessions share: the stub executor, importable in every party's process, and job builders."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_ray.channel import Message

HERE = str(Path(__file__).parent)
ROOT = str(Path(__file__).parents[2])
STUB = "stub_executor:StubExecutor"
Make = Callable[[bytes, int], Sequence[Message]]

# For threads, for subprocesses, and for the workers of a Ray that starts after this line.
sys.path.append(HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), HERE, ROOT]))


@pytest.fixture(scope="session")
def stub() -> str:
    return STUB


@pytest.fixture(scope="session")
def job() -> Callable[..., Make]:
    """``job(who=1, how="die")``: a run in which party i puts in [i + 1, 10 * (i + 1)], so that all answer [6, 60]."""

    def build(**header: Any) -> Make:
        def make(name: bytes, attempt: int) -> Sequence[Message]:
            head = {"cmd": "run", "job": name.hex(), "attempt": attempt, **header}
            return [Message(head, {"x": np.array([i + 1, 10 * (i + 1)])}) for i in range(3)]

        return make

    return build
