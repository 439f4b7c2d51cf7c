"""The one decorator of compiled bodies, and what this processor can run.

Bodies are compiled by numba on first use and cached on disk beside the sources (``warm.warm()`` does it ahead of
time), until any file of this folder changes. They release the interpreter's lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm
import numba
from numba.extending import intrinsic as _intrinsic

llvm.initialize_native_asmparser()  # for the one instruction that lookup_tile writes out

Body = TypeVar("Body", bound=Callable[..., Any])


@cache
def sources() -> str:
    """What the cached machine code is valid for: names, sizes and times of all files of this folder.

    A body has others inlined, from other files; numba alone would look at its own file and keep stale code.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    return ", ".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)


def compiled(function: Body) -> Body:
    """Compile ``function`` to machine code: no interpreter lock, no bounds checks, cached on disk."""
    body: Any = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    if os.environ.get("NUMBA_DISABLE_JIT", "0") == "0":
        body._cache._cache_file._source_stamp = sources()
    return cast(Body, body)


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that writes its own LLVM instructions (numba.extending.intrinsic)."""
    return cast(Callable[..., Any], _intrinsic(function))


@cache
def processor_features() -> frozenset[str]:
    """LLVM's names of the instruction sets that bodies may use: what this CPU has and numba was not told to leave."""
    features, name = os.environ.get("NUMBA_CPU_FEATURES"), os.environ.get("NUMBA_CPU_NAME")
    if features:
        return frozenset(f[1:] for f in features.split(",") if f.startswith("+"))
    if name:
        return frozenset()
    return frozenset(feature for feature, present in llvm.get_host_cpu_features().items() if present)


def has(*features: str) -> bool:
    """Whether the processor has all of these instruction sets."""
    return processor_features().issuperset(features)
