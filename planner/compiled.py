"""The one decorator of the planner's compiled loops.

numba compiles a loop on first use and keeps it on disk beside the sources, until a file of the same folder changes.
The loops release the interpreter's lock, so that solvers run side by side in threads. Compiling takes seconds: whoever
works against a clock runs a tiny problem first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

Body = TypeVar("Body", bound=Callable[..., Any])


@cache
def _sources(folder: Path) -> str:
    """What cached machine code is valid for: a loop has others inlined, of its folder and of `draws`, which numba would
    not see."""
    here = Path(__file__)
    files = {here, here.with_name("draws.py")}
    if folder != here.parent:  # the rest of this folder is no loop
        files |= set(folder.glob("*.py"))
    return ", ".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in sorted(files))


def compiled(function: Body) -> Body:
    """Compile ``function`` to machine code: no interpreter lock, no bounds checks, cached on disk."""
    body: Any = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    if os.environ.get("NUMBA_DISABLE_JIT", "0") == "0":
        body._cache._cache_file._source_stamp = _sources(Path(function.__code__.co_filename).parent)
    return cast(Body, body)
