"""One-pass formulas of openings, truncations and splines over Z_2^64: int64 tensors, wrapping.

Also gives the packers of ``packing``, so that a protocol has all its local formulas under one name.
"""

from __future__ import annotations

from math import comb

import torch

from . import elementwise_loops as loops
from .checks import expect, in_range, same_shape, wrap
from .cuda import elementwise as cuda
from .device import on_cuda
from .packing import pack_bits, pack_low_bytes, unpack_bits, unpack_low_bytes
from .ring import shift_right_logical

__all__ = [
    "add_open",
    "mask_for_open",
    "multiply_mask",
    "open_truncate",
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


def _like(x: Tensor) -> Tensor:
    """Uninitialised int64 of x's shape on its device, contiguous."""
    return torch.empty(x.shape, dtype=torch.int64, device=x.device)


def mask_for_open_reference(z: Tensor, rho: Tensor, constant: int) -> Tensor:
    """The definition of ``mask_for_open``."""
    return z + rho + wrap(constant)


def mask_for_open(z: Tensor, rho: Tensor, constant: int, out: Tensor | None = None) -> Tensor:
    """z + rho + constant, element by element; any one shape, ``constant`` mod 2^64. ``out`` may be z or rho."""
    same_shape("elementwise.mask_for_open", z, rho)
    if out is None:
        out = _like(z)
    same_shape("elementwise.mask_for_open", z, out)
    target = out if out.is_contiguous() else _like(z)
    if on_cuda("elementwise.mask_for_open", z, rho, out):
        cuda.add_with(z.contiguous(), rho.contiguous(), wrap(constant), target)
    else:
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
    same_shape("elementwise.truncate_public", c)
    in_range("elementwise.truncate_public", "f", f, 1, 62)
    if on_cuda("elementwise.truncate_public", c):
        return cuda.truncate_public(c.contiguous(), f)
    high, g = torch.empty(c.shape, dtype=torch.int64), torch.empty(c.shape, dtype=torch.int64)
    loops.truncate_public(_flat(c), f, high.view(-1).numpy(), g.view(-1).numpy())
    return high, g


def open_truncate_reference(mine: Tensor, theirs: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """The definition of ``open_truncate``."""
    return truncate_public_reference(mine + theirs, f)


def open_truncate(mine: Tensor, theirs: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """``truncate_public`` of c = mine + theirs, which is never written: the opening and what it is for in one pass."""
    same_shape("elementwise.open_truncate", mine, theirs)
    in_range("elementwise.open_truncate", "f", f, 1, 62)
    if on_cuda("elementwise.open_truncate", mine, theirs):
        return cuda.open_truncate(mine.contiguous(), theirs.contiguous(), f)
    high, g = _like(mine), _like(mine)
    loops.open_truncate(_flat(mine), _flat(theirs), f, high.view(-1).numpy(), g.view(-1).numpy())
    return high, g


def multiply_mask_reference(x: Tensor, y: Tensor, mask: Tensor, constant: int) -> Tensor:
    """The definition of ``multiply_mask``."""
    return x * y + mask + wrap(constant)


def multiply_mask(x: Tensor, y: Tensor, mask: Tensor, constant: int) -> Tensor:
    """x y + mask + constant, element by element, in one pass; one shape, ``constant`` mod 2^64.

    A product's summand and the mask that it must not leave the party without.
    """
    same_shape("elementwise.multiply_mask", x, y, mask)
    out = _like(x)
    if on_cuda("elementwise.multiply_mask", x, y, mask):
        cuda.multiply_mask(x.contiguous(), y.contiguous(), mask.contiguous(), wrap(constant), out)
    else:
        loops.multiply_mask(_flat(x), _flat(y), _flat(mask), wrap(constant), out.view(-1).numpy())
    return out


def truncate_dealer_reference(r: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """The definition of ``truncate_dealer``."""
    return shift_right_logical(r, f), shift_right_logical(r, 63)


def truncate_dealer(r: Tensor, f: int) -> tuple[Tensor, Tensor]:
    """Dealer's part of a truncation by f bits, 1 <= f <= 62: (r >> f, r >> 63), both logical, of r's shape."""
    same_shape("elementwise.truncate_dealer", r)
    in_range("elementwise.truncate_dealer", "f", f, 1, 62)
    if on_cuda("elementwise.truncate_dealer", r):
        return cuda.truncate_dealer(r.contiguous(), f)
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
    given = [g, h, b, *([] if public is None else [public])]
    same_shape("elementwise.truncated_share", *given)
    in_range("elementwise.truncated_share", "f", f, 1, 62)
    if on_cuda("elementwise.truncated_share", *given):
        held = None if public is None else public.contiguous()
        return cuda.truncated_share(held, g.contiguous(), h.contiguous(), b.contiguous(), f)
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
    expect("elementwise.polynomial_parts", "a", a, torch.int64, (None, None))
    in_range("elementwise.polynomial_parts", "degree", a.shape[1] - 1, 0, MOST_DEGREE)
    expect("elementwise.polynomial_parts", "c_hat", c_hat, torch.int64, (len(a),))
    if on_cuda("elementwise.polynomial_parts", a, c_hat):
        return cuda.polynomial_parts(a.contiguous(), c_hat.contiguous())
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
    expect("elementwise.powers", "s", s, torch.int64, (None,))
    expect("elementwise.powers", "r_hat", r_hat, torch.int64, (len(s),))
    in_range("elementwise.powers", "d", d, 0, MOST_DEGREE)
    if on_cuda("elementwise.powers", s, r_hat):
        return cuda.powers(s.contiguous(), r_hat.contiguous(), d)
    out = torch.empty((d + 1, len(s)), dtype=torch.int64)
    loops.powers(_flat(s), _flat(r_hat), out.numpy())
    return out
