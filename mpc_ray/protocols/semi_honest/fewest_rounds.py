"""The block operations of semi_honest_3pc with the fewest rounds: 17 a layer in place of 21, for more bytes.

Three things differ from ``blocks``:
- a norm's result is not waited for: the product with the weights that follow runs on the rows before normalisation,
  and 1/√ is multiplied onto it (``half_norm``): queries and keys are there 2 rounds earlier, the activation 1;
- queries and keys are reshared at scale 25 as they come, without a truncation of their own; values take the old way,
  for which there is time until the softmax asks for them;
- a softmax row's reference is opened under the dealer's mask instead of going through the dealer: 1 round.

So what passes from block to block is ``Rows``: rows whose normalisation is half done. Weights, plan and shares are the
same as for ``blocks``; a model is imported once for both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mpc_ray.functions.plan import NormPlan
from mpc_ray.protocols.blocks import ATTENTION_OUT
from mpc_ray.protocols.runtime import Protocol, together
from mpc_ray.protocols.semi_honest.blocks import (
    SemiHonestBlocks,
    reshaped,
    rows_of,
    truncated,
)
from mpc_ray.protocols.semi_honest.elementary import evaluate
from mpc_ray.protocols.semi_honest.half_norm import COARSER, HalfNorm, half_norm
from mpc_ray.protocols.semi_honest.open import reshare
from mpc_ray.protocols.semi_honest.product import AnyVector, PublicVector
from mpc_ray.protocols.semi_honest.range_check import RangeChecks
from mpc_ray.protocols.semi_honest.role import Role
from mpc_ray.protocols.semi_honest.select import two_of_two
from mpc_ray.protocols.semi_honest.thirds import Halves, Thirds, cut
from mpc_ray.protocols.semi_honest.truncate import Truncation
from mpc_ray.sharing.fixed import check_scale
from mpc_ray.sharing.replicated import Shared, Summand, concatenate

QUERY_KEY_SCALE = 25  # scores at 51: windows of up to 2^9 units and 4 times as much fit the ring


@dataclass(eq=False)
class Rows:
    """Normalised rows (b, n, h) to be: ``halves`` are the thirds of the b·n rows; ``shared`` is there once finished,
    and ``heard`` is told of it.
    """

    shape: tuple[int, int, int]
    halves: list[tuple[slice, HalfNorm]]
    shared: Shared | None = None
    heard: Callable[[Shared], None] | None = None

    @property
    def before(self) -> Shared:
        """⟨rows⟩ (b·n, h) before normalisation."""
        return concatenate([half.z for _, half in self.halves])

    def finished(self, shared: Shared) -> Shared:
        """The rows are there."""
        self.shared = shared
        if self.heard is not None:
            self.heard(shared)
        return shared


@dataclass
class FewestRoundsBlocks:
    """As ``SemiHonestBlocks``, around it; see the module. ``base`` has ``few_rounds`` set."""

    base: SemiHonestBlocks

    def normalise(self, x: Shared, layer: str) -> Protocol[Rows]:
        """2 rounds, and 2 more that go along with what follows."""
        plan = self.base.model.embedding_norm
        assert plan is not None
        z = Summand(rows_of(x).own, x.scale)
        shape = (x.shape[0], x.shape[1], x.shape[2])
        return (yield from self._half(cut(z), shape, plan, layer, "norm"))

    def attention(self, h: Rows | Shared, layer: str) -> Protocol[Shared]:
        """9 rounds: queries and keys (2), then softmax and the product with V (7); the same for normalised input."""
        if isinstance(h, Shared):
            return (yield from self.base.attention(h, layer))
        values: list[Shared] = []
        wide = self.base.model.layers[layer].softmax(h.shape[1], self.base.mask is not None)
        plan = replace(wide, score_scale=2 * QUERY_KEY_SCALE + 1)

        def queries_and_keys() -> Protocol[Shared]:
            q, k = yield from self._queries_and_keys(h, layer)
            return (yield from self.base.softmaxes(layer, plan, q, k, lambda: values[0]))

        def rows_and_values() -> Protocol[Shared]:
            y = yield from self._finished(h, layer, coarse=True)
            values.append((yield from self._values(y, layer)))
            return values[0]

        _, context = yield from together([rows_and_values(), queries_and_keys()])
        h.halves.clear()
        return context

    def residual_norm(self, a: Shared, h: Rows | Shared, layer: str, which: str) -> Protocol[Rows]:
        """2 rounds, and 2 more that go along with what follows."""
        shares = self.base.model.layers[layer]
        linear, plan = (
            (shares.out, shares.attention_norm) if which == ATTENTION_OUT else (shares.down, shares.ffn_norm)
        )
        y = h if isinstance(h, Shared) else h.shared
        assert y is not None, "rows are finished beside the block that reads them first"
        z = linear.thirds(rows_of(a), rows_of(y))
        return (yield from self._half(z, (y.shape[0], y.shape[1], y.shape[2]), plan, layer, which))

    def linear_activation(self, h: Rows, layer: str) -> Protocol[Shared]:
        """4 rounds: the product, times 1/√; open; multiply; reshare."""
        up = self.base.model.layers[layer].up
        u = up.product(h.before)
        chunks = []
        for (k, rows, part), (_, half) in zip(u, h.halves, strict=True):
            role, checks = Role(self.base.runtime, k, layer, "activation"), self._checks(rows, u.rows)
            done = self._activation(role, half, part, layer, checks)
            chunks.append(self.base.runtime.timed("activation", done, layer))

        def activations() -> Protocol[Shared]:
            return concatenate((yield from together(chunks)))

        _, y = yield from together([self._finished(h, layer), activations()])
        b, n, _ = h.shape
        h.halves.clear()  # a job's rows may be kept longer than what they came from
        return reshaped(y, (b, n, -1))

    def gain(self, h: Rows | Shared, layer: str) -> Protocol[Summand]:
        """2 rounds: the rows' own last two."""
        y = h if isinstance(h, Shared) else (yield from self._finished(h, layer))
        return (yield from self.base.gain(y, layer))

    def pool(self, h: Rows | Shared, layer: str) -> Protocol[Summand]:
        """As ``SemiHonestBlocks.pool``, and before it the rows' own last two rounds."""
        y = h if isinstance(h, Shared) else (yield from self._finished(h, layer))
        return (yield from self.base.pool(y, layer))

    # ---------------------------------------------------------------------------------------------------

    def _half(
        self, z: Thirds, shape: tuple[int, int, int], plan: NormPlan, layer: str, function: str
    ) -> Protocol[Rows]:
        chunks = []
        for k, rows, part in z:
            role, checks = Role(self.base.runtime, k, layer, function), self._checks(rows, z.rows)
            done = half_norm(role, part, plan, checks)
            chunks.append(self.base.runtime.timed(function, done, layer))
        halves = yield from together(chunks)
        return Rows(shape, [(rows, half) for (_, rows, _), half in zip(z, halves, strict=True)])

    def _finished(self, h: Rows, layer: str, coarse: bool = False) -> Protocol[Shared]:
        """The normalised rows. 2 rounds; every half's factors are begun in the first, before whatever follows in it."""
        timed = self.base.runtime.timed
        chunks = [timed(half.role.function, half.finish(coarse), half.role.layer) for _, half in h.halves]
        return h.finished(reshaped(concatenate((yield from together(chunks))), h.shape))

    def _queries_and_keys(self, h: Rows, layer: str) -> Protocol[tuple[Shared, Shared]]:
        """(b, heads, n, d) each, at QUERY_KEY_SCALE. 2 rounds."""
        linear = self.base.model.layers[layer].qkv
        b, n, width = h.shape
        u = linear.product(h.before).columns(slice(0, 2 * width))
        chunks = []
        for (third, rows, part), (_, half) in zip(u, h.halves, strict=True):
            role, checks = Role(self.base.runtime, third, layer, "qkv"), self._checks(rows, u.rows)
            done = _scaled_and_shared(role, half, part, linear.bias, checks)
            chunks.append(self.base.runtime.timed("qkv", done, layer))
        both = concatenate((yield from together(chunks)))
        q, k = (self.base.heads(both[:, i * width : (i + 1) * width], b, n) for i in (0, 1))
        return q, k

    def _values(self, y: Shared, layer: str) -> Protocol[Shared]:
        """(b, heads, n, d) at the plan's scale. 2 rounds."""
        shares = self.base.model.layers[layer]
        b, n, width = y.shape
        z = shares.qkv.thirds(rows_of(y)).columns(slice(2 * width, 3 * width))
        return self.base.heads(
            (yield from self.base.thirds(z, layer, "qkv", truncated(shares.value_scale))), b, n
        )

    def _activation(
        self, role: Role, half: HalfNorm, u: Summand | Halves, layer: str, checks: RangeChecks
    ) -> Protocol[Shared]:
        shares = self.base.model.layers[layer]
        assert half.fine is not None
        x = yield from half.scaled(role, u, 0, half.fine, checks)
        scale = u.scale + half.plan.rsqrt.scale
        check_scale(scale, shares.up.bias.scale, f"{role.label}: argument")
        if x is not None:
            x += half_of(role, shares.up.bias)
        return (yield from evaluate(role, Halves(x, u.shape, scale), shares.activation, checks))

    def _checks(self, rows: slice, total: int) -> RangeChecks:
        return self.base.checks.chunk(rows.start, total)


