"""One-pass formulas of replicated sharing: masked summands of products, and what a truncation, a conversion of bits
and an exponential compute at each of the three places.

A party holds pieces i and i+1 (arguments 0 and 1). Where one party P_k shares what it computed from pieces k and k+1,
it is the *owner*, and P_{k+1} and P_{k+2}, which both hold piece k+2, are the *others*: of them one holds the shares
d that the owner sent, the other those that it expanded.
"""

from __future__ import annotations

import torch

from mpc_ray.errors import InputError

from . import replicated_loops as loops
from .checks import expect, in_range, on_cpu, same_shape, wrap
from .planes import spread_reference, words
from .ring import shift_right_logical

Tensor = torch.Tensor
EXP_POSITION = 13  # bits of the position inside a cell that exp's table sees


def _flat(x: Tensor) -> loops.Int:
    flat: loops.Int = x.contiguous().reshape(-1).numpy()
    return flat


# -- products ------------------------------------------------------------------------------------------


def product_summand_reference(
    x0: Tensor, x1: Tensor, y0: Tensor, y1: Tensor, f0: Tensor, f1: Tensor
) -> Tensor:
    """The definition of ``product_summand``."""
    return x0 * (y0 + y1) + x1 * y0 + f0 - f1


def product_summand(x0: Tensor, x1: Tensor, y0: Tensor, y1: Tensor, f0: Tensor, f1: Tensor) -> Tensor:
    """A party's masked summand of x·y, element by element: x0·y0 + x0·y1 + x1·y0 + f0 - f1; int64 of one shape."""
    on_cpu("replicated.product_summand", x0, x1, y0, y1, f0, f1)
    same_shape("replicated.product_summand", x0, x1, y0, y1, f0, f1)
    out = torch.empty(x0.shape, dtype=torch.int64)
    x, y, f = (_flat(x0), _flat(x1)), (_flat(y0), _flat(y1)), (_flat(f0), _flat(f1))
    loops.product_summand(*x, *y, *f, out.view(-1).numpy())
    return out


def masked_summand_reference(z: Tensor, f0: Tensor, f1: Tensor) -> Tensor:
    """The definition of ``masked_summand``."""
    return z + f0 - f1


def masked_summand(z: Tensor, f0: Tensor, f1: Tensor) -> Tensor:
    """z + f0 - f1, a new tensor; int64 of one shape."""
    on_cpu("replicated.masked_summand", z, f0, f1)
    same_shape("replicated.masked_summand", z, f0, f1)
    out = torch.empty(z.shape, dtype=torch.int64)
    loops.masked_summand(_flat(z), _flat(f0), _flat(f1), out.view(-1).numpy())
    return out


# -- truncation ----------------------------------------------------------------------------------------


def truncate_owner_reference(x0: Tensor, x1: Tensor, c0: int, c1: int, f: Tensor) -> Tensor:
    """The definition of ``truncate_owner``."""
    h0, h1 = (shift_right_logical(x + wrap(c), 62) for x, c in ((x0, c0), (x1, c1)))
    return torch.stack([(h0 + h1) >> 2, h0 & h1 & 1]) - f


def truncate_owner(x0: Tensor, x1: Tensor, c0: int, c1: int, f: Tensor) -> Tensor:
    """The owner's two values, less their masks f int64[2, N], from the two top bits h of its pieces x + c, int64[N].

    First the carry of h0 + h1 beyond two bits, then the product of their lower bits.
    """
    on_cpu("replicated.truncate_owner", x0, x1, f)
    same_shape("replicated.truncate_owner", x0, x1)
    expect("replicated.truncate_owner", "f", f, torch.int64, (2, *x0.shape))
    out = torch.empty(f.shape, dtype=torch.int64)
    loops.truncate_owner(_flat(x0), _flat(x1), wrap(c0), wrap(c1), f.contiguous().numpy(), out.numpy())
    return out


def truncate_others_reference(x2: Tensor, c2: int, y: Tensor, cy: int, d: Tensor, mask: Tensor) -> Tensor:
    """The definition of ``truncate_others``."""
    t2, t = (shift_right_logical(x + wrap(c), 63) for x, c in ((x2, c2), (y, cy)))
    return (1 - 2 * t2) * d[0] + t2 * (d[1] + t) + mask


def truncate_others(x2: Tensor, c2: int, y: Tensor, cy: int, d: Tensor, mask: Tensor) -> Tensor:
    """One of the others' masked summand of the wraps: with t2, t the top bits of x2 + c2 (the piece that both others
    hold) and of y + cy (its other piece), (1 - 2·t2)·d[0] + t2·(d[1] + t) + mask. int64[N], d int64[2, N]."""
    on_cpu("replicated.truncate_others", x2, y, d, mask)
    same_shape("replicated.truncate_others", x2, y, mask)
    expect("replicated.truncate_others", "d", d, torch.int64, (2, *x2.shape))
    out = torch.empty(x2.shape, dtype=torch.int64)
    loops.truncate_others(
        _flat(x2), wrap(c2), _flat(y), wrap(cy), d.contiguous().numpy(), _flat(mask), out.numpy()
    )
    return out


