"""Kill -9 under load: no wrong answer, nothing but retriable errors, service back by itself within 30 s."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import psutil

BACK_S = 30.0
TOLERANCE = 5e-3  # largest difference of a coordinate from plaintext; a wrong answer is off by 0.01 to 1


@dataclass
class Load:
    """Clients that ask all the time. ``ask(index)`` returns a vector for text ``index`` or raises; one thread each."""

    asks: Sequence[Callable[[int], np.ndarray]]
    expected: np.ndarray
    retriable: tuple[type[BaseException], ...]
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    latest: list[float] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.latest = [0.0] * len(self.asks)

    def start(self) -> None:
        for i, ask in enumerate(self.asks):
            thread = threading.Thread(target=self._run, args=(i, ask), name=f"load {i}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(90)

    def _run(self, i: int, ask: Callable[[int], np.ndarray]) -> None:
        turn = i
        while not self._over.is_set():
            turn += 1
            index = turn % len(self.expected)
            began = time.monotonic()
            try:
                vector = ask(index)
            except self.retriable as error:
                self.refused.append(f"{type(error).__name__}: {error}"[:200])
                time.sleep(0.2)
                continue
            except Exception as error:  # noqa: BLE001 - what the suite is looking for
                self.unexpected.append(f"client {i}: {type(error).__name__}: {error}"[:300])
                time.sleep(0.2)
                continue
            off = float(np.abs(np.asarray(vector) - self.expected[index]).max())
            if not off < TOLERANCE:
                self.wrong.append(f"client {i}: off by {off:.3g}")
            self.answered += 1
            self.latest[i] = max(self.latest[i], began)

    def back_after(self, moment: float, timeout_s: float) -> float:
        """Seconds from ``moment`` until every client has an answer to a question asked after it; inf if late."""
        while time.monotonic() - moment < timeout_s:
            if all(began > moment for began in self.latest):
                return time.monotonic() - moment
            time.sleep(0.05)
        return float("inf")


def kill(processes: Sequence[psutil.Process]) -> int:
    """SIGKILL all of them; how many there were."""
    count = 0
    for process in processes:
        try:
            process.kill()
            count += 1
        except psutil.NoSuchProcess:
            pass
    return count
