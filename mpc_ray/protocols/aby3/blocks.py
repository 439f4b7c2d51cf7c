"""The block operations of aby3: the same model as under semi_honest_3pc, from the same shares, without a dealer.

Scales are those of the stored model, except that products are textbook products, at the sum of their factors' scales:
one bit less than the doubled form's, which leaves truncations the room that they need. Stored biases lose that bit at
the start of each job, in two rounds for all of them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from mpc_ray.functions.piecewise import Piecewise
from mpc_ray.protocols.aby3.norm import RowNorm, normalise
from mpc_ray.protocols.aby3.piecewise import activate
from mpc_ray.protocols.aby3.place import Place
from mpc_ray.protocols.aby3.product import Linear, matmul, multiply
from mpc_ray.protocols.aby3.range_check import RangeChecks
from mpc_ray.protocols.aby3.softmax import Softmax, attention
from mpc_ray.protocols.aby3.truncate import truncate
from mpc_ray.protocols.blocks import ATTENTION_OUT
from mpc_ray.protocols.runtime import Protocol, Runtime, together
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared

T = TypeVar("T")


@dataclass(frozen=True)
class LayerShares:
    """One layer at one party: its weights, and the public plan of its functions."""

    qkv: Linear
    out: Linear
    up: Linear
    down: Linear
    query_key_scale: int
    value_scale: int
    softmax: Callable[[int, bool], Softmax]
    attention_norm: RowNorm
    activation: Piecewise
    ffn_norm: RowNorm

    @property
    def linears(self) -> dict[str, Linear]:
        return {"qkv": self.qkv, "out": self.out, "up": self.up, "down": self.down}


@dataclass(frozen=True)
class ModelShares:
    """One party's part of a model. ``gain`` and the two biases (at two scales): of the last norm, for the output."""

    heads: int
    embedding_norm: RowNorm | None
    layers: Mapping[str, LayerShares]
    gain: Shared
    hidden_bias: Shared
    pooled_bias: Shared
    pooled_scale: int
    pool: RowNorm | None


