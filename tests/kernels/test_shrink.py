"""shrink: additions alone give R·X mod 2^64, for every shape and for views of any strides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.errors import InputError
from mpc_ray.kernels.shrink import shrink, shrink_reference


@settings(max_examples=40)
@given(
    st.integers(0, 20), st.integers(0, 150), st.integers(0, 40), st.sampled_from("rows columns strided".split()),
    st.integers(0, 2**32),
)  # fmt: skip
def test_it_is_the_product(s: int, m: int, k: int, layout: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    r = rng.integers(0, 2, (s, m), dtype=np.uint8)
    if layout == "rows":
        x = rng.integers(0, 2**64, (m, k), dtype=np.uint64)
    elif layout == "columns":
        x = rng.integers(0, 2**64, (k, m), dtype=np.uint64).T
    else:
        x = rng.integers(0, 2**64, (2 * m + 1, 3 * k + 2), dtype=np.uint64)[1::2, 2::3][:m, :k]
    kept = x.copy()
    assert np.array_equal(shrink(r, x), shrink_reference(r, x))
    assert np.array_equal(x, kept)


@pytest.mark.parametrize("shape", [(768, 48), (128, 96), (260, 33)])
@pytest.mark.parametrize("turned", [False, True])
def test_whole_strips(shape: tuple[int, int], turned: bool) -> None:
    rng = np.random.default_rng(7)
    x = rng.integers(0, 2**64, shape[::-1] if turned else shape, dtype=np.uint64)
    x = x.T if turned else x
    r = rng.integers(0, 2, (56, shape[0]), dtype=np.uint8)
    assert np.array_equal(shrink(r, x), shrink_reference(r, x))


def test_vectors_for_another_matrix_are_refused() -> None:
    with pytest.raises(InputError, match="one bit for each row"):
        shrink(np.zeros((2, 3), np.uint8), np.zeros((4, 5), np.uint64))
