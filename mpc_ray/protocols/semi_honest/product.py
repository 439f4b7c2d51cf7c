"""Local products of two replicated sharings.

Textbook: z_i = x_i·y_i + x_i·y_{i+1} + x_{i+1}·y_i, an additive sharing of z (two products a party).
Doubled:  2z = (2x_0+x_1)(2y_0+y_1) + (x_1+2x_2)(y_1+2y_2) - 2(x_2-x_0)(y_2-y_0), one product a party; it is a
sharing of z at a scale one larger. Both are bilinear in what the party holds, cost no message, and their
summands must be masked (an opening's fold, or a zero share) before they leave the party.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mpc_ray.kernels import ring
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared, Summand


def left_combination(me: int, x: Shared) -> torch.Tensor:
    """P0: 2x_0+x_1, P1: x_1+2x_2, P2: x_2-x_0."""
    if me == 0:
        return (x.own << 1) + x.next
    if me == 1:
        return x.own + (x.next << 1)
    return x.own - x.next


def right_combination(me: int, y: Shared) -> torch.Tensor:
    """As the left one; P2 carries the factor -2."""
    combination = left_combination(me, y)
    return combination if me < 2 else -(combination << 1)


@dataclass(frozen=True)
class Factor:
    """The right-hand side of products, combined once for many of them; (…, k, n)."""

    combination: torch.Tensor
    scale: int

    @property
    def shape(self) -> torch.Size:
        return self.combination.shape


def factor(me: int, y: Shared) -> Factor:
    """⟨y⟩ as a right-hand side. Local."""
    return Factor(right_combination(me, y), y.scale)


def matmul(me: int, x: Shared, y: Factor) -> Summand:
    """[x @ y] of two shared tensors (…, m, k) @ (…, k, n), doubled form: scale s_x + s_y + 1. 0 rounds."""
    return Summand(ring.matmul(left_combination(me, x), y.combination), x.scale + y.scale + 1)


def matmul_textbook(x: Shared, y: Shared) -> Summand:
    """[x @ y], textbook form: scale s_x + s_y, twice the work. 0 rounds. What the doubled form is tested against."""
    z = ring.matmul(x.own, y.own + y.next) + ring.matmul(x.next, y.own)
    return Summand(z, x.scale + y.scale)


def multiply(me: int, x: Shared, y: Shared) -> Summand:
    """[x·y] element by element (broadcasting), doubled form: scale s_x + s_y + 1. 0 rounds."""
    return Summand(left_combination(me, x) * right_combination(me, y), x.scale + y.scale + 1)


class Linear:
    """A secret weight matrix and bias, prepared once: this party's single combination, packed for the kernel.

    ``weight`` (k, n) is given for inputs stacked along k, at ``input_scales``; rows of different inputs may be at
    different scales, as long as every product comes out at the bias's scale. 8 bytes an entry.
    """

    def __init__(self, me: int, weight: Shared, bias: Shared, input_scales: tuple[int, ...]) -> None:
        self.me, self.bias, self.input_scales = me, bias, input_scales
        inner, columns = weight.shape
        self.packed = ring.pack_rows(inner, columns, lambda rows: right_combination(me, weight[rows]))

    def apply(self, *inputs: Shared) -> Summand:
        """[[x | …] @ w + b] for inputs (m, k_i), at the bias's scale. 0 rounds."""
        for x, scale in zip(inputs, self.input_scales, strict=True):
            check_scale(x.scale, scale, "input of a linear layer")
        left = torch.cat([left_combination(self.me, x) for x in inputs], -1)
        z = ring.matmul_packed(left, self.packed)
        z += self.bias.own
        return Summand(z, self.bias.scale)

    def product(self, x: Shared) -> Summand:
        """[x @ w] for one input (m, k), whatever its scale, without the bias: at x.scale + the weights' scale + 1."""
        (scale,) = self.input_scales
        z = ring.matmul_packed(left_combination(self.me, x), self.packed)
        return Summand(z, self.bias.scale - scale + x.scale)
