"""What the tests of models share: three real executors in threads, and a model on them in one call."""

from __future__ import annotations

import secrets
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mpc_ray.channel import Message
from mpc_ray.channel.local import local_channels
from mpc_ray.execute import Executor
from mpc_ray.models import query
from mpc_ray.models.export import Export
from mpc_ray.sharing.deal import Secret

sys.path.append(str(Path(__file__).resolve().parent))


class Trio:
    """Three parties' executors over in-process channels. The first exception of any party is raised."""

    def __init__(self, allow_trace: bool = True, make: Callable[..., Executor] = Executor) -> None:
        self.channels = local_channels(timeout=30.0)
        self.executors: list[Executor] = self._all(
            lambda i: make(self.channels[i], digest=bytes(32), threads=1)
        )
        for executor in self.executors:
            executor.allow_trace = allow_trace

    def use(self, variant: str) -> None:
        """Compute by this variant from now on."""
        for executor in self.executors:
            executor.use(variant)

    def load(self, export: Export, name: str = "m") -> None:
        messages = query.load_messages(export, name, secrets.token_bytes(16))
        self._all(lambda i: self.executors[i].load(messages[i]))

    def run(
        self, shared: dict[str, Secret], output: str = "embedding", name: str = "m", trace: bool = False
    ) -> list[Message]:
        messages = query.run_messages(shared, name, secrets.token_bytes(16), 0, output, trace=trace)
        return self._all(lambda i: self.executors[i].run(messages[i]))

    def _all(self, call: Callable[[int], Any]) -> list[Any]:
        results: list[Any] = [None] * 3
        errors: list[BaseException] = []

        def party(i: int) -> None:
            try:
                results[i] = call(i)
            except BaseException as error:  # noqa: BLE001 - handed to the test's thread
                errors.append(error)
                self.channels[i].fail(error)

        threads = [threading.Thread(target=party, args=(i,)) for i in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        if errors:
            raise errors[0]
        return results


@pytest.fixture(scope="module")
def trio() -> Trio:
    return Trio()


@pytest.fixture
def make_trio() -> Callable[..., Trio]:
    """For tests that break their parties."""
    return Trio


@pytest.fixture(scope="module")
def make_trios() -> Callable[..., Trio]:
    """As ``make_trio``, for parties that a whole module shares."""
    return Trio
