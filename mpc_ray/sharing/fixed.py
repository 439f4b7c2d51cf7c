"""Fixed-point encoding into Z_2^64, two's complement in int64, as torch tensors.

A real x at scale s is the integer round(x·2^s). The scale is public and travels with the tensor.
"""

from __future__ import annotations

import numpy as np
import torch

from mpc_ray.errors import ScaleError
from mpc_ray.sharing.integers import to_integers, to_reals

PRODUCT_BITS = 62  # an opened product z must satisfy |z| < 2^62 for the exact truncation


def encode(
    x: np.ndarray | torch.Tensor | float, scale: int, *, name: str = "value", bits: int = 62
) -> torch.Tensor:
    """``to_integers`` as a tensor: int64, round(x·2^scale) with ties to even. Refuses what it refuses."""
    return torch.from_numpy(to_integers(np.asarray(x), scale, name=name, bits=bits))


def decode(x: torch.Tensor | np.ndarray, scale: int) -> np.ndarray:
    """Ring elements to float64: x/2^scale, the top bit read as the sign."""
    return to_reals(np.asarray(x), scale)


def check_scale(found: int, expected: int, where: str) -> None:
    """Scales are public; adding two tensors of different scales is an error, not a rescaling."""
    if found != expected:
        raise ScaleError(f"{where}: scale {found} where {expected} is needed")


def prove_fits(where: str, largest: float, scale: int, bits: int = PRODUCT_BITS) -> None:
    """Import-time proof that a value of magnitude up to ``largest`` at ``scale`` stays below 2^bits."""
    if not largest * 2.0**scale < 2.0**bits:
        needed = np.log2(max(largest, 1e-300)) + scale
        raise ScaleError(
            f"{where}: {largest:.6g} at scale {scale} needs 2^{needed:.1f}, the ring allows 2^{bits}",
            remedy="the model's calibrated range is too wide for this protocol's scales",
        )
