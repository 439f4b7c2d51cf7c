"""Lets the tests of this folder import the modules beside them; a tiny model and its bundle."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from owned import Owned, make  # type: ignore[import-not-found]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Owned:
    return make(tmp_path_factory.mktemp("bundle"))
