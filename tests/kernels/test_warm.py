"""warm: after it, ordinary calls compile nothing; bodies hold no interpreter lock."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from numba.core.dispatcher import Dispatcher

from mpc_ray.kernels import (
    compiled,
    dpf,
    dpf_levels,
    elementwise,
    elementwise_loops,
    field,
    field_loops,
    gf64,
    gf64_loops,
    histogram,
    histogram_loops,
    lookup,
    lookup_tile,
    packing_loops,
    planes,
    planes_loops,
    replicated,
    replicated_loops,
    ring,
    ring_pack,
    ring_tile,
    shrink,
    warm,
)

BODIES = (
    dpf_levels,
    elementwise_loops,
    field_loops,
    gf64_loops,
    histogram_loops,
    lookup_tile,
    packing_loops,
    planes_loops,
    replicated_loops,
    ring_pack,
    ring_tile,
    shrink,
)


def dispatchers() -> dict[str, Any]:
    found = {}
    for module in BODIES:
        for name, value in inspect.getmembers(module, lambda x: isinstance(x, Dispatcher)):
            found[f"{module.__name__}.{name}"] = value
    return found


def test_ordinary_calls_after_warming_compile_nothing() -> None:
    warm.warm()
    before = {name: len(body.signatures) for name, body in dispatchers().items()}
    x = torch.arange(600, dtype=torch.int64)
    for k in range(1, 7):
        tables = lookup.prepare(x[:512].expand(k, 512))
        lookup.lookup_sums(torch.ones((70, 64), dtype=torch.uint8), x[:70], tables)
    keys, _ = dpf.generate(
        torch.ones((7, 16), dtype=torch.uint8), torch.zeros((7, 16), dtype=torch.uint8), x[:7], 12
    )
    dpf.expand(torch.ones((7, 16), dtype=torch.uint8), 1, keys, 12)
    ring.matmul(x.reshape(20, 30)[:, 3:], x.reshape(2, 10, 30).mT[:, 3:])
    ring.matmul_packed(x.reshape(2, 10, 30), ring.pack(x[:90].reshape(30, 3)))
    histogram.thermometer_counts(torch.ones((3, 4, 5), dtype=torch.uint16), x[:12].reshape(3, 4), None, 16)
    elementwise.truncated_share(x, x, x, x, 16)
    elementwise.polynomial_parts(x.reshape(200, 3), x[:200])
    bits = planes.planes(x.reshape(3, 200)[:, 1:], 5, 3, 4)
    planes.and_summand(bits, bits, bits[:, :, :4], bits, bits, bits)
    planes.spread(bits[1:3, 0], 199)
    replicated.bits_others(
        bits[:2, 0], x[:398].reshape(2, 199), x[:4].reshape(2, 2).mT, x[:398].reshape(2, 199)
    )
    replicated.truncate_owner(x[:100], x[100:200], 0, 1, x[:200].reshape(2, 100))
    assert {name: len(body.signatures) for name, body in dispatchers().items()} == before


def test_proofs_after_warming_compile_nothing() -> None:
    warm.warm_proofs()
    before = {name: len(body.signatures) for name, body in dispatchers().items()}
    f, x = field.PrimeField((1 << 61) - 1), np.arange(64, dtype=np.uint64)
    rows = [x.reshape(32, 2), x[32:, None], x[:32, None]]
    field.add_quotients(x[:32], x[32:], rows, rows, x[:32], field.new_sums())
    field.less_products(x[:32], x[32:], rows[0], rows[0])
    f.scale_rows(x[:32], rows[0], np.empty((32, 2), np.uint64))
    f.fold(x[3:], f.coefficients([1] * 7))
    f.combine_rows([1] * 8, x.reshape(8, 8))
    field.polynomial_products(*[x.reshape(4, 16)] * 4)
    cube = np.arange(960, dtype=np.uint64).reshape(3, 20, 16)
    for matrix in (cube[1], cube[1].T, cube[:, 2], cube[0, ::2, 1:]):
        shrink.shrink(np.ones((60, len(matrix)), np.uint8), matrix)
    gf64.fold_words(x, x, [1] * 16, x[:8], np.empty(512, np.uint64))
    gf64.BinaryField().fold(x, x[:16])
    assert {name: len(body.signatures) for name, body in dispatchers().items()} == before


def test_every_body_releases_the_lock_and_is_cached_for_these_sources() -> None:
    bodies = dispatchers()
    assert len(bodies) > 20
    for name, body in bodies.items():
        assert body.targetoptions["nogil"], name
        assert body._cache._cache_file._source_stamp == compiled.sources(), name
