"""What an imported encoder is: its configuration and its float64 arrays, before any folding.

Matrices are stored ``(in, out)``, so a layer computes ``x @ weight + bias``. Nothing here is folded: gains,
centring and ``1/sqrt(head)`` are still where the checkpoint has them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Table = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Pooling = Literal["cls", "mean", "mean_sqrt_len", "weightedmean", "lasttoken"]


@dataclass(frozen=True)
class BertConfig:
    """Shape and constants of a post-norm encoder with absolute positions.

    ``max_positions`` counts usable positions: RoBERTa's reserved first rows are already cut off.
    ``activation`` is ``gelu`` (by the error function), ``gelu_tanh``, ``relu`` or ``silu``.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int
    max_positions: int
    vocab: int
    types: int
    eps: float
    activation: Activation
    pad_id: int = 0

    @property
    def head_size(self) -> int:
        """Columns of one head."""
        return self.hidden // self.heads


@dataclass(frozen=True, eq=False)
class Layer:
    """Float64 arrays of one layer, with h = hidden and f = ffn.

    q, k, v, o are (h, h) with biases (h,); ffn1 is (h, f) with (f,); ffn2 is (f, h) with (h,). The two norms
    follow attention and the feed-forward part: ``y = normalised * gain + bias``, each (h,).
    """

    q_weight: Array
    q_bias: Array
    k_weight: Array
    k_bias: Array
    v_weight: Array
    v_bias: Array
    o_weight: Array
    o_bias: Array
    attention_norm_gain: Array
    attention_norm_bias: Array
    ffn1_weight: Array
    ffn1_bias: Array
    ffn2_weight: Array
    ffn2_bias: Array
    ffn_norm_gain: Array
    ffn_norm_bias: Array


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Tables ``word`` (vocab, h), ``position`` (max_positions, h), ``token_type`` (types, h); norm (h,).

    ``word`` keeps float32 where the file has no more than that (a float64 copy of 250,000 rows is 1.5 GB);
    the sum with the float64 ``position`` is float64 and exact to it.
    """

    word: Table
    position: Array
    token_type: Array
    norm_gain: Array
    norm_bias: Array


@dataclass(frozen=True, eq=False)
class Encoder:
    """The layers alone, as benchmarks from embedded input need them. ``digest``: SHA-256, hex."""

    config: BertConfig
    layers: tuple[Layer, ...]
    digest: str


@dataclass(frozen=True, eq=False)
class BertModel:
    """An encoder with its embeddings and what its folder says about sentences.

    ``max_tokens`` is the length sentence-transformers truncates to (special tokens included), at most
    ``config.max_positions``. ``folder`` holds the tokenizer; None for a model made in memory. ``digest`` is
    SHA-256 (hex) of every array, the constants, the pooling and the normalisation; names do not enter.
    """

    encoder: Encoder
    embeddings: Embeddings
    pooling: Pooling
    normalize: bool
    max_tokens: int
    folder: Path | None
    digest: str

    @property
    def config(self) -> BertConfig:
        """Configuration of the encoder."""
        return self.encoder.config

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Layers of the encoder."""
        return self.encoder.layers


def layer_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every array of a layer, by field name of ``Layer``, as stored (in, out)."""
    h, f = config.hidden, config.ffn
    matrices = {"ffn1_weight": (h, f), "ffn1_bias": (f,), "ffn2_weight": (f, h)}
    return {
        field.name: matrices.get(field.name, (h, h) if field.name.endswith("weight") else (h,))
        for field in fields(Layer)
    }


def make_encoder(config: BertConfig, layers: Iterable[Layer]) -> Encoder:
    """An encoder with its digest. Cost: one SHA-256 over 8 bytes a weight."""
    layers = tuple(layers)
    constants = {key: value for key, value in asdict(config).items() if key != "name"}
    digest = hashlib.sha256(json.dumps(constants, sort_keys=True).encode())
    for layer in layers:
        _absorb(digest, layer)
    return Encoder(config, layers, digest.hexdigest())


def make_model(
    encoder: Encoder,
    embeddings: Embeddings,
    *,
    pooling: Pooling = "mean",
    normalize: bool = True,
    max_tokens: int | None = None,
    folder: Path | None = None,
) -> BertModel:
    """A model with its digest; ``max_tokens`` defaults to, and is cut to, the position limit."""
    limit = encoder.config.max_positions
    digest = hashlib.sha256(f"{encoder.digest} {pooling} {normalize}".encode())
    _absorb(digest, embeddings)
    return BertModel(
        encoder=encoder,
        embeddings=embeddings,
        pooling=pooling,
        normalize=normalize,
        max_tokens=min(max_tokens or limit, limit),
        folder=folder,
        digest=digest.hexdigest(),
    )


def _absorb(digest: hashlib._Hash, arrays: Layer | Embeddings) -> None:
    for field in fields(arrays):
        array = np.ascontiguousarray(getattr(arrays, field.name))
        digest.update(f"{field.name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.reshape(-1).data)
