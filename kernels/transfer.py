"""Between host memory, where the network reads and writes, and the device where shares are: nothing else moves them.

Host memory for a CUDA device is page-locked, so that copies need not wait for the processor; torch keeps and reuses it.
For the CPU nothing is copied at all.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Tensor = torch.Tensor
Bytes = npt.NDArray[np.uint8]


def buffer(nbytes: int, place: torch.device) -> Bytes:
    """Uninitialised host memory whose bytes will go to ``place``."""
    if place.type == "cpu":
        return np.empty(nbytes, np.uint8)
    return _pinned(nbytes).numpy()


def to_device(data: Bytes, place: torch.device) -> Tensor:
    """uint8 of the same bytes on ``place``: a view on the CPU; else a copy begun on the current stream."""
    held = torch.from_numpy(data)
    return held if place.type == "cpu" else held.to(place, non_blocking=True)


def to_host(data: Tensor) -> npt.NDArray[np.generic]:
    """The same numbers in host memory: a view for the CPU; else a copy begun, there after ``settle``."""
    if data.device.type == "cpu":
        return data.numpy()
    flat = data.contiguous().reshape(-1).view(torch.uint8)
    return _pinned(flat.numel()).copy_(flat, non_blocking=True).numpy()


def settle(place: torch.device) -> None:
    """Wait for what was begun on the current stream of ``place``: once a round, before its frames leave."""
    if place.type == "cuda" and torch.cuda.is_available():
        torch.cuda.current_stream(place).synchronize()


def _pinned(nbytes: int) -> Tensor:
    return torch.empty(nbytes, dtype=torch.uint8, pin_memory=torch.cuda.is_available())
