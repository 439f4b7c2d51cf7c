"""Endpoints that several tests of this folder share: they are started once, since each start takes seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from cluster import Three, three_endpoints  # type: ignore[import-not-found]


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    """Three endpoints under processes with the tiny model. Who breaks them starts its own."""
    with three_endpoints(tmp_path_factory.mktemp("three")) as three:
        yield three
