"""Local products of two replicated sharings.

Textbook: z_i = x_i·y_i + x_i·y_{i+1} + x_{i+1}·y_i, an additive sharing of z (two products a party).
Doubled:  2z = (2x_0+x_1)(2y_0+y_1) + (x_1+2x_2)(y_1+2y_2) - 2(x_2-x_0)(y_2-y_0), one product a party; it is a
sharing of z at a scale one larger. Both are bilinear in what the party holds, cost no message, and their
summands must be masked (an opening's fold, or a zero share) before they leave the party.

With weights that all parties know nothing of this is needed: E0 and E1 multiply their halves of a 2-of-2 sharing, and D
does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mpc_ray.kernels import ring
from mpc_ray.protocols.semi_honest.thirds import Halves, Thirds, cut, thirds_of
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared, Summand

CPU = torch.device("cpu")


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


@dataclass(frozen=True)
class PublicVector:
    """int64 numbers (n,) at ``scale`` that all parties know."""

    value: torch.Tensor
    scale: int


AnyVector = Shared | PublicVector


def multiply(me: int, x: Shared, y: AnyVector) -> Summand:
    """[x·y] element by element (broadcasting): doubled form, scale s_x + s_y + 1; of a public y s_x + s_y. 0 rounds."""
    if isinstance(y, PublicVector):
        return Summand(x.own * y.value, x.scale + y.scale)
    return Summand(left_combination(me, x) * right_combination(me, y), x.scale + y.scale + 1)


def add(me: int, z: Summand, y: AnyVector) -> Summand:
    """[z + y], y at z's scale (broadcasting). 0 rounds."""
    check_scale(y.scale, z.scale, "addition")
    if isinstance(y, Shared):
        return Summand(z.value + y.own, z.scale)
    return Summand(z.value + y.value, z.scale) if me == 0 else z


class Linear:
    """A secret weight matrix and bias, prepared once: this party's single combination, packed for the kernel.

    ``weight`` (k, n) is given for inputs stacked along k, at ``input_scales``; rows of different inputs may be at
    different scales, as long as every product comes out at the bias's scale. 8 bytes an entry.
    """

    def __init__(
        self,
        me: int,
        weight: Shared,
        bias: Shared,
        input_scales: tuple[int, ...],
        place: torch.device = CPU,
    ) -> None:
        self.me, self.bias, self.input_scales = me, bias.map(lambda t: t.to(place)), input_scales
        inner, columns = weight.shape
        self.packed = ring.pack_rows(
            inner, columns, lambda rows: right_combination(me, weight[rows]).to(place), ring.form_on(place)
        )

    def thirds(self, *inputs: Shared) -> Thirds:
        """``apply``, by thirds of the rows."""
        return cut(self.apply(*inputs))

    def apply(self, *inputs: Shared) -> Summand:
        """[[x | …] @ w + b] for inputs (m, k_i), at the bias's scale. 0 rounds."""
        for x, scale in zip(inputs, self.input_scales, strict=True):
            check_scale(x.scale, scale, "input of a linear layer")
        left = torch.cat([left_combination(self.me, x) for x in inputs], -1)
        return Summand(ring.matmul_plus(left, self.packed, self.bias.own), self.bias.scale)

    def product(self, x: Shared) -> Thirds:
        """[x @ w] by thirds for one input (m, k) at any scale, without the bias: at the scale that goes with x's."""
        (scale,) = self.input_scales
        z = ring.matmul_packed(left_combination(self.me, x), self.packed)
        return cut(Summand(z, self.bias.scale - scale + x.scale))


@dataclass(frozen=True)
class Residual:
    """The product with diag(g)·(I - 11ᵀ/n), which needs no matrix: y∘diagonal - (Σ_j y_j·mean_j)·1. int64 (n,) each."""

    diagonal: torch.Tensor
    mean: torch.Tensor


class PublicLinear:
    """A weight matrix (k, n), int32 or int64, and a bias that all parties know; with a ``residual`` the second input's.

    Each third of the rows is multiplied by its E0 and its E1 alone: two products of a third where secret weights take
    three. 4 bytes an entry of int32. ``bias`` is at the product's scale: input scale + weight scale, not one larger.
    """

    def __init__(
        self,
        me: int,
        weight: torch.Tensor,
        bias: PublicVector,
        input_scales: tuple[int, ...],
        residual: Residual | None = None,
    ) -> None:
        self.me, self.bias, self.input_scales, self.residual = me, bias, input_scales, residual
        inner, columns = weight.shape
        form = ring.form_on(weight.device)
        self.packed = ring.pack_rows(inner, columns, lambda rows: weight[rows], form, weight.dtype)

    def thirds(self, *inputs: Shared) -> Thirds:
        """[x @ w + b], for inputs (m, k) or (m, k) and (m, n): 2-of-2 in each third of the rows. 0 rounds."""
        for x, scale in zip(inputs, self.input_scales, strict=True):
            check_scale(x.scale, scale, "input of a linear layer")
        own, left, z = self._multiplied(*inputs)
        if self.residual is not None:
            z.addcmul_(left[1], self.residual.diagonal)
            z -= (left[1] * self.residual.mean).sum(-1, keepdim=True)
        return self._parts(z, own, inputs[0].shape[0], self.bias.scale, self.bias.value)

    def product(self, x: Shared) -> Thirds:
        """As ``Linear.product``."""
        (scale,) = self.input_scales
        own, _, z = self._multiplied(x)
        return self._parts(z, own, x.shape[0], self.bias.scale - scale + x.scale)

    def _multiplied(
        self, *inputs: Shared
    ) -> tuple[list[tuple[int, slice]], list[torch.Tensor], torch.Tensor]:
        """The thirds that this party evaluates, its halves of the inputs there, and the first one's product."""
        m = inputs[0].shape[0]
        own = [(k, rows) for k, rows in thirds_of(m) if self.me in (k, (k + 1) % 3)]
        left = [self._halves(x, own) for x in inputs]
        return own, left, ring.matmul_packed(left[0], self.packed)

    def _parts(
        self,
        z: torch.Tensor,
        own: list[tuple[int, slice]],
        m: int,
        scale: int,
        bias: torch.Tensor | None = None,
    ) -> Thirds:
        parts, end = [], 0
        for k, rows in thirds_of(m):
            count, value = rows.stop - rows.start, None
            if (k, rows) in own:
                value = z[end : end + count]
                end += count
                if self.me == k and bias is not None:
                    value += bias
            shape = torch.Size((count, self.packed.columns))
            parts.append((k, rows, Halves(value, shape, scale)))
        return Thirds(tuple(parts), m)

    def _halves(self, x: Shared, own: list[tuple[int, slice]]) -> torch.Tensor:
        """This party's halves of the rows that it evaluates: x_k + x_{k+1} as E0, x_{k+2} as E1."""
        found = [x.own[rows] + x.next[rows] if self.me == k else x.next[rows] for k, rows in own]
        return torch.cat(found) if found else x.own[:0]
