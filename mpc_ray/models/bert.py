"""BERT's encoder, post-norm with absolute positions, over the block operations. The whole model is this page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from mpc_ray.protocols.blocks import ATTENTION_OUT, FFN_OUT, Blocks
from mpc_ray.protocols.runtime import Protocol

V = TypeVar("V")
Progress = Callable[[str, float], None]
Tap = Callable[[str, V], None]  # gets a place and the normalised rows there

EMBEDDINGS = "embeddings"
HEAD = "head"


@dataclass(frozen=True)
class Program:
    """What is public about the model: how many layers, whether the embeddings are normalised, and the output."""

    layers: int
    embedding_norm: bool
    output: str  # "embedding" or "hidden"


def layer_name(i: int) -> str:
    return f"layer {i}"


def layer_index(name: str) -> int:
    """Inverse of ``layer_name``."""
    return int(name.removeprefix("layer "))


def place(layer: str, which: str) -> str:
    """What a tap calls the rows after one of a layer's two norms."""
    return f"{layer}/{which}"


def places(program: Program) -> tuple[str, ...]:
    """All that a tap hears, in order."""
    first = (EMBEDDINGS,) if program.embedding_norm else ()
    halves = (ATTENTION_OUT, FFN_OUT)
    return first + tuple(place(layer_name(i), which) for i in range(program.layers) for which in halves)


def unheard(where: str, rows: object) -> None:
    """The tap that does nothing."""
    del where, rows


def encode(
    blocks: Blocks[V], program: Program, x: V, progress: Progress | None = None, tap: Tap[V] = unheard
) -> Protocol[V]:
    """Embedded rows x (b, n, h) → what ``program.output`` says.

    ``progress`` hears each layer's name and the part done; ``tap`` the normalised rows at each of ``places``.
    """
    h = x
    if program.embedding_norm:
        h = yield from blocks.normalise(x, EMBEDDINGS)
        tap(EMBEDDINGS, h)
    for i in range(program.layers):
        layer = layer_name(i)
        if progress is not None:
            progress(layer, i / program.layers)
        context = yield from blocks.attention(h, layer)
        h = yield from blocks.residual_norm(context, h, layer, ATTENTION_OUT)
        tap(place(layer, ATTENTION_OUT), h)
        a = yield from blocks.linear_activation(h, layer)
        h = yield from blocks.residual_norm(a, h, layer, FFN_OUT)
        tap(place(layer, FFN_OUT), h)
    if program.output == "hidden":
        return (yield from blocks.gain(h, HEAD))
    return (yield from blocks.pool(h, HEAD))
