"""Thermometer counts, bit picks and row rotations: what the maximum of a row needs from local arithmetic.

For each of n entries the dealer knows r_j and shares a one-hot of nb buckets at r_j, additively in Z_2^8 or Z_2^16; the
evaluators know c_j. Turned by c_j, the one-hot stands at c_j - r_j, the entry's bucket; added over the row it is the
histogram, and its suffix sums count the entries at or above each bucket.
"""

from __future__ import annotations

import torch

from mpc_ray.errors import InputError

from . import histogram_loops as loops
from .checks import expect
from .cuda import histogram as cuda
from .device import on_cuda

Tensor = torch.Tensor
RINGS = {8: torch.uint8, 16: torch.uint16}


def _ring(name: str, dtype: torch.dtype) -> int:
    for bits, kind in RINGS.items():
        if kind == dtype:
            return bits
    raise InputError(f"kernel {name}: counts of {dtype}", remedy="use uint8 (Z_2^8) or uint16 (Z_2^16)")


def thermometer_counts_reference(e: Tensor, c: Tensor, keep: Tensor | None, bits: int) -> Tensor:
    """The definition of ``thermometer_counts``."""
    rows, n, nb = e.shape
    index = ((c % nb)[:, :, None] - torch.arange(nb)) % nb
    turned = torch.gather(e.to(torch.int64), 2, index)
    if keep is not None:
        turned = turned * (keep != 0).expand(rows, n)[:, :, None]
    return turned.sum(1).to(RINGS[bits])


def thermometer_counts(e: Tensor, c: Tensor, keep: Tensor | None, bits: int) -> Tensor:
    """Histogram share of every row: e[R, n, nb], c int64[R, n] (mod nb), keep uint8[n] or uint8[R, n] -> counts[R, nb].

    out[r, b] = sum over the entries j that keep has (all, where it is None) of e[r, j, (c[r, j] - b) mod nb], in
    Z_2^bits; bits is 8 or 16, and e and the result are uint8 or uint16 accordingly. A count wraps at 2^bits: n must be
    smaller. nb is any length from 1.
    """
    if bits not in RINGS:
        raise InputError(f"kernel histogram.thermometer_counts: bits = {bits}", remedy="use 8 or 16")
    expect("histogram.thermometer_counts", "e", e, RINGS[bits], (None, None, None))
    rows, n, nb = e.shape
    expect("histogram.thermometer_counts", "c", c, torch.int64, (rows, n))
    if keep is not None and keep.ndim == 1:
        expect("histogram.thermometer_counts", "keep", keep, torch.uint8, (n,))
    elif keep is not None:
        expect("histogram.thermometer_counts", "keep", keep, torch.uint8, (rows, n))
    on_device = on_cuda("histogram.thermometer_counts", e, c, *([] if keep is None else [keep]))
    if on_device and e.numel():
        kept = None if keep is None else keep.contiguous()
        return cuda.thermometer_counts(e.contiguous(), c.contiguous(), kept)
    out = torch.zeros((rows, nb), dtype=e.dtype, device=e.device)
    if n and not on_device:
        every = (torch.ones((1, 1), dtype=torch.uint8) if keep is None else keep).expand(rows, n).contiguous()
        loops.counts(e.contiguous().numpy(), c.contiguous().numpy(), every.numpy(), out.numpy())
    return out


def suffix_sum_reference(counts: Tensor) -> Tensor:
    """The definition of ``suffix_sum``."""
    return counts.to(torch.int64).flip(-1).cumsum(-1).flip(-1).to(counts.dtype)


def suffix_sum(counts: Tensor) -> Tensor:
    """counts uint8|uint16[.., nb] -> out[.., b] = sum over b' >= b of counts[.., b'], in the same ring."""
    _ring("histogram.suffix_sum", counts.dtype)
    if on_cuda("histogram.suffix_sum", counts) and counts.numel():
        return cuda.suffix_sum(counts.contiguous().reshape(-1, counts.shape[-1])).reshape(counts.shape)
    out = torch.empty_like(counts, memory_format=torch.contiguous_format)
    if counts.numel():
        rows = counts.contiguous().reshape(-1, counts.shape[-1])
        loops.suffix(rows.numpy(), out.reshape(rows.shape).numpy())
    return out


def deal_thermometer_reference(e0: Tensor, position: Tensor) -> Tensor:
    """The definition of ``deal_thermometer``."""
    hot = torch.nn.functional.one_hot(position % e0.shape[-1], e0.shape[-1])
    return (hot - e0.to(torch.int64)).to(e0.dtype)


def deal_thermometer(e0: Tensor, position: Tensor) -> Tensor:
    """Dealer's part: e0 uint8|uint16[.., nb] uniform, position int64[..] (mod nb) -> e1 = one-hot(position) - e0."""
    _ring("histogram.deal_thermometer", e0.dtype)
    expect("histogram.deal_thermometer", "position", position, torch.int64, tuple(e0.shape[:-1]))
    if on_cuda("histogram.deal_thermometer", e0, position) and e0.numel():
        flat = e0.contiguous().reshape(-1, e0.shape[-1])
        return cuda.deal_thermometer(flat, position.contiguous().reshape(-1)).reshape(e0.shape)
    out = torch.empty_like(e0, memory_format=torch.contiguous_format)
    if e0.numel():
        rows = e0.contiguous().reshape(-1, e0.shape[-1])
        loops.deal(rows.numpy(), position.contiguous().reshape(-1).numpy(), out.reshape(rows.shape).numpy())
    return out


def pick_bits_reference(e: Tensor, c: Tensor) -> Tensor:
    """The definition of ``pick_bits``."""
    at = c % (8 * e.shape[1])
    return (e[torch.arange(len(e)), at >> 3] >> (at & 7).to(torch.uint8)) & 1


def pick_bits(e: Tensor, c: Tensor) -> Tensor:
    """e uint8[N, 2^k/8], c int64[N] (mod 2^k) -> uint8[N]: bit (c & 7) of byte c >> 3 of each row."""
    expect("histogram.pick_bits", "e", e, torch.uint8, (None, None))
    expect("histogram.pick_bits", "c", c, torch.int64, (len(e),))
    if on_cuda("histogram.pick_bits", e, c):
        return cuda.pick_bits(e.contiguous(), c.contiguous())
    out = torch.empty(len(e), dtype=torch.uint8)
    loops.pick(e.contiguous().numpy(), c.contiguous().numpy(), out.numpy())
    return out


def rotate_rows_reference(x: Tensor, by: Tensor) -> Tensor:
    """The definition of ``rotate_rows``."""
    nb = x.shape[1]
    return torch.gather(x, 1, (torch.arange(nb) - (by % nb)[:, None]) % nb)


def rotate_rows(x: Tensor, by: Tensor) -> Tensor:
    """x uint8[R, nb], by int64[R] (mod nb) -> out[r, i] = x[r, (i - by[r]) mod nb]."""
    expect("histogram.rotate_rows", "x", x, torch.uint8, (None, None))
    expect("histogram.rotate_rows", "by", by, torch.int64, (len(x),))
    if on_cuda("histogram.rotate_rows", x, by) and x.numel():
        return cuda.rotate_rows(x.contiguous(), by.contiguous())
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    if x.numel():
        loops.rotate(x.contiguous().numpy(), by.contiguous().numpy(), out.numpy())
    return out
