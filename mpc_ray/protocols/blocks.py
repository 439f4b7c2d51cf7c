"""What a model may call: block operations over an opaque tensor type.

A model is written once, as a generator over these, and runs in float, in fixed point in the clear, and on shares
under each protocol. Hidden states are *normalised rows before gain*: gains and biases are folded forward into the next
weights, centring and the residual into the weights that feed a norm.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from mpc_ray.protocols.runtime import Protocol as Rounds

V = TypeVar("V")

ATTENTION_OUT = "attention out"  # the two places of a layer that a norm follows
FFN_OUT = "ffn out"


class Blocks(Protocol[V]):
    """``layer`` names the place ("embeddings", "layer 0", "head"); weights and plans are found by it."""

    def normalise(self, x: V, layer: str) -> Rounds[V]:
        """Rows of x, already centred, over their root mean square. (b, n, h)."""

    def attention(self, h: V, layer: str) -> Rounds[V]:
        """All heads of self-attention, from normalised rows: (b, n, h) → (b, n, h), before the output weights."""

    def residual_norm(self, a: V, h: V, layer: str, which: str) -> Rounds[V]:
        """normalise([a | h] @ W + bias): projection, residual, gain and centring are one product."""

    def linear_activation(self, h: V, layer: str) -> Rounds[V]:
        """activation(h @ W + bias): (b, n, h) → (b, n, ffn)."""

    def gain(self, h: V, layer: str) -> Rounds[V]:
        """h·gain + bias: the last hidden state as its owner knows it."""

    def pool(self, h: V, layer: str) -> Rounds[V]:
        """Σ_i p_i·h_i with the client's secret weights p: (b, n, h) → (b, h), then gain and bias, and the L2 norm if
        the model has one."""
