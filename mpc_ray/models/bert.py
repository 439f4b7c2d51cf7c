"""BERT's encoder, post-norm with absolute positions, over the block operations. The whole model is this page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mpc_ray.protocols.blocks import Blocks
from mpc_ray.protocols.runtime import Protocol

V = TypeVar("V")
Progress = Callable[[str, float], None]

EMBEDDINGS = "embeddings"
HEAD = "head"
ATTENTION_OUT = "attention out"
FFN_OUT = "ffn out"


@dataclass(frozen=True)
class Program:
    """What is public about the model: how many layers, whether the embeddings are normalised, and the output."""

    layers: int
    embedding_norm: bool
    output: str  # "embedding" or "hidden"


def layer_name(i: int) -> str:
    return f"layer {i}"


def encode(blocks: Blocks[V], program: Program, x: V, progress: Progress | None = None) -> Protocol[V]:
    """Embedded rows x (b, n, h) → what ``program.output`` says. ``progress`` hears each layer's name and the part done."""
    h = (yield from blocks.normalise(x, EMBEDDINGS)) if program.embedding_norm else x
    for i in range(program.layers):
        layer = layer_name(i)
        if progress is not None:
            progress(layer, i / program.layers)
        context = yield from blocks.attention(h, layer)
        h = yield from blocks.residual_norm(context, h, layer, ATTENTION_OUT)
        a = yield from blocks.linear_activation(h, layer)
        h = yield from blocks.residual_norm(a, h, layer, FFN_OUT)
    if program.output == "hidden":
        return (yield from blocks.gain(h, HEAD))
    return (yield from blocks.pool(h, HEAD))
