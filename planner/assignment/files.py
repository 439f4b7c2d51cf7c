"""Reading generalised assignment problems in the OR-Library's format.

A file is white-space separated numbers: agents m, jobs n; the costs of all jobs with agent 0, then with agent 1 and
so on (m n numbers); the needs in the same order (m n numbers); the capacities (m numbers). Costs are to be
minimised. Nothing in the format says so: files meant for maximisation (gap1 to gap12) look the same, and are
minimised like the others.

The Library also packs several problems into one file: their number, then each as above.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mpc_ray.planner.assignment.problem import Assignment, Floats
from mpc_ray.planner.problem import ProblemError

MAX_BYTES = 512 << 20


def read(path: Path, which: int | None = None) -> Assignment:
    """The problem in the file, or number `which`, from 1, of those in it.

    Raises:
        ProblemError: the file cannot be read, is no such file, or holds several problems and `which` does not choose.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ProblemError(f"{path} is larger than {MAX_BYTES >> 20} MiB")
        text = path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ProblemError(f"{path} is not a text file of numbers") from error
    except OSError as error:
        raise ProblemError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return parse(text, which)
    except ProblemError as error:
        raise ProblemError(f"{path}: {error}") from error


def parse(text: str, which: int | None = None) -> Assignment:
    """The same from the file's text."""
    numbers = _numbers(text)
    if len(numbers) < 2:
        raise ProblemError("the file holds no problem: it must begin with the numbers of agents and jobs")
    problems = _split(numbers)
    if which is None and len(problems) > 1:
        raise ProblemError(f"the file holds {len(problems)} problems: choose one, from 1 to {len(problems)}")
    chosen = 1 if which is None else which
    if not 1 <= chosen <= len(problems):
        raise ProblemError(f"there is no problem {chosen}: the file holds {len(problems)}")
    m, n, values = problems[chosen - 1]
    return Assignment(
        values[: m * n].reshape(m, n), values[m * n : 2 * m * n].reshape(m, n), values[2 * m * n :]
    )


def write(problem: Assignment) -> str:
    """The problem as text in the same format."""
    rows = [np.array([problem.agents, problem.jobs]), *problem.costs, *problem.needs, problem.capacities]
    return "".join(" ".join(f"{x:.15g}" for x in row) + "\n" for row in rows)


def _numbers(text: str) -> Floats:
    words = text.split()
    try:
        return np.array(words, np.float64)
    except ValueError:
        wrong = next(i for i, word in enumerate(words) if not _is_number(word))
        raise ProblemError(f"word {wrong + 1} of the file, {words[wrong][:20]!r}, is not a number") from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _count(value: float, what: str) -> int:
    if not (np.isfinite(value) and value == int(value) and 1 <= value < 1e7):
        raise ProblemError(f"the number of {what} is {value:g}, must be a whole number from 1")
    return int(value)


def _split(numbers: Floats) -> list[tuple[int, int, Floats]]:
    """Agents, jobs and values of each problem. One problem whose count is right is taken before several."""
    several = _several(numbers)
    if several is not None:
        return several
    m, n = _count(numbers[0], "agents"), _count(numbers[1], "jobs")
    needed = 2 * m * n + m
    if len(numbers) - 2 != needed:
        raise ProblemError(
            f"{m} agents and {n} jobs take {needed} numbers after the first two "
            f"(costs, needs, capacities); the file has {len(numbers) - 2}"
        )
    return [(m, n, numbers[2:])]


def _several(numbers: Floats) -> list[tuple[int, int, Floats]] | None:
    """What a file of several problems holds; None if it is none, to the last number."""
    if len(numbers) - 2 == 2 * numbers[0] * numbers[1] + numbers[0]:
        return None
    found: list[tuple[int, int, Floats]] = []
    at, count = 1, numbers[0]
    while at + 2 <= len(numbers) and len(found) < count:
        m, n = numbers[at], numbers[at + 1]
        if not (m == int(m) and n == int(n) and 1 <= m < 1e7 and 1 <= n < 1e7):
            return None
        end = at + 2 + int(2 * m * n + m)
        if end > len(numbers):
            return None
        found.append((int(m), int(n), numbers[at + 2 : end]))
        at = end
    return found if len(found) == count and at == len(numbers) else None