def top_bits_table_reference(x: Tensor, constant: int, table: Tensor) -> Tensor:
    """The definition of ``top_bits_table``."""
    return table[:, shift_right_logical(x + wrap(constant), 62)]


def top_bits_table(x: Tensor, constant: int, table: Tensor) -> Tensor:
    """out[m] = table[m, h], h the two top bits of x + constant: x int64[N], table int64[M, 4] -> int64[M, N]."""
    on_cpu("replicated.top_bits_table", x, table)
    expect("replicated.top_bits_table", "table", table, torch.int64, (None, 4))
    out = torch.empty((len(table), x.numel()), dtype=torch.int64)
    loops.top_bits_table(_flat(x), wrap(constant), table.contiguous().numpy(), out.numpy())
    return out


def truncated_piece_reference(x: Tensor, constant: int, w: Tensor, f: int, shift: int) -> Tensor:
    """The definition of ``truncated_piece``."""
    return shift_right_logical(x + wrap(constant), f) - (w << (64 - f)) - wrap(shift)


def truncated_piece(x: Tensor, constant: int, w: Tensor, f: int, shift: int) -> Tensor:
    """A piece of the truncated value: ((x + constant) >> f, logical) - w·2^(64-f) - shift; 1 ≤ f ≤ 62, one shape."""
    on_cpu("replicated.truncated_piece", x, w)
    same_shape("replicated.truncated_piece", x, w)
    in_range("replicated.truncated_piece", "f", f, 1, 62)
    out = torch.empty(x.shape, dtype=torch.int64)
    loops.truncated_piece(_flat(x), wrap(constant), _flat(w), f, wrap(shift), out.view(-1).numpy())
    return out


# -- sums of shared bits -------------------------------------------------------------------------------


def _bit_planes(name: str, plane: Tensor, count: int) -> loops.Int:
    expect(name, "planes", plane, torch.int64, (None, words(count)))
    lines: loops.Int = plane.contiguous().numpy()
    return lines


def bits_owner_reference(b0: Tensor, b1: Tensor, f: Tensor) -> Tensor:
    """The definition of ``bits_owner``."""
    return spread_reference(b0 ^ b1, f.shape[1]) - f


def bits_owner(b0: Tensor, b1: Tensor, f: Tensor) -> Tensor:
    """The owner's u = b0 ⊕ b1 as numbers, less their masks: planes int64[J, words(N)], f int64[J, N] -> int64[J,
    N].
    """
    on_cpu("replicated.bits_owner", b0, b1, f)
    expect("replicated.bits_owner", "f", f, torch.int64, (len(b0), None))
    out = torch.empty(f.shape, dtype=torch.int64)
    left, right = (_bit_planes("replicated.bits_owner", b, f.shape[1]) for b in (b0, b1))
    loops.bits_owner(left, right, f.contiguous().numpy(), out.numpy())
    return out


def bits_others_reference(b2: Tensor, d: Tensor, coefficients: Tensor, mask: Tensor) -> Tensor:
    """The definition of ``bits_others``."""
    factors = 1 - 2 * spread_reference(b2, d.shape[1])
    return (coefficients.unsqueeze(-1) * (factors * d)).sum(1) + mask


def bits_others(b2: Tensor, d: Tensor, coefficients: Tensor, mask: Tensor) -> Tensor:
    """One of the others' masked summands: out[r] = Σ_j coefficients[r, j]·(1 - 2·b2_j)·d[j] + mask[r].

    b2 int64[J, words(N)], d int64[J, N], coefficients int64[R, J], mask int64[R, N] -> int64[R, N].
    """
    on_cpu("replicated.bits_others", b2, d, coefficients, mask)
    expect("replicated.bits_others", "d", d, torch.int64, (len(b2), None))
    expect("replicated.bits_others", "coefficients", coefficients, torch.int64, (None, len(b2)))
    expect("replicated.bits_others", "mask", mask, torch.int64, (len(coefficients), d.shape[1]))
    out = mask.clone(memory_format=torch.contiguous_format)
    planes = _bit_planes("replicated.bits_others", b2, d.shape[1])
    loops.bits_others(planes, d.contiguous().numpy(), coefficients.contiguous().numpy(), out.numpy())
    return out


def bits_sum_reference(b: Tensor, coefficients: Tensor, count: int) -> Tensor:
    """The definition of ``bits_sum``."""
    return (coefficients.unsqueeze(-1) * spread_reference(b, count)).sum(1)


