"""subset: one pass gives the bits of the definition, and of Python's integers."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.kernels.subset import subset_sums, subset_sums_reference

ENDS = [0, 1, -1, 2**63 - 1, -(2**63), 2**61 - 1, 1 - 2**61]
values = st.one_of(st.sampled_from(ENDS), st.integers(-(2**63), 2**63 - 1))
words = st.one_of(st.sampled_from([0, -1, 1, 2**31 - 1, -(2**31)]), st.integers(-(2**31), 2**31 - 1))


@settings(max_examples=80)
@given(st.lists(st.tuples(values, words), max_size=70), st.integers(0, 32), st.booleans())
def test_sums_are_the_definition(rows: list[tuple[int, int]], count: int, strided: bool) -> None:
    x = torch.tensor([value for value, _ in rows], dtype=torch.int64)
    w = torch.tensor([word for _, word in rows], dtype=torch.int32)
    if strided:
        x, w = x.repeat_interleave(2)[::2], w.repeat_interleave(3)[::3]
    kept = x.clone(), w.clone()
    got = subset_sums(x, w, count)
    assert (got.dtype, got.shape) == (torch.int64, (count,))
    assert torch.equal(got, subset_sums_reference(x, w, count))
    exact = [sum(value for value, word in rows if word >> j & 1) for j in range(count)]
    assert got.tolist() == [(s + 2**63) % 2**64 - 2**63 for s in exact]
    assert torch.equal(x, kept[0])
    assert torch.equal(w, kept[1])


def test_many_values() -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.integers(-(2**63), 2**63, 100_003, dtype=np.int64))
    w = torch.from_numpy(rng.integers(-(2**31), 2**31, 100_003, dtype=np.int32))
    assert torch.equal(subset_sums(x, w, 20), subset_sums_reference(x, w, 20))
