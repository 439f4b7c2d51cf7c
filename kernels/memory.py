"""Arrays that a model keeps: each large one in a mapping of its own, so that letting go of it gives its memory back.

``malloc`` keeps what is freed between blocks still in use, which at the size of a model's weights is half a gigabyte.
Mappings are asked for in huge pages: a product walks through all of a weight matrix, and misses the TLB at every row
otherwise.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

LARGE = 1 << 20  # bytes; below it malloc does no harm


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array as ``numpy.empty``'s; from ``LARGE`` bytes up aligned to a page. Its mapping goes with its last view."""
    kind = np.dtype(dtype)
    nbytes = math.prod(shape) * kind.itemsize
    if nbytes < LARGE:
        return np.empty(shape, kind)
    mapping = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        mapping.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(mapping, kind).reshape(shape)


def give_back() -> None:
    """Have malloc return to the system what is free between blocks in use; where it cannot, nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # GNU's C library has it
    if trim is not None:
        trim(0)
