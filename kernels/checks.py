"""What every kernel asks of its arguments: one device with a body, the dtype and the shape it documents."""

from __future__ import annotations

import torch

from mpc_ray.errors import DeviceError, InputError

Tensor = torch.Tensor


def on_cpu(name: str, *tensors: Tensor) -> None:
    """Raise DeviceError unless every tensor lies in CPU memory: the only bodies there are."""
    for tensor in tensors:
        if tensor.device.type != "cpu":
            raise DeviceError(
                f"kernel {name} has no body for device {tensor.device}",
                remedy="move the tensor with .cpu() or run the parties with device: cpu",
            )


def expect(
    name: str, argument: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int | None, ...]
) -> None:
    """Raise InputError unless ``tensor`` has this dtype and shape (None matches any length)."""
    fits = len(shape) == tensor.ndim and all(
        want in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != dtype or not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise InputError(
            f"kernel {name}: {argument} is {tensor.dtype}{list(tensor.shape)}, not {dtype}[{wanted}]",
            remedy="pass the shape and dtype that the function documents",
        )


def same_shape(name: str, *tensors: Tensor) -> None:
    """Raise InputError unless all tensors are int64 and of one shape."""
    for tensor in tensors:
        if tensor.dtype != torch.int64 or tensor.shape != tensors[0].shape:
            raise InputError(
                f"kernel {name}: {tensor.dtype}{list(tensor.shape)} beside int64{list(tensors[0].shape)}",
                remedy="pass int64 tensors of one shape",
            )


def in_range(name: str, argument: str, value: int, low: int, high: int) -> None:
    """Raise InputError unless low <= value <= high."""
    if not low <= value <= high:
        raise InputError(
            f"kernel {name}: {argument} = {value} is outside {low}..{high}",
            remedy=f"choose {argument} in that range",
        )


def wrap(value: int) -> int:
    """The int64 that stands for ``value`` mod 2^64."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
