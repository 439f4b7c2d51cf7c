"""The block operations of semi_honest_3pc: 21 rounds a layer.

Rows are cut into thirds, one for each assignment of roles, so that work and bytes even out; a row never changes its
dealer inside a block. All thirds, and all groups of heads, share their rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch

from mpc_ray.functions.plan import NormPlan, SoftmaxPlan
from mpc_ray.functions.spline import Spline
from mpc_ray.protocols.blocks import ATTENTION_OUT
from mpc_ray.protocols.runtime import Protocol, Runtime, together
from mpc_ray.protocols.semi_honest.elementary import evaluate
from mpc_ray.protocols.semi_honest.norm import normalise, scaled_rows
from mpc_ray.protocols.semi_honest.product import (
    AnyVector,
    Factor,
    Linear,
    PublicLinear,
    add,
    factor,
    matmul,
    multiply,
)
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.softmax import Group, attention
from mpc_ray.protocols.semi_honest.thirds import Halves, Thirds, cut, thirds_of
from mpc_ray.protocols.semi_honest.truncate import truncate
from mpc_ray.sharing.replicated import Shared, Summand, concatenate

_Block = Callable[[Role, Summand | Halves, RangeChecks], Protocol[Shared]]
AnyLinear = Linear | PublicLinear


@dataclass(frozen=True)
class LayerShares:
    """One layer at one party: its weights, and the public plan of its functions."""

    qkv: AnyLinear
    out: AnyLinear
    up: AnyLinear
    down: AnyLinear
    query_key_scale: int
    value_scale: int
    softmax: Callable[[int, bool], SoftmaxPlan]
    attention_norm: NormPlan
    activation: Spline
    ffn_norm: NormPlan


@dataclass(frozen=True)
class ModelShares:
    """One party's part of a model, or the whole of one whose weights are public. ``gain`` and the two biases (at two
    scales): of the last norm, for the output."""

    heads: int
    embedding_norm: NormPlan | None
    layers: Mapping[str, LayerShares]
    gain: AnyVector
    hidden_bias: AnyVector
    pooled_bias: AnyVector
    pooled_scale: int
    pool: NormPlan | None


@dataclass
class SemiHonestBlocks:
    """The blocks of one job at one party. ``mask`` (b, n) and ``pooling`` (b, 1, n) are the client's shares.

    ``few_rounds``: softmax with one round less and more bytes, as ``fewest_rounds`` wants it.
    """

    runtime: Runtime
    model: ModelShares
    checks: RangeChecks
    mask: Shared | None = None
    pooling: Shared | None = None
    few_rounds: bool = False

    def normalise(self, x: Shared, layer: str) -> Protocol[Shared]:
        """4 rounds."""
        plan = self.model.embedding_norm
        assert plan is not None
        b, n, h = x.shape
        z = Summand(x.own.reshape(b * n, h), x.scale)
        return reshaped((yield from self._norm(cut(z), plan, layer, "norm")), (b, n, h))

    def attention(self, h: Shared, layer: str) -> Protocol[Shared]:
        """10 rounds: QKV and its truncation (2), then softmax and the product with V (8)."""
        shares = self.model.layers[layer]
        b, n, width = h.shape
        with self.runtime.working("qkv", layer):
            z = shares.qkv.thirds(rows_of(h))
        first, last = slice(0, 2 * width), slice(2 * width, 3 * width)
        qk = self.thirds(z.columns(first), layer, "qkv", truncated(shares.query_key_scale))
        v = self.thirds(z.columns(last), layer, "qkv", truncated(shares.value_scale))
        qk_shared, v_shared = yield from together([qk, v])
        q, k = (self.heads(qk_shared[:, i * width : (i + 1) * width], b, n) for i in (0, 1))
        values = self.heads(v_shared, b, n)
        plan = shares.softmax(n, self.mask is not None)
        return (yield from self.softmaxes(layer, plan, q, k, lambda: values))

    def softmaxes(
        self, layer: str, plan: SoftmaxPlan, q: Shared, k: Shared, v: Callable[[], Shared]
    ) -> Protocol[Shared]:
        """softmax(q·kᵀ)·v of all heads, each (b, heads, n, d), to (b, n, h). 8 rounds, 7 with ``few_rounds``."""
        with self.runtime.working("softmax", layer):
            groups = [self.group(plan, heads, k, v) for heads in by_buckets(plan)]
        parts = yield from together(
            [
                self.runtime.timed(
                    "softmax",
                    self.query_block(layer, plan, q[:, :, rows], groups, third),
                    layer,
                    self._deals(third),
                )
                for third, rows in thirds_of(q.shape[2])
            ]
        )
        return concatenate(parts, 1)

    def residual_norm(self, a: Shared, h: Shared, layer: str, which: str) -> Protocol[Shared]:
        """4 rounds."""
        shares = self.model.layers[layer]
        linear, plan = (
            (shares.out, shares.attention_norm) if which == ATTENTION_OUT else (shares.down, shares.ffn_norm)
        )
        b, n, width = h.shape
        with self.runtime.working(which, layer):
            z = linear.thirds(rows_of(a), rows_of(h))
        return reshaped((yield from self._norm(z, plan, layer, which)), (b, n, width))

    def linear_activation(self, h: Shared, layer: str) -> Protocol[Shared]:
        """3 rounds: the activation takes the place of the truncation."""
        shares = self.model.layers[layer]
        b, n, _ = h.shape
        with self.runtime.working("activation", layer):
            z = shares.up.thirds(rows_of(h))
        y = yield from self.thirds(
            z, layer, "activation", lambda r, s, checks: evaluate(r, s, shares.activation, checks)
        )
        return reshaped(y, (b, n, -1))

    def gain(self, h: Shared, layer: str) -> Protocol[Summand]:
        """0 rounds: the result goes to the client as it is."""
        return self._gain(h, self.model.hidden_bias)
        yield

    def pool(self, h: Shared, layer: str) -> Protocol[Summand]:
        """2 rounds, and 3 more with the L2 norm. The result is a summand for the client."""
        assert self.pooling is not None
        z = matmul(self.runtime.me, self.pooling, factor(self.runtime.me, h))
        flat = Summand(z.value[:, 0, :], z.scale)
        pooled = yield from self.thirds(cut(flat), layer, "pool", truncated(self.model.pooled_scale))
        out = self._gain(pooled, self.model.pooled_bias)
        plan = self.model.pool
        if plan is None:
            return out
        parts = []
        for third, rows in thirds_of(out.shape[0]):
            checks = self.checks.chunk(rows.start, out.shape[0])
            parts.append(self._unit(Role(self.runtime, third, layer, "l2 norm"), out[rows], plan, checks))
        return Summand(torch.cat((yield from together(parts)), 0), plan.scale)

    # ---------------------------------------------------------------------------------------------------

    def _gain(self, x: Shared, bias: AnyVector) -> Summand:
        me = self.runtime.me
        return add(me, multiply(me, x, self.model.gain), bias)

    def thirds(self, z: Thirds, layer: str, function: str, block: _Block) -> Protocol[Shared]:
        """``block`` on each third of the rows of z, which are in the order of the texts."""
        parts = []
        for k, rows, part in z:
            checks = self.checks.chunk(rows.start, z.rows)
            done = block(Role(self.runtime, k, layer, function), part, checks)
            parts.append(self.runtime.timed(function, done, layer, self._deals(k)))
        return concatenate((yield from together(parts)), 0)

    def _deals(self, third: int) -> bool:
        return self.runtime.me == (third + 2) % 3

    def _norm(self, z: Thirds, plan: NormPlan, layer: str, function: str) -> Protocol[Shared]:
        return (
            yield from self.thirds(z, layer, function, lambda r, s, checks: normalise(r, s, plan, checks))
        )

    def _unit(self, role: Role, z: Summand, plan: NormPlan, checks: RangeChecks) -> Protocol[torch.Tensor]:
        scaled = yield from scaled_rows(role, z, plan, checks)
        share = scaled.share()
        return torch.zeros_like(z.value) if share is None else share

    def heads(self, x: Shared, b: int, n: int) -> Shared:
        """(b·n, h) → (b, heads, n, d)."""
        return x.map(lambda t: t.reshape(b, n, self.model.heads, -1).transpose(1, 2))

    def group(self, plan: SoftmaxPlan, heads: list[int], k: Shared, v: Callable[[], Shared]) -> HeadGroup:
        """Keys and values of heads with equal windows, combined once for all query rows; (b·heads, …)."""
        me, b = self.runtime.me, k.shape[0]
        units = [round(plan.low[i] * 2**plan.score_scale) for i in heads]
        low = torch.tensor(units, dtype=torch.int64, device=k.own.device)
        mask = None
        if self.mask is not None:
            own = self.mask.rescaled(plan.score_scale - self.mask.scale).own
            mask = own.unsqueeze(1).expand(b, len(heads), -1).reshape(b * len(heads), 1, -1)
        return HeadGroup(
            heads,
            Group(low.repeat(b), plan.buckets[heads[0]], plan),
            factor(me, _picked(k, heads).map(lambda t: t.transpose(-1, -2))),
            cache(lambda: factor(me, _picked(v(), heads))),
            mask,
        )

    def query_block(
        self, layer: str, plan: SoftmaxPlan, q: Shared, groups: list[HeadGroup], third: int
    ) -> Protocol[Shared]:
        """All heads for one third of the query rows, q (b, heads, rows, d) → (b, rows, h)."""
        b, heads, count, d = q.shape
        parts = yield from together(
            [
                attention(
                    Role(self.runtime, third, layer, "softmax"),
                    _picked(q, g.heads),
                    g.keys,
                    g.values,
                    g.group,
                    self.checks.chunk(0, b * len(g.heads)),
                    g.mask,
                    few_rounds=self.few_rounds,
                )
                for g in groups
            ]
        )
        order = torch.tensor([i for g in groups for i in g.heads], device=q.own.device).argsort()
        joined = concatenate([reshaped(p, (b, -1, count, d)) for p in parts], 1)
        return joined.map(lambda t: t[:, order].transpose(1, 2).reshape(b, count, heads * d))


@dataclass(frozen=True)
class HeadGroup:
    heads: list[int]
    group: Group
    keys: Factor
    values: Callable[[], Factor]
    mask: torch.Tensor | None


def truncated(scale: int) -> _Block:
    return lambda role, z, checks: truncate(role, z, z.scale - scale, checks)


def by_buckets(plan: SoftmaxPlan) -> list[list[int]]:
    """Heads with equal numbers of buckets, smallest first."""
    return [[i for i, n in enumerate(plan.buckets) if n == size] for size in sorted(set(plan.buckets))]


def _picked(x: Shared, heads: list[int]) -> Shared:
    """(b, heads, n, d) → (b·chosen, n, d)."""
    return x.map(lambda t: t[:, heads].flatten(0, 1))


def rows_of(x: Shared) -> Shared:
    """(b, n, h) → (b·n, h)."""
    return x.map(lambda t: t.reshape(-1, t.shape[-1]))


def reshaped(x: Shared, shape: tuple[int, ...]) -> Shared:
    return x.map(lambda t: t.reshape(shape))
