"""One-pass formulas of openings, truncations and splines over Z_2^64: int64 tensors, wrapping.

Also gives the packers of ``packing``, so that a protocol has all its local formulas under one name.
"""

from __future__ import annotations

from math import comb

import torch

from . import elementwise_loops as loops
from .checks import expect, in_range, on_cpu, same_shape, wrap
from .packing import pack_bits, pack_low_bytes, unpack_bits, unpack_low_bytes
from .ring import shift_right_logical

__all__ = [
    "add_open",
    "mask_for_open",
    "pack_bits",
    "pack_low_bytes",
    "polynomial_parts",
    "powers",
    "truncate_dealer",
    "truncate_public",
    "truncated_share",
    "unpack_bits",
    "unpack_low_bytes",
]

Tensor = torch.Tensor
MOST_DEGREE = 4


def _flat(x: Tensor) -> loops.Int:
    flat: loops.Int = x.contiguous().reshape(-1).numpy()
    return flat


def mask_for_open_reference(z: Tensor, rho: Tensor, constant: int) -> Tensor:
    """The definition of ``mask_for_open``."""
    return z + rho + wrap(constant)


def mask_for_open(z: Tensor, rho: Tensor, constant: int, out: Tensor | None = None) -> Tensor:
    """z + rho + constant, element by element; any one shape, ``constant`` mod 2^64. ``out`` may be z or rho."""
    on_cpu("elementwise.mask_for_open", z, rho)
    same_shape("elementwise.mask_for_open", z, rho)
    if out is None:
        out = torch.empty(z.shape, dtype=torch.int64)
    same_shape("elementwise.mask_for_open", z, out)
    target = out if out.is_contiguous() else torch.empty(z.shape, dtype=torch.int64)
    loops.add_with(_flat(z), _flat(rho), wrap(constant), target.view(-1).numpy())
    return out if target is out else out.copy_(target)


def add_open(mine: Tensor, theirs: Tensor) -> Tensor:
    """mine + theirs: the opened value from the two masked halves."""
    return mask_for_open(mine, theirs, 0)


def truncate_public_reference(c: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """The definition of ``truncate_public``."""
    return shift_right_logical(c, f) - (1 << (62 - f)), 1 - shift_right_logical(c, 63)


def truncate_public(c: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """Evaluators' public part of an exact truncation by f bits, 1 <= f <= 62, of an opened c = z + 2^62 + r.

    Returns (C, g) of c's shape: C = (c >> f, logical) - 2^(62 - f), g = 1 - top bit of c.
    Then z >> f = C - (r >> f) + g * msb(r) * 2^(64 - f), or that plus 1.
    """
    on_cpu("elementwise.truncate_public", c)
    same_shape("elementwise.truncate_public", c)
    in_range("elementwise.truncate_public", "f", f, 1, 62)
    high, g = torch.empty(c.shape, dtype=torch.int64), torch.empty(c.shape, dtype=torch.int64)
    loops.truncate_public(_flat(c), f, high.view(-1).numpy(), g.view(-1).numpy())
    return high, g


def truncate_dealer_reference(r: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """The definition of ``truncate_dealer``."""
    return shift_right_logical(r, f), shift_right_logical(r, 63)


def truncate_dealer(r: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """Dealer's part of a truncation by f bits, 1 <= f <= 62: (r >> f, r >> 63), both logical, of r's shape."""
    on_cpu("elementwise.truncate_dealer", r)
    same_shape("elementwise.truncate_dealer", r)
    in_range("elementwise.truncate_dealer", "f", f, 1, 62)
    high, top = torch.empty(r.shape, dtype=torch.int64), torch.empty(r.shape, dtype=torch.int64)
    loops.truncate_dealer(_flat(r), f, high.view(-1).numpy(), top.view(-1).numpy())
    return high, top


def truncated_share_reference(public: Tensor | None, g: Tensor, h: Tensor, b: Tensor, f: int) -> Tensor:
    """The definition of ``truncated_share``."""
    top = (g * b) << (64 - f)
    return top - h if public is None else public - h + top


def truncated_share(public: Tensor | None, g: Tensor, h: Tensor, b: Tensor, f: int) -> Tensor:
    """An evaluator's share of the truncated value: (C or 0) - h + ((g * b) << (64 - f)), 1 <= f <= 62.

    h shares r >> f, b shares msb(r) (mod 2^f is enough); one evaluator passes C, the other None.
    """
    on_cpu("elementwise.truncated_share", g, h, b)
    same_shape("elementwise.truncated_share", g, h, b, *([] if public is None else [public]))
    in_range("elementwise.truncated_share", "f", f, 1, 62)
    out = torch.empty(g.shape, dtype=torch.int64)
    first = g if public is None else public
    loops.truncated_share(
        _flat(first), public is not None, _flat(g), _flat(h), _flat(b), f, out.view(-1).numpy()
    )
    return out


def polynomial_parts_reference(a: Tensor, c_hat: Tensor) -> Tensor:
    """The definition of ``polynomial_parts``."""
    d = a.shape[1] - 1
    rows = []
    for i in range(d + 1):
        total = torch.zeros_like(c_hat)
        for k in range(d, i - 1, -1):
            total = total * c_hat + (-1) ** i * comb(k, i) * a[:, k]
        rows.append(total)
    return torch.stack(rows)


def polynomial_parts(a: Tensor, c_hat: Tensor) -> Tensor:
    """Parts of sum_k A_k (c_hat - r_hat)^k that multiply the powers of r_hat, for degree d from 0 to 4.

    a int64[N, d + 1], c_hat int64[N] -> G int64[d + 1, N]: G_i = (-1)^i sum_{k >= i} binom(k, i) c_hat^(k - i) A_k, so
    that the value is sum_i G_i r_hat^i.
    """
    on_cpu("elementwise.polynomial_parts", a, c_hat)
    expect("elementwise.polynomial_parts", "a", a, torch.int64, (None, None))
    in_range("elementwise.polynomial_parts", "degree", a.shape[1] - 1, 0, MOST_DEGREE)
    expect("elementwise.polynomial_parts", "c_hat", c_hat, torch.int64, (len(a),))
    out = torch.empty((a.shape[1], len(a)), dtype=torch.int64)
    loops.polynomial_parts(a.contiguous().numpy(), _flat(c_hat), out.numpy())
    return out


def powers_reference(s: Tensor, r_hat: Tensor, d: int) -> Tensor:
    """The definition of ``powers``."""
    rows = [s]
    for _ in range(d):
        rows.append(rows[-1] * r_hat)
    return torch.stack(rows)


def powers(s: Tensor, r_hat: Tensor, d: int) -> Tensor:
    """The dealer's factors of a spline of degree d from 0 to 4: s, r_hat int64[N] -> int64[d + 1, N], s * r_hat^i."""
    on_cpu("elementwise.powers", s, r_hat)
    expect("elementwise.powers", "s", s, torch.int64, (None,))
    expect("elementwise.powers", "r_hat", r_hat, torch.int64, (len(s),))
    in_range("elementwise.powers", "d", d, 0, MOST_DEGREE)
    out = torch.empty((d + 1, len(s)), dtype=torch.int64)
    loops.powers(_flat(s), _flat(r_hat), out.numpy())
    return out
