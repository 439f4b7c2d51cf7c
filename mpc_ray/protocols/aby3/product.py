"""Products of replicated sharings: the textbook form, one round, 8 bytes a party for each number that comes out.

z_i = x_i·y_i + x_i·y_{i+1} + x_{i+1}·y_i + F(S_i) - F(S_{i+1}); P_i sends z_i to P_{i-1} (Araki et al., CCS 2016;
ABY3, CCS 2018, §3). The masks add up to zero, and the receiver lacks S_{i+1}, so z_i is uniform to it. Sums are
local, so an inner product of any length is one number. Results are at the sum of the two scales.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from mpc_ray.errors import InputError
from mpc_ray.kernels import ring
from mpc_ray.kernels.replicated import masked_summand, product_summand
from mpc_ray.protocols.aby3.claims import Draw, Matrix, Pieces, Product
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.runtime import Arrival, Protocol
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared


def pieces(x: Shared) -> Pieces:
    """What a claim keeps of a shared tensor."""
    return Pieces(x.own, x.next)


class Resharing:
    """Masked summands of all three → ⟨z⟩, begun in this round."""

    def __init__(self, place: Place, z: torch.Tensor, scale: int, masks: tuple[Draw, Draw]) -> None:
        self.place, self.z, self.scale, self.masks = place, z, scale, masks
        place.send(place.me - 1, z, "product")
        self._arrival: Arrival = place.expect(place.me + 1, z.numel())

    def result(self) -> Shared:
        """⟨z⟩ after the round."""
        return Shared(self.z, self._arrival.int64(self.z.shape), self.scale)


def zero_masks(
    place: Place, shape: torch.Size, purpose: str = "zero"
) -> tuple[tuple[torch.Tensor, Draw], tuple[torch.Tensor, Draw]]:
    """F(S_me) and F(S_{me+1}) of ``shape``; their difference (or XOR) is a share of zero."""
    dims = tuple(shape)
    return place.words(place.me, purpose, dims), place.words(place.me + 1, purpose, dims)


def reshared(place: Place, local: torch.Tensor, scale: int) -> Resharing:
    """A local summand, masked and on its way."""
    (f0, first), (f1, second) = zero_masks(place, local.shape)
    return Resharing(place, masked_summand(local, f0, f1), scale, (first, second))


def multiply(place: Place, x: Shared, y: Shared) -> Protocol[Shared]:
    """⟨x·y⟩ element by element; shapes broadcast. 1 round, 8 bytes an element a party."""
    scale = x.scale + y.scale
    x, y = _broadcast(x, y)
    (f0, first), (f1, second) = zero_masks(place, x.shape)
    z = Resharing(place, product_summand(x.own, x.next, y.own, y.next, f0, f1), scale, (first, second))
    yield
    result = z.result()
    if place.proving:
        place.claim(Product(place.label, pieces(x), pieces(y), pieces(result), z.masks, None))
    return result


def dot(place: Place, x: Shared, y: Shared, axis: int) -> Protocol[Shared]:
    """⟨Σ x·y⟩ over ``axis``; shapes broadcast. 1 round, 8 bytes a sum a party."""
    scale = x.scale + y.scale
    x, y = _broadcast(x, y)
    local = (x.own * (y.own + y.next) + x.next * y.own).sum(axis)
    z = reshared(place, local, scale)
    yield
    result = z.result()
    if place.proving:
        place.claim(Product(place.label, pieces(x), pieces(y), pieces(result), z.masks, axis))
    return result


def matmul(place: Place, x: Shared, y: Shared) -> Protocol[Shared]:
    """⟨x @ y⟩ (…, m, k) @ (…, k, n) with equal leading dimensions. 1 round, 8 bytes an entry of z a party."""
    local = ring.matmul(torch.cat([x.own, x.next], -1), torch.cat([y.own + y.next, y.own], -2))
    return (yield from _matrix(place, x, y, local))


def _matrix(place: Place, x: Shared, y: Shared, local: torch.Tensor) -> Protocol[Shared]:
    z = reshared(place, local, x.scale + y.scale)
    yield
    result = z.result()
    if place.proving:
        place.claim(Matrix(place.label, pieces(x), pieces(y), pieces(result), z.masks))
    return result


@dataclass(frozen=True)
class PackedPieces:
    """Both pieces of a weight matrix that is kept as [w_i + w_{i+1} ; w_i], each copied out when it is asked for."""

    packed: ring.PackedMatrix = field(repr=False)
    ndim: int = 2

    @property
    def own(self) -> torch.Tensor:
        """w_i (k, n)."""
        inner = self.packed.inner // 2
        return ring.unpack(self.packed, range(inner, 2 * inner))

    @property
    def next(self) -> torch.Tensor:
        """w_{i+1} (k, n)."""
        return ring.unpack(self.packed, range(self.packed.inner // 2)).sub_(self.own)


class Linear:
    """A secret weight matrix (k, n) and its bias (n,), prepared once: [w_i + w_{i+1} ; w_i], packed for the kernel.

    ``input_scales``: of inputs stacked along k. All products come out at ``scale``, one below the stored bias, since
    stored weights fit the doubled form of semi_honest_3pc (2·w at the bias's scale); inputs at a smaller scale
    than the one expected have their rows of w raised, exactly and locally. The bias is given with each job, at
    ``scale`` (``halved``). 16 bytes an entry: both pieces can be had from the packed form again.
    """

    def __init__(
        self,
        weight: Shared,
        bias: Shared,
        input_scales: tuple[int, ...],
        raised: tuple[int, ...],
        sizes: tuple[int, ...],
    ) -> None:
        if not (len(input_scales) == len(raised) == len(sizes)) or sum(sizes) != weight.shape[0]:
            raise InputError("rows of a linear layer do not fit its inputs", remedy="import the model again")
        parts = weight.own.split(list(sizes)), weight.next.split(list(sizes))
        own, following = (
            torch.cat([part << bits for part, bits in zip(split, raised, strict=True)]) for split in parts
        )
        self.input_scales = input_scales
        self.scale = bias.scale - 1
        self.stored_bias = bias
        self._packed = ring.pack(torch.cat([own + following, own]))

    def apply(self, place: Place, bias: Shared, *inputs: Shared) -> Protocol[Shared]:
        """⟨[x | …] @ w + b⟩ for inputs (m, k_i). 1 round, 8 bytes an entry a party."""
        for x, scale in zip(inputs, self.input_scales, strict=True):
            check_scale(x.scale, scale, f"{place.label}: input")
        check_scale(bias.scale, self.scale, f"{place.label}: bias")
        own = torch.cat([x.own for x in inputs], -1)
        following = torch.cat([x.next for x in inputs], -1)
        local = ring.matmul_packed(torch.cat([own, following], -1), self._packed)
        z = reshared(place, local, self.scale)
        yield
        result = z.result()
        if place.proving:
            weight = PackedPieces(self._packed)
            place.claim(Matrix(place.label, Pieces(own, following), weight, pieces(result), z.masks))
        return result + bias


def _broadcast(x: Shared, y: Shared) -> tuple[Shared, Shared]:
    if x.shape == y.shape:
        return x, y
    shape = torch.broadcast_shapes(x.shape, y.shape)
    return x.map(lambda t: t.expand(shape)), y.map(lambda t: t.expand(shape))
