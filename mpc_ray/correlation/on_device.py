"""Streams where they are used: a CUDA device expands ChaCha20 itself, everything else is expanded by the CPU."""

from __future__ import annotations

import struct

import torch

from mpc_ray.correlation.stream import Prf, expand
from mpc_ray.kernels import stream
from mpc_ray.kernels.transfer import to_device

CPU = torch.device("cpu")


def on_device(place: torch.device, prf: Prf) -> bool:
    """Whether ``place`` expands streams of this kind itself."""
    return place.type == "cuda" and prf == "chacha20"


def nonce(step: int, chunk: int) -> bytes:
    """The 12-byte nonce that ``correlation.stream.expand`` uses for ChaCha20."""
    return struct.pack(">IQ", step, chunk)


def expand_on(place: torch.device, key: bytes, step: int, chunk: int, length: int, prf: Prf) -> torch.Tensor:
    """``correlation.stream.expand``'s bytes, uint8 on ``place``."""
    if on_device(place, prf):
        return stream.expand(key, nonce(step, chunk), torch.empty(length, dtype=torch.uint8, device=place))
    return to_device(expand(key, step, chunk, length, prf), place)
