"""Fixed-point numbers as numpy integers: what a client encodes before it shares, and decodes after it adds up."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpc_ray.errors import InputError, ScaleError

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]


def to_integers(x: npt.ArrayLike, scale: int, *, name: str = "value", bits: int = 62) -> Integers:
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
    return np.asarray(np.rint(np.ldexp(values, scale)), dtype=np.int64)


def to_reals(x: Integers, scale: int) -> Reals:
    """Ring elements to float64: x/2^scale, the top bit read as the sign."""
    return np.asarray(np.ldexp(x.astype(np.float64), -scale))


def _first(mask: npt.NDArray[Any]) -> str:
    index = tuple(int(i) for i in np.argwhere(mask)[0]) if mask.ndim else ()
    return f"index {list(index)}" if index else "the scalar"
