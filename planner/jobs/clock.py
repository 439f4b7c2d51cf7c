"""Time and moves that a run may use, and how they are shared out."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

FEW = 24  # moves; below that a walk is not worth its call
SLICE_MOVES, SLICE_S = 250, 0.0015  # least part of a lane between two looks at the whole plan
CAREFUL = 0.9  # share of the time left that the next walk may be expected to take


class Clock:
    """Counts from `began`; with `seconds` there is a deadline. Another `now` than the wall's is for tests."""

    def __init__(
        self,
        seconds: float | None,
        began: float | None = None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.now = now
        self.began = now() if began is None else began
        self.seconds = seconds

    def passed(self) -> float:
        """Seconds since the beginning."""
        return self.now() - self.began

    def left(self) -> float:
        """Seconds until the deadline; without one, infinity."""
        return float("inf") if self.seconds is None else self.seconds - self.passed()


class Lane:
    """One solver's part: until a moment of the clock, or so many moves, and a generator of its own.

    With moves nothing depends on the clock, so the same seed gives the same plan. `strict` says which limits its walks
    have (`Search.goal`).
    """

    def __init__(
        self,
        clock: Clock,
        seed: int,
        *,
        until: float = float("inf"),
        moves: int | None = None,
        strict: bool = True,
    ) -> None:
        self.clock, self.until, self.moves, self.strict = clock, until, moves, strict
        self.began = clock.passed()
        self.random = np.random.default_rng(seed)
        self.done = 0
        self._pace = 4e-6  # seconds a move, until one was timed
        self._timed = False

    def seed(self) -> int:
        """A seed for a compiled walk."""
        return int(self.random.integers(1, 2**62))

    def fraction(self) -> float:
        """How much of the lane is used up, 0 to 1."""
        if self.moves is not None:
            return min(1.0, self.done / max(1, self.moves))
        whole = self.until - self.began
        return 1.0 if whole <= 0 else min(1.0, (self.clock.passed() - self.began) / whole)

    def left(self) -> float:
        """Seconds until the lane ends; with moves, infinity."""
        return self.until - self.clock.passed()

    def slices(self, wanted: int) -> int:
        """Into how many walks to cut the lane: `wanted`, fewer where each would be over before it paid for itself."""
        if self.moves is not None:
            return max(4, min(wanted, self.moves // SLICE_MOVES))
        return max(4, min(wanted, int((self.until - self.began) / SLICE_S)))

    def take(self, slices: int) -> int:
        """Moves for the next of about `slices` walks of equal length; 0 when the lane is over."""
        if self.moves is not None:
            left = self.moves - self.done
            return max(0, min(left, max(FEW, self.moves // slices)))
        wanted = min((self.until - self.began) / slices, CAREFUL * self.left())
        moves = int(wanted / self._pace)
        if not self._timed:
            moves = min(moves, 4 * FEW)
        return moves if moves >= FEW else 0

    def used(self, moves: int, seconds: float) -> None:
        """Account for a walk."""
        self.done += moves
        if moves > 0:
            pace = seconds / moves
            self._pace = pace if not self._timed else 0.5 * (self._pace + pace)
            self._timed = True

    def part(self, share: float, seed: int | None = None) -> Lane:
        """The next `share` of what is left of this lane, as a lane of its own; `join` it when it is done."""
        moves = None if self.moves is None else int(share * (self.moves - self.done))
        passed = self.clock.passed()
        until = passed + share * (self.until - passed)
        lane = Lane(
            self.clock, self.seed() if seed is None else seed, until=until, moves=moves, strict=self.strict
        )
        lane._pace, lane._timed = self._pace, self._timed
        return lane

    def join(self, part: Lane) -> None:
        """Account for a part that is done."""
        self.done += part.done
        if part._timed:
            self._pace, self._timed = part._pace, True
