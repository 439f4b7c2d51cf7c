"""Live progress on standard error: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

COMPUTING = "computing on shares"


class Steps:
    """What a session reports as ``progress(what, part)``, a line for each step. Called from any thread.

    ``expect`` says how many jobs and layers the computation has: the parties report each job's layers anew.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._what = ""
        self._task: TaskID | None = None
        self._jobs, self._layers = 1, 0
        self._done, self._last = 0, -1.0
        self._bars = _bars(console) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            if kind is None:
                self._finish()
            self._bars.stop()

    def expect(self, jobs: int, layers: int) -> None:
        """The computation has ``jobs`` jobs of ``layers`` layers each."""
        self._jobs, self._layers = max(1, jobs), layers

    def note(self, text: str) -> None:
        """A line of its own, above the bars."""
        self._console.print(text)

    def __call__(self, what: str, part: float) -> None:
        with self._lock:
            if what.startswith("layer "):
                self._layer(what, part)
            else:
                self._step(what, what, part)

    def _layer(self, what: str, part: float) -> None:
        self._done += part < self._last  # the layers start over: another job
        self._last = part
        number = int(what.removeprefix("layer ")) + 1
        job = f", batch {self._done + 1} of {self._jobs}" if self._jobs > 1 else ""
        self._step(
            COMPUTING, f"{COMPUTING}: layer {number} of {self._layers}{job}", (self._done + part) / self._jobs
        )

    def _step(self, what: str, text: str, part: float) -> None:
        if self._bars is None:
            if what != self._what:
                self._console.print(f"{time.monotonic() - self._began:6.1f} s  {what}")
            self._what = what
            return
        if what != self._what:
            self._finish()
            self._task = self._bars.add_task(text, total=1.0)
            self._what = what
        if self._task is not None:
            self._bars.update(self._task, description=text, completed=min(part, 1.0))

    def _finish(self) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, description=self._what, completed=1.0)


def _bars(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    return Progress(
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=console,
    )
