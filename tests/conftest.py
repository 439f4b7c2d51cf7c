"""What all tests share: a clean environment, reproducible examples, GPU tests that say why they skip."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from federation import Federation

# Files that start Ray clusters. Two that start at once take each other's ports, so one worker runs them all in turn.
STARTS_RAY = frozenset(
    f"tests/{name}.py"
    for name in (
        "cli/test_main_ray", "clusters/test_up_aws", "clusters/test_up_local", "dispatch/test_emulated",
        "dispatch/test_router", "endpoint/test_ray", "planner/tune/test_tune", "serve/test_onecluster",
        "serve/test_serve", "session/test_ray",
    )
)  # fmt: skip


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file at a time to each worker, and all that start Ray as if they were one."""
    from xdist.scheduler import LoadFileScheduling

    class OneRayAtATime(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "Ray" if file in STARTS_RAY else file

    return OneRayAtATime(config, log) if config.getvalue("dist") == "loadfile" else None


# Before any test imports ray: it reads these once.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Three parties share the test machine's cores: one compute thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What telemetry would drop and count is an error here, in every process that a test starts.
os.environ["MPC_TEST_STRICT_TELEMETRY"] = "1"

settings.register_profile("local", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("local"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


@pytest.fixture(scope="session", autouse=True)
def clean_environment() -> Iterator[None]:
    """Take away the settings of whoever runs the tests: theirs must not decide what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if (name.startswith("MPC_") and not name.startswith("MPC_TEST_")) or name == "RAY_ADDRESS":
                patch.delenv(name)
        yield


def _load_federation() -> None:
    """Make ``federation.py`` importable as ``federation`` in every folder of tests, without a path for all."""
    specification = importlib.util.spec_from_file_location(
        "federation", Path(__file__).with_name("federation.py")
    )
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["federation"] = module
    specification.loader.exec_module(module)


_load_federation()


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """A federation of three parties, a gateway and a client, made anew for this test (0.1 s)."""
    from federation import make_federation

    return make_federation(tmp_path / "federation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where PyTorch sees no CUDA device. Ray's come first: they take as long as half of the
    rest, and mostly wait."""
    items.sort(key=lambda item: item.nodeid.split("::", 1)[0] not in STARTS_RAY)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device that PyTorch can use"))
