"""The planner has errors of its own, for it knows nothing of mpc-ray; here they become the program's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def as_input_errors(remedy: str) -> Iterator[None]:
    """A ``ProblemError`` of the planner ends the program as an InputError does: cause, ``remedy``, exit code 2."""
    from mpc_ray.errors import InputError
    from mpc_ray.planner.problem import ProblemError

    try:
        yield
    except ProblemError as error:
        raise InputError(str(error), remedy=remedy) from error
