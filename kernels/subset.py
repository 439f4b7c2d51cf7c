"""Random subset sums: many 0/1 combinations of one vector in a single pass over it."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from .checks import expect, in_range
from .cuda import histogram as cuda
from .device import on_cuda


def subset_sums_reference(values: Tensor, words: Tensor, count: int) -> Tensor:
    """The definition of ``subset_sums``."""
    bits = (words.to(torch.int64).unsqueeze(-1) >> torch.arange(count)) & 1
    return (values.unsqueeze(-1) * bits).sum(0)


def subset_sums(values: Tensor, words: Tensor, count: int) -> Tensor:
    """out[j] = sum of values_i where bit j of words_i is set, mod 2^64.

    values int64[N], words int32[N], count ≤ 32 → int64[count].
    """
    expect("subset.subset_sums", "values", values, torch.int64, (None,))
    expect("subset.subset_sums", "words", words, torch.int32, (len(values),))
    in_range("subset.subset_sums", "count", count, 0, 32)
    if on_cuda("subset.subset_sums", values, words):
        return cuda.subset_sums(values.contiguous(), words.contiguous(), count)
    out = np.zeros(count, np.int64)
    _subset_sums(values.contiguous().numpy(), words.contiguous().numpy(), out)
    return torch.from_numpy(out)


@numba.njit(cache=True, nogil=True)
def _subset_sums(values: np.ndarray, words: np.ndarray, out: np.ndarray) -> None:
    for j in range(out.shape[0]):
        total = np.int64(0)
        for i in range(values.shape[0]):
            total += values[i] & -np.int64((words[i] >> j) & 1)
        out[j] = total
