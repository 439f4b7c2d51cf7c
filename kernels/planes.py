"""Bit planes: 64 elements a word, so that one instruction is 64 gates.

A plane holds one bit of every element: element e of a line is bit e mod 64 of word e // 64, spare bits zero. Words
are ``torch.int64``; a word is 64 bits of Z_2, not a number.
"""

from __future__ import annotations

import torch

from mpc_ray.errors import InputError

from . import planes_loops as loops
from .checks import in_range, on_cpu, same_shape, wrap
from .ring import shift_right_logical

Tensor = torch.Tensor
WORD = 64


def words(length: int) -> int:
    """Words of a line of ``length`` bits."""
    return (length + WORD - 1) // WORD


def planes_reference(x: Tensor, constant: int, t: int, n: int) -> Tensor:
    """The definition of ``planes``."""
    length = x.shape[-1]
    padded = torch.zeros((*x.shape[:-1], WORD * words(length)), dtype=torch.int64)
    padded[..., :length] = x + wrap(constant)
    bits = torch.stack([shift_right_logical(padded, t + i) & 1 for i in range(n)])
    bits[..., length:] = 0
    weights = torch.tensor([wrap(1 << i) for i in range(WORD)])
    return (bits.reshape(*bits.shape[:-1], words(length), WORD) * weights).sum(-1)


def planes(x: Tensor, constant: int, t: int, n: int) -> Tensor:
    """Bits t … t+n-1 of x + constant: x int64[.., L] -> int64[n, .., words(L)]; 1 ≤ n, t + n ≤ 64."""
    on_cpu("planes.planes", x)
    same_shape("planes.planes", x)
    in_range("planes.planes", "n", n, 1, 64)
    in_range("planes.planes", "t", t, 0, 64 - n)
    if x.ndim == 0:
        raise InputError("kernel planes.planes: a single number", remedy="pass a line of them")
    length = x.shape[-1]
    lines = x.contiguous().reshape(-1, length) if x.numel() else x.reshape(0, length)
    out = torch.zeros((n, *x.shape[:-1], words(length)), dtype=torch.int64)
    if x.numel():
        loops.planes(lines.numpy(), wrap(constant), t, out.view(n, len(lines), -1).numpy())
    return out


def spread_reference(plane: Tensor, length: int) -> Tensor:
    """The definition of ``spread``."""
    bits = (plane.unsqueeze(-1) >> torch.arange(WORD)) & 1
    return bits.reshape(*plane.shape[:-1], WORD * plane.shape[-1])[..., :length]


def spread(plane: Tensor, length: int) -> Tensor:
    """The inverse of a plane: int64[.., words(L)] -> int64[.., L] of 0 and 1."""
    on_cpu("planes.spread", plane)
    same_shape("planes.spread", plane)
    if plane.ndim == 0 or plane.shape[-1] != words(length):
        raise InputError(
            f"kernel planes.spread: a plane {list(plane.shape)} for lines of {length}",
            remedy="pass as many words as the length needs",
        )
    out = torch.empty((*plane.shape[:-1], length), dtype=torch.int64)
    if out.numel():
        loops.spread(plane.contiguous().reshape(-1, plane.shape[-1]).numpy(), out.view(-1, length).numpy())
    return out


def and_summand_reference(x0: Tensor, x1: Tensor, y0: Tensor, y1: Tensor, f0: Tensor, f1: Tensor) -> Tensor:
    """The definition of ``and_summand``."""
    return (x0 & (y0 ^ y1)) ^ (x1 & y0) ^ f0 ^ f1


def and_summand(x0: Tensor, x1: Tensor, y0: Tensor, y1: Tensor, f0: Tensor, f1: Tensor) -> Tensor:
    """A party's masked summand of x & y: x_i & y_i ⊕ x_i & y_{i+1} ⊕ x_{i+1} & y_i ⊕ f0 ⊕ f1; one shape."""
    on_cpu("planes.and_summand", x0, x1, y0, y1, f0, f1)
    same_shape("planes.and_summand", x0, x1, y0, y1, f0, f1)
    out = torch.empty(x0.shape, dtype=torch.int64)
    x, y, f = (_flat(x0), _flat(x1)), (_flat(y0), _flat(y1)), (_flat(f0), _flat(f1))
    loops.and_summand(*x, *y, *f, out.view(-1).numpy())
    return out


def pair_summand_reference(x0: Tensor, x1: Tensor, f0: Tensor, f1: Tensor) -> Tensor:
    """The definition of ``pair_summand``."""
    return (x0 & x1) ^ f0 ^ f1


def pair_summand(x0: Tensor, x1: Tensor, f0: Tensor, f1: Tensor) -> Tensor:
    """A party's masked summand of the majority of x_0, x_1, x_2, each known to two parties: x_i & x_{i+1} ⊕ f0 ⊕
    f1.
    """
    on_cpu("planes.pair_summand", x0, x1, f0, f1)
    same_shape("planes.pair_summand", x0, x1, f0, f1)
    out = torch.empty(x0.shape, dtype=torch.int64)
    loops.pair_summand(_flat(x0), _flat(x1), _flat(f0), _flat(f1), out.view(-1).numpy())
    return out


def _flat(x: Tensor) -> loops.Int:
    flat: loops.Int = x.contiguous().reshape(-1).numpy()
    return flat
