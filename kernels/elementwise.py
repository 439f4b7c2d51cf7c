"""One-pass formulas of openings, truncations and splines over Z_2^64."""

from __future__ import annotations

from math import comb

import torch

from .packing import pack_bits, pack_low_bytes, unpack_bits, unpack_low_bytes
from .ring import shift_right_logical

__all__ = [
    "add_open", "mask_for_open", "pack_bits", "pack_low_bytes", "polynomial_parts", "powers", "truncate_dealer",
    "truncate_public", "truncated_share", "unpack_bits", "unpack_low_bytes",
]

Tensor = torch.Tensor


def mask_for_open(z: Tensor, rho: Tensor, constant: int, out: Tensor | None = None) -> Tensor:
    """z + rho + constant."""
    result = z + rho + constant
    return result if out is None else out.copy_(result)


def add_open(mine: Tensor, theirs: Tensor) -> Tensor:
    """mine + theirs."""
    return mine + theirs


def truncate_public(c: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """(C, g): C = (c >> f logical) - 2^(62 - f), g = 1 - msb(c)."""
    return shift_right_logical(c, f) - (1 << (62 - f)), 1 - shift_right_logical(c, 63)


def truncate_dealer(r: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """(r_hi, r_msb): r >> f and r >> 63, both logical."""
    return shift_right_logical(r, f), shift_right_logical(r, 63)


def truncated_share(public: Tensor | None, g: Tensor, h: Tensor, b: Tensor, f: int) -> Tensor:
    """(C or 0) - h + ((g * b) << (64 - f))."""
    top = (g * b) << (64 - f)
    return top - h if public is None else public - h + top


def polynomial_parts(a: Tensor, c_hat: Tensor) -> Tensor:
    """A int64[N, d+1], c_hat int64[N] -> G int64[d+1, N]: G_i = (-1)^i sum_{k>=i} binom(k,i) c_hat^(k-i) A_k."""
    d = a.shape[1] - 1
    rows = []
    for i in range(d + 1):
        total = torch.zeros_like(c_hat)
        for k in range(d, i - 1, -1):
            total = total * c_hat + (-1) ** i * comb(k, i) * a[:, k]
        rows.append(total)
    return torch.stack(rows)


def powers(s: Tensor, r_hat: Tensor, d: int) -> Tensor:
    """beta int64[d+1, N] = s * r_hat^i."""
    rows = [s]
    for _ in range(d):
        rows.append(rows[-1] * r_hat)
    return torch.stack(rows)