def _scaled_and_shared(
    role: Role, half: HalfNorm, u: Summand | Halves, bias: AnyVector, checks: RangeChecks
) -> Protocol[Shared]:
    """⟨φ_i·u_i + bias⟩ at QUERY_KEY_SCALE, with the first entries of ``bias``. 2 rounds; φ is ``half.coarse``, and a
    secret bias is truncated beside it.
    """
    assert half.coarse is not None
    at, shift = QUERY_KEY_SCALE - (half.plan.rsqrt.scale - COARSER), None
    if isinstance(bias, Shared):
        own = bias.own[: u.shape[1]]
        shift = Truncation(role, Summand(own, bias.scale), bias.scale - QUERY_KEY_SCALE).deal_shares()
    y = yield from half.scaled(role, u, u.scale - at, half.coarse, checks)
    if y is not None:
        added = _bias(role, bias, u.shape[1]) if shift is None else shift.shares()
        assert added is not None
        y += added
    return (yield from reshare(role, y, u.shape, QUERY_KEY_SCALE))


def _bias(role: Role, bias: AnyVector, width: int) -> torch.Tensor:
    """A public bias at QUERY_KEY_SCALE, rounded, at E0; zeros at E1."""
    assert isinstance(bias, PublicVector)
    bits = bias.scale - QUERY_KEY_SCALE
    value = (bias.value[:width] + (1 << bits >> 1)) >> bits
    return value if role.is_e0 else torch.zeros_like(value)


def half_of(role: Role, x: AnyVector) -> torch.Tensor:
    """A vector 2-of-2, local; a public one is E0's."""
    if isinstance(x, Shared):
        return two_of_two(role, x)
    return x.value if role.is_e0 else torch.zeros_like(x.value)
