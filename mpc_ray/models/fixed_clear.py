"""The exported model in fixed point, in the clear: scales, tables, truncations and wrap-around of the protocol.

What differs from float here is the approximation; what differs between this and the parties' answer is their
roundings alone, or else a defect of the protocol. Written from the formulas of docs/protocols.md over plain int64
tensors, with none of the protocol's own code. Owners run it; nothing in it is secret from them, so its masks need no
cryptography.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from mpc_ray.functions.plan import EXP_SCALE, FACTOR_BITS, NormPlan, SoftmaxPlan, exp_plan
from mpc_ray.functions.spline import Spline
from mpc_ray.models import bert
from mpc_ray.models.plan import CONTEXT_SCALE, POOLED_SCALE, QUERY_KEY_SCALE, EncoderPlan, LayerPlan
from mpc_ray.protocols.blocks import ATTENTION_OUT
from mpc_ray.protocols.runtime import Protocol
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.parcel import Secret

Masks = Callable[[tuple[int, ...]], torch.Tensor]  # int64 of a shape: the r of an opening


@dataclass(frozen=True)
class Fixed:
    """int64 ring elements at ``scale``."""

    value: torch.Tensor
    scale: int


def fixed(secret: Secret) -> Fixed:
    """What a party would hold shares of, as it is."""
    return Fixed(torch.from_numpy(secret.value), secret.scale)


def random_masks(seed: int) -> Masks:
    """Uniform masks, so that roundings fall as they do under the protocol. ``floor_masks`` rounds down everywhere."""
    rng = np.random.default_rng(seed)
    return lambda shape: torch.from_numpy(rng.integers(-(2**63), 2**63, shape, dtype=np.int64))


def floor_masks(shape: tuple[int, ...]) -> torch.Tensor:
    """Masks of zero: every truncation and every index is rounded down, every run is the same."""
    return torch.zeros(shape, dtype=torch.int64)


@dataclass(frozen=True, eq=False)
class FixedBlocks:
    """The block operations over ``Fixed``; 0 rounds.

    ``secrets`` as in ``Export``, ``mask`` and ``pooling`` as the client shares them.
    """

    plan: EncoderPlan
    secrets: Mapping[str, Secret]
    mask: Secret | None = None
    pooling: Secret | None = None
    masks: Masks = floor_masks

    def normalise(self, x: Fixed, layer: str) -> Protocol[Fixed]:
        assert self.plan.embedding_norm is not None
        return self._rows(x, self.plan.embedding_norm)
        yield

    def attention(self, h: Fixed, layer: str) -> Protocol[Fixed]:
        index, plan = self._layer(layer)
        _, n, width = h.value.shape
        z = self._linear(h.value, f"{layer}/qkv", plan.qkv_scale)
        query_key = self._truncate(Fixed(z.value[..., : 2 * width], z.scale), QUERY_KEY_SCALE)
        values = self._truncate(Fixed(z.value[..., 2 * width :], z.scale), plan.value_scale)
        q, k = (self._heads(query_key.value[..., i * width : (i + 1) * width]) for i in (0, 1))
        v = self._heads(values.value)
        softmax = self.plan.softmax(index, n, self.mask is not None)
        parts = [self._head(q[:, i], k[:, i], v[:, i], softmax, i) for i in range(self.plan.heads)]
        return Fixed(torch.cat(parts, -1), softmax.scale)
        yield

    def residual_norm(self, a: Fixed, h: Fixed, layer: str, which: str) -> Protocol[Fixed]:
        _, plan = self._layer(layer)
        first = which == ATTENTION_OUT
        name, scale, norm = (
            ("out", plan.out_scale, plan.attention_norm)
            if first
            else ("down", plan.down_scale, plan.ffn_norm)
        )
        return self._rows(self._linear(torch.cat([a.value, h.value], -1), f"{layer}/{name}", scale), norm)
        yield

    def linear_activation(self, h: Fixed, layer: str) -> Protocol[Fixed]:
        _, plan = self._layer(layer)
        z = self._linear(h.value, f"{layer}/up", plan.up_scale)
        return Fixed(self._spline(z, plan.activation), plan.activation.scale)
        yield

    def gain(self, h: Fixed, layer: str) -> Protocol[Fixed]:
        return self._gain(h, "head/hidden bias")
        yield

    def pool(self, h: Fixed, layer: str) -> Protocol[Fixed]:
        assert self.pooling is not None
        weights = fixed(self.pooling)
        z = Fixed(2 * (weights.value @ h.value)[:, 0], weights.scale + h.scale + 1)
        out = self._gain(self._truncate(z, POOLED_SCALE), "head/pooled bias")
        return out if self.plan.pool is None else self._rows(out, self.plan.pool)
        yield

    # ---------------------------------------------------------------------------------------------------

    def _layer(self, layer: str) -> tuple[int, LayerPlan]:
        index = bert.layer_index(layer)
        return index, self.plan.layers[index]

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        """(b, n, h) → (b, heads, n, d)."""
        b, n, _ = x.shape
        return x.reshape(b, n, self.plan.heads, -1).transpose(1, 2)

    def _linear(self, x: torch.Tensor, name: str, scale: int) -> Fixed:
        """A doubled product and its bias."""
        bias = fixed(self.secrets[f"{name} bias"])
        check_scale(bias.scale, scale, name)
        return Fixed(2 * (x @ fixed(self.secrets[name]).value) + bias.value, scale)

    def _gain(self, x: Fixed, bias: str) -> Fixed:
        weight, added = fixed(self.secrets["head/gain"]), fixed(self.secrets[bias])
        check_scale(added.scale, x.scale + weight.scale + 1, bias)
        return Fixed(2 * x.value * weight.value + added.value, added.scale)

    def _truncate(self, z: Fixed, scale: int) -> Fixed:
        """⌊(z + r mod 2^f) / 2^f⌋: rounded down, or up with the probability of the fraction dropped."""
        f = z.scale - scale
        low = self.masks(tuple(z.value.shape)) & ((1 << f) - 1)
        return Fixed((z.value + low) >> f, scale)

    def _rows(self, z: Fixed, plan: NormPlan) -> Fixed:
        """Rows times the spline of their sum of squares."""
        c = self._truncate(z, plan.centre_scale).value
        total = Fixed((c * c).sum(-1), 2 * plan.centre_scale)
        return Fixed(c * self._spline(total, plan.rsqrt).unsqueeze(-1), plan.scale)

    def _spline(self, x: Fixed, spline: Spline) -> torch.Tensor:
        """Σ_k T_k[j]·v^k with j and v from the difference of c = x - low + r and r."""
        window = spline.window
        check_scale(x.scale, window.scale, "argument of a spline")
        r = self.masks(tuple(x.value.shape))
        c = x.value - window.low_units + r
        j = ((c >> window.t) - (r >> window.t)) & ((1 << window.n) - 1)
        v = _fraction(c, window.t, spline.fraction) - _fraction(r, window.t, spline.fraction)
        total = torch.zeros_like(v)
        for table in reversed(spline.tables):
            total = total * v + table[j]
        return total

    def _head(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, plan: SoftmaxPlan, head: int
    ) -> torch.Tensor:
        """Attention of one head: q, k, v (b, n, d) → (b, n, d) at plan.scale."""
        scores = 2 * (q @ k.transpose(-1, -2)) - round(plan.low[head] * 2**plan.score_scale)
        if self.mask is not None:
            check_scale(self.mask.scale, plan.score_scale, "mask")
            scores = scores + fixed(self.mask).value.unsqueeze(1)
        e = self._exp_below_maximum(scores, plan, plan.buckets[head])
        inverse = self._spline(Fixed(e.sum(-1), EXP_SCALE), plan.reciprocal)
        context = self._truncate(Fixed(2 * (e @ v), EXP_SCALE + plan.value_scale + 1), plan.context_scale)
        check_scale(plan.scale, CONTEXT_SCALE, "context")
        return context.value * inverse.unsqueeze(-1)

    def _exp_below_maximum(self, scores: torch.Tensor, plan: SoftmaxPlan, buckets: int) -> torch.Tensor:
        """e^(s - m) at EXP_SCALE, m the lower edge of the row's highest bucket; both indices from one mask."""
        exp = exp_plan(buckets, plan.bucket_log)
        bucket_bit, cell_bit = plan.score_scale + plan.bucket_log, plan.score_scale + exp.cell_log
        r = self.masks(tuple(scores.shape))
        c = scores + r
        bucket = ((c >> bucket_bit) - (r >> bucket_bit)) & (buckets - 1)
        c = c - (bucket.amax(-1, keepdim=True) << bucket_bit)
        fine = min(bucket_bit, cell_bit)
        eta = (self.masks((*scores.shape[:-1], 1)) & 0xFF) << fine
        c, r = c + eta, r + eta
        j = ((c >> cell_bit) - (r >> cell_bit)) & ((1 << exp.bits) - 1)
        public = exp.public_factor[_fraction(c, cell_bit, FACTOR_BITS)]
        dealer = exp.dealer_factor[_fraction(r, cell_bit, FACTOR_BITS)]
        return exp.table[0][j] * public * dealer


def _fraction(value: torch.Tensor, t: int, b: int) -> torch.Tensor:
    """The b bits below bit t."""
    low = value & ((1 << t) - 1)
    return low >> (t - b) if t >= b else low << (b - t)
