"""The CUDA sources on a device: compiled by CuPy's NVRTC, launched on torch's stream, over torch's memory.

torch is the only allocator. CuPy compiles and launches; no CuPy array is ever made, so there is one pool of memory and
one limit on it. CuPy is imported at the first launch, and keeps what it compiled in its own cache on disk.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from mpc_ray.errors import DeviceError

from . import sources

OPTIONS = ("-std=c++17", f"-I{sources.FOLDER}")
STATIC_SHARED = 48 * 1024  # a launch may have more only where the kernel was told so before
_NUMPY = {
    ctypes.c_uint64: np.uint64,
    ctypes.c_int64: np.int64,
    ctypes.c_uint32: np.uint32,
    ctypes.c_int32: np.int32,
    ctypes.c_double: np.float64,
}


@cache
def cupy() -> Any:
    """The module. Raises DeviceError where it is not installed."""
    try:
        import cupy as module
    except ImportError as error:
        raise DeviceError(
            "CUDA kernels are compiled by CuPy, which is not installed",
            remedy="install the extra cuda13 or cuda12",
        ) from error
    return module


@cache
def _module(unit: str, index: int) -> Any:
    with cupy().cuda.Device(index):
        return cupy().RawModule(code=sources.text(unit), options=OPTIONS, name_expressions=None)


@cache
def _function(unit: str, name: str, index: int) -> Any:
    with cupy().cuda.Device(index):
        return _module(unit, index).get_function(name)


@cache
def _stream(pointer: int, index: int) -> Any:
    """CuPy's view of a torch stream; both then queue on the same one, so neither waits for the other."""
    with cupy().cuda.Device(index):
        return cupy().cuda.ExternalStream(pointer, index)


def launch(
    kernel: sources.Kernel,
    place: torch.device,
    grid: Sequence[int],
    block: Sequence[int],
    shared: int,
    values: Sequence[Any],
) -> None:
    """Queue a kernel on torch's current stream of ``place``. ``values`` are ctypes values, one a parameter."""
    index = torch.cuda.current_device() if place.index is None else place.index
    function = _function(kernel.unit, kernel.name, index)
    if shared > STATIC_SHARED and function.max_dynamic_shared_size_bytes < shared:
        function.max_dynamic_shared_size_bytes = shared
    arguments = tuple(_argument(value) for value in values)
    with cupy().cuda.Device(index), _stream(torch.cuda.current_stream(index).cuda_stream, index):
        function(tuple(grid), tuple(block), arguments, shared_mem=shared)


def _argument(value: Any) -> Any:
    """What CuPy passes: a numpy scalar of the parameter's own width (a bare int would always be 64 bits)."""
    if isinstance(value, ctypes.c_void_p):
        return np.uint64(value.value or 0)
    return _NUMPY[type(value)](value.value)