def bits_sum(b: Tensor, coefficients: Tensor, count: int) -> Tensor:
    """out[r] = Σ_j coefficients[r, j]·b_j for one piece's bits: int64[J, words(N)], int64[R, J] -> int64[R, N]."""
    on_cpu("replicated.bits_sum", b, coefficients)
    expect("replicated.bits_sum", "coefficients", coefficients, torch.int64, (None, len(b)))
    out = torch.zeros((len(coefficients), count), dtype=torch.int64)
    planes = _bit_planes("replicated.bits_sum", b, count)
    loops.bits_sum(planes, coefficients.contiguous().numpy(), out.numpy())
    return out


# -- the exponential -----------------------------------------------------------------------------------


def _position(x: Tensor, constant: int, top: int) -> Tensor:
    return shift_right_logical(x + wrap(constant), top - EXP_POSITION) & ((1 << EXP_POSITION) - 1)


def exp_owner_reference(
    x0: Tensor, x1: Tensor, c0: int, c1: int, top: int, table: Tensor, b0: Tensor, b1: Tensor, f: Tensor
) -> Tensor:
    """The definition of ``exp_owner``."""
    both = table[_position(x0, c0, top)] * table[_position(x1, c1, top)]
    bits = spread_reference(b0 ^ b1, len(x0))
    return torch.cat([both.unsqueeze(0), both * bits]) - f


def exp_owner(
    x0: Tensor, x1: Tensor, c0: int, c1: int, top: int, table: Tensor, b0: Tensor, b1: Tensor, f: Tensor
) -> Tensor:
    """The owner's values: E = table[p0]·table[p1], and E·(b0 ⊕ b1)_j for every j, less their masks f.

    p: the EXP_POSITION bits of x + c below bit ``top``. x int64[N], table int64[2^13], planes int64[J, words(N)],
    f int64[J + 1, N].
    """
    on_cpu("replicated.exp_owner", x0, x1, table, b0, b1, f)
    same_shape("replicated.exp_owner", x0, x1)
    expect("replicated.exp_owner", "table", table, torch.int64, (1 << EXP_POSITION,))
    expect("replicated.exp_owner", "f", f, torch.int64, (len(b0) + 1, len(x0)))
    in_range("replicated.exp_owner", "top", top, EXP_POSITION, 63)
    out = torch.empty(f.shape, dtype=torch.int64)
    left, right = (_bit_planes("replicated.exp_owner", b, len(x0)) for b in (b0, b1))
    loops.exp_owner(
        _flat(x0),
        _flat(x1),
        wrap(c0),
        wrap(c1),
        top - EXP_POSITION,
        table.numpy(),
        left,
        right,
        f.contiguous().numpy(),
        out.numpy(),
    )
    return out


def exp_others_reference(
    x2: Tensor, c2: int, top: int, table: Tensor, steps: Tensor, b2: Tensor, d: Tensor, mask: Tensor
) -> Tensor:
    """The definition of ``exp_others``."""
    bits = spread_reference(b2, len(x2))
    weight = steps.unsqueeze(-1)
    total = (weight * bits).sum(0) * d[0] + (weight * (1 - 2 * bits) * d[1:]).sum(0)
    return table[_position(x2, c2, top)] * total + mask


def exp_others(
    x2: Tensor, c2: int, top: int, table: Tensor, steps: Tensor, b2: Tensor, d: Tensor, mask: Tensor
) -> Tensor:
    """One of the others' masked summand: table[p2]·Σ_j steps[j]·(b2_j·d[0] + (1 - 2·b2_j)·d[1 + j]) + mask.

    x2, mask int64[N], steps int64[J], planes int64[J, words(N)], d int64[J + 1, N].
    """
    on_cpu("replicated.exp_others", x2, table, steps, b2, d, mask)
    same_shape("replicated.exp_others", x2, mask)
    expect("replicated.exp_others", "table", table, torch.int64, (1 << EXP_POSITION,))
    expect("replicated.exp_others", "d", d, torch.int64, (len(steps) + 1, len(x2)))
    in_range("replicated.exp_others", "top", top, EXP_POSITION, 63)
    if len(steps) != len(b2):
        raise InputError(
            f"kernel replicated.exp_others: {len(steps)} steps for {len(b2)} planes", remedy="pass one each"
        )
    out = torch.empty(x2.shape, dtype=torch.int64)
    loops.exp_others(
        _flat(x2),
        wrap(c2),
        top - EXP_POSITION,
        table.numpy(),
        steps.contiguous().numpy(),
        _bit_planes("replicated.exp_others", b2, len(x2)),
        d.contiguous().numpy(),
        _flat(mask),
        out.numpy(),
    )
    return out
