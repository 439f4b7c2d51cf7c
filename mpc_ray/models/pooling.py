"""From hidden states to one sentence vector: a weight for each token.

Every pooling that is implemented is linear in the hidden states with public weights for a known length:
``embedding = sum_i p_i * hidden_i`` over the real tokens. Max pooling and concatenations are not of that form
and are refused at import (``folder.py``). Definitions: sentence-transformers, ``models.Pooling``.
"""

from __future__ import annotations

import numpy as np

from mpc_ray.errors import InputError
from mpc_ray.models.weights import Array, Pooling


def pooling_vector(pooling: Pooling, length: int, padded: int | None = None) -> Array:
    """Weights p (padded,) float64 of a text of ``length`` tokens, special tokens included, then zeros.

    ``mean``: 1/n; ``mean_sqrt_len``: 1/sqrt(n); ``cls``: the first token; ``lasttoken``: the last real one;
    ``weightedmean``: (i + 1) / (1 + ... + n). Raises InputError if length is below 1 or above ``padded``.
    """
    size = length if padded is None else padded
    if not 1 <= length <= size:
        raise InputError(f"cannot pool {length} tokens of {size}", remedy="a text has at least one token")
    p = np.zeros(size)
    if pooling == "cls":
        p[0] = 1.0
    elif pooling == "lasttoken":
        p[length - 1] = 1.0
    elif pooling == "mean":
        p[:length] = 1.0 / length
    elif pooling == "mean_sqrt_len":
        p[:length] = length**-0.5
    else:
        p[:length] = np.arange(1, length + 1) / (length * (length + 1) / 2)
    return p


def unit_weights(pooling: Pooling, length: int, padded: int | None = None) -> Array:
    """``pooling_vector`` over its sum: weights that add up to 1, as the parties pool.

    A norm's bias can then be added once after pooling, and one window fits all lengths; ``pooling_sum`` restores
    the rest.
    """
    return pooling_vector(pooling, length, padded) / pooling_sum(pooling, length)


def pooling_sum(pooling: Pooling, length: int) -> float:
    """What the weights of a text of ``length`` tokens add up to: sqrt(n) for ``mean_sqrt_len``, else 1."""
    return float(length**0.5) if pooling == "mean_sqrt_len" else 1.0


def normalized(vectors: Array) -> Array:
    """Each row of (..., hidden) divided by its Euclidean norm, which is taken as at least 1e-12."""
    norms = np.sqrt(np.sum(vectors * vectors, axis=-1, keepdims=True))
    return np.asarray(vectors / np.maximum(norms, 1e-12))
