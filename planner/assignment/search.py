"""What the threads of one call share: the best assignment, the best bound, the clock, and the word to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from mpc_ray.planner.assignment.problem import Agents, Answer, Assignment, Status
from mpc_ray.planner.assignment.state import Counts

Progress = Callable[[float, float | None, float | None], None]  # seconds, cost, bound


class Search:
    """The state of one search. Methods may be called from any thread.

    `seconds` None: there is no clock, and the search ends with its budget of moves.
    """

    def __init__(self, problem: Assignment, seconds: float | None, progress: Progress | None = None) -> None:
        self.problem = problem
        self.seconds = seconds
        self.halt: Counts = np.zeros(1, np.int64)  # read by compiled loops
        self.cost = np.inf
        self.agents: Agents | None = None
        self.bound = -np.inf
        self.proof: Status | None = None
        self.reason = ""
        self._progress = progress
        self._trace: list[tuple[float, float]] = []
        self._stops: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._began = time.perf_counter()

    def passed(self) -> float:
        return time.perf_counter() - self._began

    def left(self) -> float:
        return np.inf if self.seconds is None else self.seconds - self.passed()

    def over(self) -> bool:
        return bool(self.halt[0]) or self.left() <= 0

    def offer(self, cost: float, agents: Agents) -> None:
        """An assignment that breaks no rule."""
        with self._lock:
            if cost >= self.cost:
                return
            self.cost, self.agents = cost, agents.copy()
            self._trace.append((self.passed(), cost))
        self._look()

    def raise_bound(self, bound: float) -> None:
        """No assignment costs less than `bound`."""
        with self._lock:
            self.bound = max(self.bound, self.problem.round_up(bound))
        self._look()

    def settle(self, status: Status, reason: str = "") -> None:
        """It is proved that the best assignment is optimal, or that there is none."""
        with self._lock:
            self.proof, self.reason = status, reason
            if status == "optimal":
                self.bound = self.cost
        self.stop()

    def on_stop(self, stop: Callable[[], None]) -> None:
        """Call `stop` when the search stops: at once if it has."""
        with self._lock:
            self._stops.append(stop)
        if self.halt[0]:
            stop()

    def stop(self) -> None:
        self.halt[0] = 1
        with self._lock:
            stops = list(self._stops)
        for stop in stops:
            stop()

    def _look(self) -> None:
        if self._progress is not None:
            self._progress(
                self.passed(),
                self.cost if self.agents is not None else None,
                self.bound if np.isfinite(self.bound) else None,
            )
        if self.agents is not None and self.problem.proves(self.bound, self.cost):
            self.settle("optimal")

    def answer(self, solver: str) -> Answer:
        """What was found, once all threads are done."""
        found = self.agents is not None
        status: Status = self.proof or ("feasible" if found else "none found")
        bound = self.bound if np.isfinite(self.bound) and status != "infeasible" else None
        if found and bound is not None:
            bound = min(bound, self.cost)
        return Answer(
            solver,
            status,
            None if self.agents is None else tuple(int(i) for i in self.agents),
            self.cost if found else None,
            bound,
            self.passed(),
            self.reason,
            tuple(self._trace),
        )


def run(lanes: Sequence[Callable[[], None]], searches: Sequence[Search]) -> None:
    """Run the lanes, one a thread, until all are done; stop the searches when the clock says so, or at an interruption.

    The first exception of a lane stops the others and is raised here.
    """
    failures: list[BaseException] = []

    def guarded(lane: Callable[[], None]) -> None:
        try:
            lane()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            failures.append(error)
            for search in searches:
                search.stop()

    threads = [threading.Thread(target=guarded, args=(lane,), daemon=True) for lane in lanes]
    for thread in threads:
        thread.start()
    try:
        while any(thread.is_alive() for thread in threads):
            left = min(search.left() for search in searches)
            if left <= 0:
                for search in searches:
                    search.stop()
            next(thread for thread in [*threads] if thread.is_alive() or thread is threads[-1]).join(
                min(max(left, 0.001), 0.05)
            )
    finally:
        for search in searches:
            search.stop()
        for thread in threads:
            thread.join()
    if failures:
        raise failures[0]


def merged(searches: Sequence[Search]) -> Search:
    """The searches as one: the cheapest assignment, of the first that has it; the highest bound."""
    whole = searches[0]
    for other in searches[1:]:
        whole.bound = max(whole.bound, other.bound)
        if other.proof is not None and whole.proof is None:
            whole.proof, whole.reason = other.proof, other.reason
        if other.agents is not None and other.cost < whole.cost:
            whole.offer(other.cost, other.agents)
    if whole.agents is not None and whole.problem.proves(whole.bound, whole.cost):
        whole.settle("optimal")
    return whole
