"""What a client makes of token ids, in numpy alone: embedded rows, padding, mask and pooling weights, as integers.

A text is padded to a bucket. Padding rows are copies of its first row, so their values pass through every window as
the first row's do; as keys they are masked by shares of -B, and the pooling weights, shares too, leave them out. The
parties see the bucket and the batch, not the length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from mpc_ray.models.fold import centred
from mpc_ray.models.pooling import unit_weights
from mpc_ray.models.weights import Array, Pooling, Table
from mpc_ray.sharing.integers import Integers, to_integers
from mpc_ray.sharing.parcel import Secret


class Tables(Protocol):
    """The tables of ``weights.Embeddings`` that are looked up before the first norm."""

    @property
    def word(self) -> Table: ...
    @property
    def position(self) -> Array: ...
    @property
    def token_type(self) -> Array: ...


@dataclass(frozen=True)
class InputScales:
    """The part of a model's plan that its clients need: at which scale each tensor of a text is shared.

    ``depth``: how far below zero the scores of padding keys are put.
    """

    centre: int
    score: int
    pool: int
    depth: float


@dataclass(frozen=True, eq=False)
class Padded:
    """A padded batch in the clear: centred rows (b, n, h), where a token is (b, n), pooling weights (b, 1, n)."""

    x: Array
    real: npt.NDArray[np.bool_]
    pooling: Array


def embedding_sum(tables: Tables, ids: npt.ArrayLike) -> Array:
    """Word + position + type-0 rows of ids (..., n), unchecked, before the norm: (..., n, hidden) float64."""
    tokens = np.asarray(ids, dtype=np.int64)
    return np.asarray(tables.word[tokens] + tables.position[: tokens.shape[-1]] + tables.token_type[0])


def padded_rows(x: Array, length: int) -> Array:
    """Rows (n, h) → (length, h): the missing ones are copies of the first.

    Copies attend to what the first row attends to, so at every layer their values are the first row's: they
    pass through windows that its values pass through, and as keys they have its scores, less the mask.
    """
    return np.concatenate([x, np.repeat(x[:1], length - len(x), 0)], 0)


def padded(tables: Tables, pooling: Pooling, rows: Sequence[Sequence[int]], length: int) -> Padded:
    """Token ids of a batch, each at most ``length`` long, before any encoding."""
    x = np.stack([padded_rows(centred(embedding_sum(tables, row)), length) for row in rows])
    real = np.arange(length) < np.array([len(row) for row in rows])[:, None]
    weights = np.stack([unit_weights(pooling, len(row), length) for row in rows])[:, None]
    return Padded(x, real, weights)


def text_secrets(given: Padded, scales: InputScales) -> dict[str, Secret]:
    """What is shared of a batch of texts: rows, mask, pooling weights. Raises InputError for a row out of range."""
    mask = np.where(given.real, 0.0, -scales.depth)
    weights = np.apply_along_axis(whole_weights, -1, given.pooling, scales.pool)
    return {
        "x": Secret(to_integers(given.x, scales.centre, name="embedded text"), scales.centre),
        "mask": Secret(to_integers(mask, scales.score, name="mask"), scales.score),
        "pooling": Secret(weights, scales.pool),
    }


def whole_weights(p: Array, scale: int) -> Integers:
    """Weights as integers at ``scale`` whose sum is exact: the largest remainders are rounded up."""
    exact = np.ldexp(p, scale)
    whole = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(whole.sum())
    whole[np.argsort(-(exact - whole), kind="stable")[:missing]] += 1
    return whole
