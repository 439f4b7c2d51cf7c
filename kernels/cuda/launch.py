"""One way to launch a kernel: checked arguments, then the device that the tensors lie on."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import torch

from mpc_ray.errors import DeviceError

from . import device, emulated
from .sources import Kernel, Parameter, kernels

Tensor = torch.Tensor
Argument = Tensor | int | float | None

DTYPES = {
    "u64": torch.int64,
    "i64": torch.int64,
    "u32": torch.int32,
    "int": torch.int32,
    "u16": torch.uint16,
    "u8": torch.uint8,
    "s8": torch.int8,
    "double": torch.float64,
}
_SCALARS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "u64": (ctypes.c_uint64, 64),
    "i64": (ctypes.c_int64, 64),
    "u32": (ctypes.c_uint32, 32),
    "int": (ctypes.c_int32, 32),
    "double": (ctypes.c_double, 0),
}

# What tests set to see every launch: name, grid, block, shared bytes, arguments. Called before it.
observer: list[
    Callable[[Kernel, tuple[int, int, int], tuple[int, int, int], int, tuple[Argument, ...]], None]
] = []


def launch(
    name: str,
    grid: int | tuple[int, int, int],
    block: int | tuple[int, int, int],
    *arguments: Argument,
    shared: int = 0,
) -> None:
    """Run kernel ``name`` on the device that its tensors lie on; on a CUDA device it is queued on torch's stream.

    A tensor stands for a pointer to its first element, whatever its strides; None for a null pointer. dtypes, the
    number of arguments and the range of every integer are checked against the source. Raises DeviceError for tensors of
    two places or of a place that has no kernels.
    """
    kernel = kernels()[name]
    if len(arguments) != len(kernel.parameters):
        raise TypeError(f"kernel {name} takes {len(kernel.parameters)} arguments, not {len(arguments)}")
    places = {argument.device for argument in arguments if isinstance(argument, torch.Tensor)}
    if len(places) != 1:
        raise DeviceError(
            f"kernel {name}: tensors on {' and '.join(sorted(map(str, places))) or 'no device'}",
            remedy="move them to one device",
        )
    values = [_value(name, p, a) for p, a in zip(kernel.parameters, arguments, strict=True)]
    grid = (grid, 1, 1) if isinstance(grid, int) else grid
    block = (block, 1, 1) if isinstance(block, int) else block
    if 0 in grid:
        return  # nothing to do
    for see in observer:
        see(kernel, grid, block, shared, arguments)
    place = places.pop()
    if place.type == "cuda":
        device.launch(kernel, place, grid, block, shared, values)
    elif place.type == "cpu":
        emulated.launch(kernel, grid, block, shared, values)
    else:
        raise DeviceError(f"kernel {name} has no body for device {place}", remedy="use device cpu or cuda")


def _value(name: str, parameter: Parameter, argument: Argument) -> Any:
    """The ctypes value that the kernel reads."""
    what = f"kernel {name}: {parameter.name}"
    if parameter.pointer:
        if argument is None:
            return ctypes.c_void_p(0)
        if not isinstance(argument, torch.Tensor) or argument.dtype != DTYPES[parameter.kind]:
            got = argument.dtype if isinstance(argument, torch.Tensor) else type(argument).__name__
            raise TypeError(f"{what} is {got}, not {DTYPES[parameter.kind]}")
        return ctypes.c_void_p(argument.data_ptr())
    make, bits = _SCALARS[parameter.kind]
    if isinstance(argument, torch.Tensor) or argument is None:
        raise TypeError(f"{what} is no number")
    if bits and not -(1 << (bits - 1)) <= argument < 1 << bits:
        raise TypeError(f"{what} does not fit {parameter.kind}")
    return make(argument)


def blocks(count: int, size: int) -> int:
    """How many blocks of ``size`` cover ``count``."""
    return -(-count // size)
