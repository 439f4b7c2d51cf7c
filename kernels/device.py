"""Which body a call takes: the compiled one for tensors in CPU memory, the CUDA one for tensors on a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mpc_ray.errors import DeviceError

Tensor = torch.Tensor
_emulating = [False]


def on_cuda(name: str, *tensors: Tensor) -> bool:
    """Whether kernel ``name`` runs its CUDA body. Raises DeviceError for tensors of several devices, or of one that has
    no body.
    """
    places = {tensor.device for tensor in tensors}
    for place in places:
        if place.type not in ("cpu", "cuda"):
            raise DeviceError(
                f"kernel {name} has no body for device {place}",
                remedy="move the tensor with .cpu() or run the parties with device: cpu",
            )
    if len(places) > 1:
        raise DeviceError(
            f"kernel {name}: tensors on {' and '.join(sorted(map(str, places)))}",
            remedy="move them to one device",
        )
    return _emulating[0] or any(place.type == "cuda" for place in places)


@contextmanager
def emulating() -> Iterator[None]:
    """CPU tensors take the CUDA bodies too, in emulation (``kernels.cuda``), in all threads: for tests, and slow."""
    before, _emulating[0] = _emulating[0], True
    try:
        yield
    finally:
        _emulating[0] = before
