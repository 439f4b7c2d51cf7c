"""Fixed-point encoding into Z_2^64, two's complement in int64.

A real x at scale s is the integer round(x·2^s). The scale is public and travels with the tensor.
"""

from __future__ import annotations

import numpy as np
import torch

from mpc_ray.errors import InputError, ScaleError

PRODUCT_BITS = 62  # an opened product z must satisfy |z| < 2^62 for the exact truncation


def encode(
    x: np.ndarray | torch.Tensor | float, scale: int, *, name: str = "value", bits: int = 62
) -> torch.Tensor:
    """Real numbers to ring elements: int64, round(x·2^scale) with ties to even.

    Refuses NaN, infinity and |x| ≥ 2^(bits - scale), saying which tensor and where; an error never holds the number
    itself, which may be part of a text or of a model.
    """
    values = np.asarray(x, dtype=np.float64)
    if not -64 < scale < 64:
        raise ScaleError(f"{name}: scale {scale} is outside -63..63")
    finite = np.isfinite(values)
    if not finite.all():
        raise InputError(
            f"{name}: {values[~finite].flat[0]} at {_first(~finite)}",
            remedy="only finite numbers can be shared",
        )
    limit = 2.0 ** (bits - scale)
    large = np.abs(values) >= limit
    if large.any():
        raise InputError(
            f"{name}: the number at {_first(large)} is out of range (|x| < {limit:.6g} at scale {scale})",
            remedy="use a smaller scale or rescale the input",
        )
    return torch.from_numpy(np.asarray(np.rint(np.ldexp(values, scale)), dtype=np.int64))


def decode(x: torch.Tensor, scale: int) -> np.ndarray:
    """Ring elements to float64: x/2^scale, the top bit read as the sign."""
    return np.ldexp(x.numpy().astype(np.float64), -scale)


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


def _first(mask: np.ndarray) -> str:
    index = tuple(int(i) for i in np.argwhere(mask)[0]) if mask.ndim else ()
    return f"index {list(index)}" if index else "the scalar"
