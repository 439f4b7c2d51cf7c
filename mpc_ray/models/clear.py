"""The folded model in float64: the reference that shows what folding, padding and the order of blocks do alone.

The same generator that runs on shares (``bert.encode``) runs here over plain tensors, so a difference from
``bert_float`` can only come from the folding. It differs from it by rounding of float64 alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from mpc_ray.models import bert
from mpc_ray.models.bert_float import activate
from mpc_ray.models.fold import Folded, FoldedLayer
from mpc_ray.models.inputs import padded
from mpc_ray.models.weights import BertConfig, BertModel
from mpc_ray.protocols.blocks import ATTENTION_OUT
from mpc_ray.protocols.runtime import Protocol

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class FloatInput:
    """A padded batch in the clear. ``x`` (b, n, h), its rows centred where the model has an embedding norm.

    ``real`` (b, n) is true at real tokens; ``pooling`` (b, 1, n) or None.
    """

    x: torch.Tensor
    real: torch.Tensor
    pooling: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class FloatBlocks:
    """The block operations over float64 tensors; 0 rounds. Keys that are not ``real`` weigh nothing."""

    folded: Folded
    config: BertConfig
    normalize: bool = False
    real: torch.Tensor | None = None
    pooling: torch.Tensor | None = None

    def normalise(self, x: torch.Tensor, layer: str) -> Protocol[torch.Tensor]:
        return self._norm(x)
        yield

    def attention(self, h: torch.Tensor, layer: str) -> Protocol[torch.Tensor]:
        w = self._layer(layer)
        b, n, width = h.shape
        product = h @ torch.from_numpy(w.qkv) + torch.from_numpy(w.qkv_bias)
        q, k, v = product.reshape(b, n, 3, self.config.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-1, -2)
        if self.real is not None:
            scores = scores.masked_fill(~self.real[:, None, None, :], -torch.inf)
        return (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(b, n, width)
        yield

    def residual_norm(
        self, a: torch.Tensor, h: torch.Tensor, layer: str, which: str
    ) -> Protocol[torch.Tensor]:
        w = self._layer(layer)
        weight, bias = (w.out, w.out_bias) if which == ATTENTION_OUT else (w.down, w.down_bias)
        return self._norm(torch.cat([a, h], -1) @ torch.from_numpy(weight) + torch.from_numpy(bias))
        yield

    def linear_activation(self, h: torch.Tensor, layer: str) -> Protocol[torch.Tensor]:
        w = self._layer(layer)
        return activate(self.config.activation, h @ torch.from_numpy(w.up) + torch.from_numpy(w.up_bias))
        yield

    def gain(self, h: torch.Tensor, layer: str) -> Protocol[torch.Tensor]:
        return h * torch.from_numpy(self.folded.gain) + torch.from_numpy(self.folded.bias)
        yield

    def pool(self, h: torch.Tensor, layer: str) -> Protocol[torch.Tensor]:
        assert self.pooling is not None
        pooled = yield from self.gain((self.pooling @ h)[:, 0], layer)
        return pooled / torch.linalg.vector_norm(pooled, dim=-1, keepdim=True) if self.normalize else pooled

    def _layer(self, layer: str) -> FoldedLayer:
        return self.folded.layers[bert.layer_index(layer)]

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.config.eps)


def float_input(model: BertModel, rows: Sequence[Sequence[int]], length: int) -> FloatInput:
    """Token ids of a batch, padded to ``length`` as the client pads them (``inputs``), before any encoding."""
    given = padded(model.embeddings, model.pooling, rows, length)
    x, real, pooling = (torch.from_numpy(array) for array in (given.x, given.real, given.pooling))
    return FloatInput(x, real, pooling)


def run_clear(protocol: Protocol[T]) -> T:
    """The result of a protocol over blocks in the clear, which has no rounds."""
    try:
        while True:
            next(protocol)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
