"""Compiled loops and OR-Tools are loaded once, before any test. On a fresh checkout that compiles them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpc_ray.planner.assignment import warm


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test pays for compiling: a quarter of a minute alone, far more on a machine that others share."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session", autouse=True)
def warmed() -> None:
    warm()
