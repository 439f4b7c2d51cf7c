"""One tiny measurement for all tests here, and the scripts of benchmarks/ as modules."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mpc_ray.bench.encoder import measure
from mpc_ray.bench.shapes import shape_of
from mpc_ray.config import Config

ROOT = Path(__file__).parents[2]
TINY = "1x32x2x64"
# Parties in processes of their own must import this checkout.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))


@pytest.fixture(scope="session")
def local() -> Config:
    """Three threads, queues in memory: the fastest way to run three parties."""
    return Config(launcher="threads", tls=False)


@pytest.fixture(scope="session")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "pass.npz"


@pytest.fixture(scope="session")
def measured(local: Config, dump: Path) -> dict[str, Any]:
    """A pass of two sequences, its dump in ``dump``."""
    return measure(shape_of(TINY), seq=12, batch=2, runs=2, config=local, dump=dump)


def script(name: str) -> ModuleType:
    """benchmarks/NAME.py, which is no package."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def load_script() -> Any:
    return script
