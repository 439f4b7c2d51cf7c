"""The list of operations: complete, and every compiled body gives the bits of its reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_ray.kernels.cuda import sources
from mpc_ray.kernels.operations import OPERATIONS, Draw, Operation

# Beside the bodies of operations: the plain product to measure against, and the parts of large products.
BESIDE = {"ring_product_plain", "split_digits", "join_digits", "split_residues", "join_residues"}


def tensors(result: Any) -> list[torch.Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


def test_every_cuda_kernel_is_some_operations_body() -> None:
    named = {kernel for operation in OPERATIONS for kernel in operation.kernels}
    assert named | BESIDE == set(sources.kernels())
    assert not named & BESIDE
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), size=st.sampled_from([1, 40, 300]))
def test_compiled_bodies_give_the_references_bits(operation: Operation, seed: int, size: int) -> None:
    arguments = operation.draw(Draw(torch.Generator().manual_seed(seed), size))
    kept = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    got, want = tensors(operation.body(*arguments)), tensors(operation.reference(*arguments))
    assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(got, want, strict=True))
    for before, after in zip(kept, arguments, strict=True):
        assert not isinstance(after, torch.Tensor) or torch.equal(before, after), "an argument was changed"
