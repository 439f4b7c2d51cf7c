"""Three parties on 127.0.0.1 for the channel's tests."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mpc_ray.channel import FramedChannel, Hello, Listener, local_channels
from mpc_ray.trust.certs import Identity

sys.path.append(str(Path(__file__).resolve().parents[1] / "trust"))
from certificates import make_session_certificates

SESSION = bytes(range(16))


class Parties:
    """Runs one function a party in threads; makes channels; closes everything."""

    def __init__(self, certificates: dict[str, Identity]) -> None:
        self.certificates = certificates
        self._closing: list[Any] = []

    def together(self, functions: Sequence[Callable[[], Any]], limit: float = 30.0) -> list[Any]:
        """Results, or the exceptions raised, in order. Fails when one does not end within ``limit``
        seconds.
        """
        results: list[Any] = [None] * len(functions)

        def run(i: int) -> None:
            try:
                results[i] = functions[i]()
            except Exception as error:  # noqa: BLE001  # the test looks at it
                results[i] = error

        threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(functions))]
        end = time.monotonic() + limit
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        assert not any(thread.is_alive() for thread in threads), "deadlock"
        return results

    def listener(self, me: int, **settings: Any) -> Listener:
        identity = settings.pop("identity", self.certificates[f"party-{me}"])
        listener = Listener(me, identity, **settings)
        self._closing.append(listener)
        return listener

    def tls(self, **settings: Any) -> list[FramedChannel]:
        """Three channels over TLS."""
        listeners = [self.listener(me) for me in range(3)]
        addresses = [listener.address for listener in listeners]
        return self.connect(listeners, [addresses] * 3, **settings)

    def connect(
        self, listeners: list[Listener], addresses: list[Any], **settings: Any
    ) -> list[FramedChannel]:
        """``addresses[i]`` is what party i is told."""
        hello = Hello(SESSION)
        channels = self.together(
            [lambda i=i: listeners[i].channel(addresses[i], hello, 5.0, **settings) for i in range(3)]
        )
        for channel in channels:
            assert isinstance(channel, FramedChannel), channel
        self._closing.extend(channels)
        return channels

    def make(self, kind: str, timeout: float = 20.0) -> list[FramedChannel]:
        """Three channels of ``kind`` local or tls."""
        if kind == "tls":
            return self.tls(step_timeout=timeout)
        channels = list(local_channels(timeout=timeout))
        self._closing.extend(channels)
        return channels

    def close(self) -> None:
        self.together([thing.close for thing in self._closing])


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    return make_session_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    """Certificates of another session's authority."""
    return make_session_certificates(tmp_path_factory.mktemp("others"))


@pytest.fixture
def parties(certificates: dict[str, Identity]) -> Iterator[Parties]:
    made = Parties(certificates)
    yield made
    made.close()


@pytest.fixture(params=["local", "tls"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def quickly() -> Callable[[float], Any]:
    """``with quickly(seconds):`` fails when the block takes longer."""

    @contextmanager
    def within(seconds: float) -> Iterator[None]:
        start = time.monotonic()
        yield
        assert time.monotonic() - start < seconds

    return within
