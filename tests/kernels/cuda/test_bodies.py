"""Every CUDA body, executed in emulation with its threads shuffled, gives the bits of its reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from mpc_ray.kernels import device
from mpc_ray.kernels.cuda import emulated
from mpc_ray.kernels.cuda.launch import observer
from mpc_ray.kernels.operations import OPERATIONS, Draw, Operation

ORDERS = (0, 1, 20260101)
SIZES = (1, 33, 300)


@pytest.fixture(autouse=True)
def threads_in_order() -> Iterator[None]:
    yield
    emulated.set_order(0)


def tensors(result: Any) -> list[torch.Tensor]:
    return list(result) if isinstance(result, tuple) else [result]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_emulated_bodies_give_the_references_bits(operation: Operation) -> None:
    launched = set()
    observer.append(lambda kernel, *_: launched.add(kernel.name))
    try:
        for i in range(4):
            for size in SIZES:
                arguments = operation.draw(Draw(torch.Generator().manual_seed(100 * i + size), size))
                want = tensors(operation.reference(*arguments))
                emulated.set_order(ORDERS[(i + size) % 3])
                with device.emulating():
                    got = tensors(operation.body(*arguments))
                assert all(torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(got, want, strict=True))
    finally:
        observer.clear()
    assert launched == set(operation.kernels), (
        "the draws reach every kernel that the list names, and no other"
    )


def test_empty_arguments_launch_nothing() -> None:
    from mpc_ray.kernels import dpf, elementwise, histogram, lookup, packing, ring, stream, subset

    none = torch.empty(0, dtype=torch.int64)
    rows = torch.empty((0, 32), dtype=torch.uint8)
    with device.emulating():
        assert elementwise.mask_for_open(none, none, 3).shape == (0,)
        assert elementwise.powers(none, none, 2).shape == (3, 0)
        assert packing.pack_low_bytes(none, 3).shape == (0,)
        assert packing.unpack_bits(rows[:, 0], 0, 5).shape == (0,)
        assert lookup.deal_one_hot(rows, none)[1].shape == (0,)
        assert lookup.lookup_sums(
            rows, none, lookup.prepare(torch.ones((2, 256), dtype=torch.int64))
        ).shape == (0, 2)
        assert histogram.pick_bits(rows, none).shape == (0,)
        assert histogram.rotate_rows(rows, none).shape == (0, 32)
        assert histogram.suffix_sum(rows).shape == (0, 32)
        counts = histogram.thermometer_counts(
            torch.empty((3, 0, 16), dtype=torch.uint8), none.reshape(3, 0), None, 8
        )
        assert torch.equal(counts, torch.zeros((3, 16), dtype=torch.uint8))
        assert subset.subset_sums(none, none.to(torch.int32), 3).tolist() == [0, 0, 0]
        keys, sign = dpf.generate(rows[:, :16], rows[:, :16], none, 9)
        assert (len(keys.data), len(sign)) == (0, 0)
        assert dpf.expand(rows[:, :16], 0, keys, 9).shape == (0, 64)
        assert stream.add(none, bytes(32), bytes(12), 1).shape == (0,)
        for m, k, n in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
            a, b = torch.ones((m, k), dtype=torch.int64), torch.ones((k, n), dtype=torch.int64)
            assert torch.equal(ring.matmul(a, b), a @ b)
            assert torch.equal(ring.matmul_packed(a, ring.pack(b)), a @ b)
