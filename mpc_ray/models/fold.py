"""Folding, by the model's owner, in the clear: what is linear and known goes into the weights before they are shared.

- 1/√d into the query weights;
- a norm's gain g and bias β into the weights that read it: diag(g)·W, b + β·W;
- the centring of a norm, M = I - 11ᵀ/h, into the weights that feed it: W·M;
- a residual with its gain: [a | h] @ [W·M ; diag(g)·M] + (b + β)·M, so that it costs no message.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpc_ray.models.weights import Array, Encoder, Layer


@dataclass(frozen=True, eq=False)
class FoldedLayer:
    """qkv (h, 3h); out (2h, h); up (h, f); down (f+h, h); each with its bias."""

    qkv: Array
    qkv_bias: Array
    out: Array
    out_bias: Array
    up: Array
    up_bias: Array
    down: Array
    down_bias: Array


@dataclass(frozen=True, eq=False)
class Folded:
    """``gain`` and ``bias`` of the last norm: what the hidden states still lack."""

    layers: tuple[FoldedLayer, ...]
    gain: Array
    bias: Array


def centred(x: Array) -> Array:
    """x @ M: the mean over the last axis removed."""
    return np.asarray(x - x.mean(-1, keepdims=True))


def fold(encoder: Encoder, gain: Array | None = None, bias: Array | None = None) -> Folded:
    """``gain`` and ``bias``: of the norm that produces the encoder's input (None where there is none)."""
    h = encoder.config.hidden
    gain = np.ones(h) if gain is None else gain
    bias = np.zeros(h) if bias is None else bias
    layers = []
    for layer in encoder.layers:
        layers.append(_layer(layer, encoder.config.head_size, gain, bias))
        gain, bias = layer.ffn_norm_gain, layer.ffn_norm_bias
    return Folded(tuple(layers), gain, bias)


def _layer(w: Layer, head_size: int, gain: Array, bias: Array) -> FoldedLayer:
    qkv = np.concatenate([w.q_weight / head_size**0.5, w.k_weight, w.v_weight], 1)
    qkv_bias = np.concatenate([w.q_bias / head_size**0.5, w.k_bias, w.v_bias])
    inner_gain, inner_bias = w.attention_norm_gain, w.attention_norm_bias
    return FoldedLayer(
        qkv=gain[:, None] * qkv,
        qkv_bias=qkv_bias + bias @ qkv,
        out=np.concatenate([centred(w.o_weight), centred(np.diag(gain))], 0),
        out_bias=centred(w.o_bias + bias),
        up=inner_gain[:, None] * w.ffn1_weight,
        up_bias=w.ffn1_bias + inner_bias @ w.ffn1_weight,
        down=np.concatenate([centred(w.ffn2_weight), centred(np.diag(inner_gain))], 0),
        down_bias=centred(w.ffn2_bias + inner_bias),
    )
