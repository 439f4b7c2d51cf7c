"""Every test gets a root logger and traces of its own, and leaves none behind."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from mpc_ray.telemetry import logs, metrics, traces


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(traces.ENDPOINT, raising=False)
    monkeypatch.setattr(metrics, "_metrics", None)
    root = logging.getLogger()
    before = list(root.handlers), root.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    traces.shutdown()
    if logs._handler is not None:
        logs._handler.close()
    root.handlers[:], root.level = before
    logs._handler = None
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