@dataclass
class Aby3Blocks:
    """The blocks of one job at one party. ``mask`` (b, n) and ``pooling`` (b, 1, n) are the client's shares."""

    runtime: Runtime
    model: ModelShares
    checks: RangeChecks
    mask: Shared | None = None
    pooling: Shared | None = None
    _biases: dict[tuple[str, str], Shared] = field(default_factory=dict)

    def normalise(self, x: Shared, layer: str) -> Protocol[Shared]:
        """Rows over their root mean square."""
        plan = self.model.embedding_norm
        assert plan is not None
        return (yield from self._norm(_rows(x), plan, layer, "norm", x.shape))

    def attention(self, h: Shared, layer: str) -> Protocol[Shared]:
        """QKV and its truncation (3 rounds), then ``softmax.attention``."""
        shares = self.model.layers[layer]
        b, n, width = h.shape
        place = Place(self.runtime, layer, "qkv")
        bias = yield from self._bias(layer, "qkv")
        z = yield from self._timed(place, shares.qkv.apply(place, bias, _rows(h)))
        self.checks.product(place.label, z)
        qk, v = yield from self._timed(
            place,
            together(
                [
                    truncate(place, z[:, : 2 * width], z.scale - shares.query_key_scale),
                    truncate(place, z[:, 2 * width :], z.scale - shares.value_scale),
                ]
            ),
        )
        q, k = (self._heads(qk[:, i * width : (i + 1) * width], b, n) for i in (0, 1))
        place = Place(self.runtime, layer, "softmax")
        softmax = shares.softmax(n, self.mask is not None)
        context = yield from self._timed(
            place, attention(place, q, k, self._heads(v, b, n), softmax, self.checks, self.mask)
        )
        return context.map(lambda t: t.transpose(1, 2).reshape(b, n, width))

    def residual_norm(self, a: Shared, h: Shared, layer: str, which: str) -> Protocol[Shared]:
        """One product, then the norm."""
        shares = self.model.layers[layer]
        first = which == ATTENTION_OUT
        linear, plan = (shares.out, shares.attention_norm) if first else (shares.down, shares.ffn_norm)
        place = Place(self.runtime, layer, which)
        bias = yield from self._bias(layer, "out" if first else "down")
        z = yield from self._timed(place, linear.apply(place, bias, _rows(a), _rows(h)))
        return (yield from self._norm(z, plan, layer, which, h.shape))

    def linear_activation(self, h: Shared, layer: str) -> Protocol[Shared]:
        """One product, then the activation, which takes the truncation's place."""
        shares = self.model.layers[layer]
        b, n, _ = h.shape
        place = Place(self.runtime, layer, "activation")
        bias = yield from self._bias(layer, "up")
        z = yield from self._timed(place, shares.up.apply(place, bias, _rows(h)))
        f = shares.activation
        m = f.t + f.n
        self.checks.symmetric(place.label, z, m, f.low_units + (1 << (m - 1)))
        y = yield from self._timed(place, activate(place, z, f))
        return y.map(lambda t: t.reshape(b, n, -1))

    def gain(self, h: Shared, layer: str) -> Protocol[Shared]:
        """1 round."""
        return (yield from self._gain(h, self.model.hidden_bias, layer))

    def pool(self, h: Shared, layer: str) -> Protocol[Shared]:
        """One product, a truncation, the gain; and the L2 norm if there is one."""
        assert self.pooling is not None
        place = Place(self.runtime, layer, "pool")
        z = yield from matmul(place, self.pooling, h)
        flat = z.map(lambda t: t[:, 0, :])
        self.checks.product(place.label, flat)
        pooled = yield from truncate(place, flat, flat.scale - self.model.pooled_scale)
        out = yield from self._gain(pooled, self.model.pooled_bias, layer)
        plan = self.model.pool
        if plan is None:
            return out
        return (yield from self._norm(out, plan, layer, "l2 norm", out.shape))

    # ---------------------------------------------------------------------------------------------------

    def _bias(self, layer: str, name: str) -> Protocol[Shared]:
        """A layer's bias at its product's scale. 2 rounds at the first, for all; none later."""
        if not self._biases:
            where = [(at, key) for at, shares in self.model.layers.items() for key in shares.linears]
            stored = [self.model.layers[at].linears[key].stored_bias for at, key in where]
            joined = Shared(torch.cat([s.own for s in stored]), torch.cat([s.next for s in stored]), 0)
            halved = yield from truncate(Place(self.runtime, "model", "bias"), joined, 1)
            own, following = (
                piece.split([len(s.own) for s in stored]) for piece in (halved.own, halved.next)
            )
            for i, key in enumerate(where):
                self._biases[key] = Shared(own[i], following[i], stored[i].scale - 1)
        return self._biases[layer, name]

    def _gain(self, x: Shared, bias: Shared, layer: str) -> Protocol[Shared]:
        """x·gain + bias: the product raised by one bit, to the stored bias's scale."""
        z = yield from multiply(Place(self.runtime, layer, "gain"), x, self.model.gain)
        z = z.rescaled(1)
        check_scale(bias.scale, z.scale, "gain bias")
        return Shared(z.own + bias.own, z.next + bias.next, z.scale)

    def _norm(
        self, z: Shared, plan: RowNorm, layer: str, function: str, shape: torch.Size
    ) -> Protocol[Shared]:
        place = Place(self.runtime, layer, function)
        y = yield from self._timed(place, normalise(place, z, plan, self.checks))
        return y.map(lambda t: t.reshape(shape))

    def _timed(self, place: Place, protocol: Protocol[T]) -> Protocol[T]:
        return self.runtime.timed(place.function, protocol, place.layer)

    def _heads(self, x: Shared, b: int, n: int) -> Shared:
        """(b·n, h) → (b, heads, n, d)."""
        return x.map(lambda t: t.reshape(b, n, self.model.heads, -1).transpose(1, 2))


def _rows(x: Shared) -> Shared:
    """(b, n, h) → (b·n, h)."""
    return x.map(lambda t: t.reshape(-1, t.shape[-1]))
