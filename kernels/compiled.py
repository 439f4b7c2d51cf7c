"""The one decorator of compiled bodies, and what this processor can run.

Bodies are compiled by numba on first use and cached on disk beside the sources (``warm.warm()`` does it ahead of
time). They release the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numba  # type: ignore[import-untyped]
from numba.extending import intrinsic as _intrinsic  # type: ignore[import-untyped]

llvm.initialize_native_asmparser()  # for the one instruction that lookup_tile writes out

Body = TypeVar("Body", bound=Callable[..., Any])


def compiled(function: Body) -> Body:
    """Compile ``function`` to machine code: no interpreter lock, no bounds checks, cached on disk."""
    return cast(Body, numba.njit(nogil=True, cache=True, error_model="numpy")(function))


def inlined(function: Body) -> Body:
    """As ``compiled``, for small functions that other bodies inline."""
    return cast(Body, numba.njit(nogil=True, error_model="numpy", inline="always")(function))


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that writes its own LLVM instructions (numba.extending.intrinsic)."""
    return cast(Callable[..., Any], _intrinsic(function))


@cache
def processor_features() -> frozenset[str]:
    """LLVM's names of the instruction sets that bodies may use: what this CPU has and numba was not told to leave."""
    if numba.config.CPU_FEATURES:
        return frozenset(f[1:] for f in numba.config.CPU_FEATURES.split(",") if f.startswith("+"))
    if numba.config.CPU_NAME:
        return frozenset()
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


def has(*features: str) -> bool:
    """Whether the processor has all of these instruction sets."""
    return processor_features().issuperset(features)
