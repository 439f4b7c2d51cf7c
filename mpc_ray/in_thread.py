"""A server that runs in a thread of this process for the time of a block."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from mpc_ray.errors import ConfigError

START_S = 60.0


@contextlib.contextmanager
def in_thread(
    name: str, run: Callable[[], None], started: Callable[[], bool], stop: Callable[[], None], stop_s: float
) -> Iterator[None]:
    """Call ``run`` in a thread, wait until ``started()``, and after the block ``stop()`` and wait at most ``stop_s``.

    Raises what ``run`` raises, at the start and at the end; ConfigError if it has not started within 60 s.
    """
    failed: list[BaseException] = []

    def body() -> None:
        try:
            run()
        except BaseException as error:  # noqa: BLE001 - raised anew in the thread that waits
            failed.append(error)

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    end = time.monotonic() + START_S
    while not started():
        if not thread.is_alive() or time.monotonic() > end:
            stop()
            raise failed[0] if failed else ConfigError(f"the {name} did not start", remedy="see its log")
        time.sleep(0.01)
    try:
        yield
    finally:
        stop()
        thread.join(stop_s)
    if failed and not isinstance(failed[0], SystemExit):
        raise failed[0]
