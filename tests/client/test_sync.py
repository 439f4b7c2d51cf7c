"""The client without asyncio: any thread, inside an event loop, and its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fake_gateway import BEARER, FakeGateway, Federation  # type: ignore[import-not-found]

from mpc_ray.client import AsyncClient, Client
from mpc_ray.errors import (
    ConfigError,
    InputError,
)
from mpc_ray.models.bert_float import embed
from mpc_ray.trust.authorisation import SigningKey

Make = Callable[..., AsyncClient]
TEXTS = ["Hello, world!", "a", "The 7 quick foxes (and 9 dogs)", "b", "c d e f g h i j k l m n"]
TOLERANCE = 1e-4


def run(client: AsyncClient, texts: Any = ("hello",), **settings: Any) -> Any:
    async def work() -> Any:
        async with client:
            return await client.embed(list(texts), **settings)

    return asyncio.run(work())


@pytest.fixture
def sync(gateway: FakeGateway, quick: None) -> Any:
    with Client(
        "https://gateway.test",
        bundle=gateway.owned.bundle,
        signing_key=gateway.federation.key,
        trust=gateway.federation.ca,
        api_key=BEARER,
        transport=gateway,
    ) as one:
        yield one


def test_the_synchronous_client_does_the_same(sync: Client, gateway: FakeGateway) -> None:
    wanted = embed(gateway.owned.bert, TEXTS)
    assert np.abs(sync.embed(TEXTS) - wanted).max() < TOLERANCE
    assert sync.models()[0]["name"] == "tiny" and sync.ready() and set(sync.parties()) == {"eu", "us"}
    with pytest.raises(InputError):
        sync.embed([""])
    sync.close()
    sync.close()
    with pytest.raises(ConfigError, match="client is closed"):
        sync.embed(["a"])
    assert gateway.closed


def test_it_works_in_many_threads_and_inside_an_event_loop(sync: Client, gateway: FakeGateway) -> None:
    from concurrent.futures import ThreadPoolExecutor

    wanted = embed(gateway.owned.bert, TEXTS[:5])
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: sync.embed(TEXTS[:5]), range(8)):
            assert np.abs(found - wanted).max() < TOLERANCE

    async def inside() -> Any:  # as in a notebook
        return sync.embed(TEXTS[:5])

    assert np.abs(asyncio.run(inside()) - wanted).max() < TOLERANCE


def test_closing_ends_calls_under_way(sync: Client, gateway: FakeGateway) -> None:
    import threading

    async def hangs(fake: FakeGateway, request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return fake.infer(request)

    gateway.react = [hangs]
    ended: list[BaseException] = []

    def call() -> None:
        try:
            sync.embed(["a"])
        except BaseException as error:  # noqa: BLE001 - looked at below
            ended.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not gateway.posted:
        time.sleep(0.01)
    sync.close()
    thread.join(5)
    assert not thread.is_alive() and len(ended) == 1


def test_a_signing_key_is_read_from_its_file(client: Make, tmp_path: Path, federation: Federation) -> None:
    federation.key.save(tmp_path / "client.key")
    assert run(client(signing_key=tmp_path / "client.key")).shape == (1, 32)
    (tmp_path / "client.key").chmod(0o644)
    with pytest.raises(ConfigError, match="others on this machine may read it"):
        client(signing_key=tmp_path / "client.key")
    assert SigningKey.generate().id != federation.key.id
