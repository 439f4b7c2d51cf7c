"""memory: what numpy.empty gives, and memory that goes back when it is let go of."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import numpy as np
import pytest

from mpc_ray.kernels import memory


def resident() -> int:
    """Bytes of this process that are in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (7,), (300, 500), (1 << 17,), (11, 13, 1031)])
@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.dtype("<f4"), np.bool_])
def test_an_array_of_any_shape_can_be_written(shape: tuple[int, ...], kind: type) -> None:
    array = memory.empty(shape, kind)
    assert array.shape == shape
    assert array.dtype == np.dtype(kind)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[...] = 1
    assert array.sum() == array.size


def test_a_large_array_starts_at_a_cache_line() -> None:
    assert memory.empty((memory.LARGE,), np.uint8).ctypes.data % 64 == 0


def test_the_last_view_keeps_the_memory_and_its_end_gives_it_back() -> None:
    size = 64 << 20
    before = resident()
    array = memory.empty((size,), np.uint8)
    array[:] = 7
    view = array[size // 2 :][:3]
    del array
    gc.collect()
    assert view.tolist() == [7, 7, 7]
    assert resident() - before > size // 2
    del view
    gc.collect()
    assert resident() - before < size // 2


def test_malloc_gives_back_what_is_free() -> None:
    pieces = [np.ones(8000) for _ in range(1000)]  # 64 KB each, below what malloc would map by itself
    kept, held = pieces[::100], resident()
    del pieces
    memory.give_back()
    assert resident() < held - (32 << 20)
    assert all((piece == 1).all() for piece in kept)
