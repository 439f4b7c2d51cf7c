"""Lets the tests of this folder import the modules beside them; a tiny model and its bundle."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from direct import Direct  # type: ignore[import-not-found]
from fake_gateway import BEARER, FakeGateway, Federation  # type: ignore[import-not-found]
from owned import Owned, make  # type: ignore[import-not-found]

from mpc_ray.client import AsyncClient


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Owned:
    return make(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return Federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def gateway(federation: Federation, made: Owned) -> FakeGateway:
    return FakeGateway(federation, made)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses before another try are a hundredth of what they are."""
    from mpc_ray.client import retry

    monkeypatch.setattr(retry, "FIRST_S", 0.002)
    monkeypatch.setattr(retry, "MOST_S", 0.02)


@pytest.fixture
def client(gateway: FakeGateway, quick: None) -> Callable[..., AsyncClient]:
    """Makes a client of the fake gateway."""

    def make(**changed: Any) -> AsyncClient:
        settings: dict[str, Any] = {
            "bundle": gateway.owned.bundle,
            "signing_key": gateway.federation.key,
            "trust": gateway.federation.ca,
            "api_key": BEARER,
            "transport": gateway,
            "retries": 4,
            "timeout_s": 20.0,
        }
        return AsyncClient("https://gateway.test", **(settings | changed))

    return make


@pytest.fixture
def direct(made: Owned) -> Direct:
    return Direct(made)
