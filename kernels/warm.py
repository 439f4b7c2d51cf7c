"""Compile every body, or load it from the cache on disk, before the first job needs it.

Compiling takes about 30 s on one core, once a machine and version; loading takes under a second. A party calls this at
its start, so that no round waits for a compiler. What malicious_3pc proves with takes 15 s more, there alone.
"""

from __future__ import annotations

import functools

import numpy as np
import torch

from . import dpf, elementwise, field, gf64, histogram, lookup, planes, replicated, ring, shrink, subset
from .field_prime import HIGH


@functools.cache
def warm() -> None:
    """Run every public kernel once on tiny tensors, in each dtype and form that it compiles for; once a process."""
    _ring()
    _lookup()
    _dpf()
    _histogram()
    _elementwise()
    _replicated()
    subset.subset_sums(torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.int32), 20)


def _ring() -> None:
    ring.body()
    a = torch.ones((2, 3), dtype=torch.int64)
    ring.matmul(a[None], a.T[None])
    ring.matmul_packed(a, ring.pack(a.T))
    narrow = a.T.to(torch.int32)
    ring.matmul_packed(a, ring.pack_rows(3, 2, lambda rows: narrow[rows], None, torch.int32))


def _lookup() -> None:
    bits = torch.ones((2, 8), dtype=torch.uint8)  # two rows: of one row, every slice is contiguous
    where = torch.zeros(2, dtype=torch.int64)
    lookup.deal_one_hot(bits, where)
    for count in (1, 5):
        lookup.lookup_sums(bits, where, lookup.prepare(torch.ones((count, 64), dtype=torch.int64)))


def _dpf() -> None:
    seed, where = torch.zeros((4, 16), dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    keys, _ = dpf.generate(seed, seed + 1, where, 9)
    dpf.evaluate_sums(seed, 0, keys, where, lookup.prepare(torch.ones((1, 512), dtype=torch.int64)), 9)


def _histogram() -> None:
    where = torch.zeros((1, 2), dtype=torch.int64)
    for bits, kind in histogram.RINGS.items():
        e = torch.ones((1, 2, 16), dtype=kind)
        e = histogram.deal_thermometer(e, where)
        histogram.suffix_sum(histogram.thermometer_counts(e, where, None, bits))
    rows = torch.ones((2, 16), dtype=torch.uint8)
    histogram.pick_bits(rows, where[0])
    histogram.rotate_rows(rows, where[0])


def _elementwise() -> None:
    x = torch.ones(4, dtype=torch.int64)
    elementwise.add_open(x, x)
    elementwise.truncate_public(x, 1)
    elementwise.truncate_dealer(x, 1)
    elementwise.truncated_share(None, x, x, x, 1)
    elementwise.polynomial_parts(x.reshape(2, 2), x[:2])
    elementwise.powers(x, x, 1)
    elementwise.unpack_low_bytes(elementwise.pack_low_bytes(x, 3), 3)
    for kind in (torch.int64, torch.uint8, torch.uint16):
        elementwise.unpack_bits(elementwise.pack_bits(x.to(kind), 3), 4, 3)


def _replicated() -> None:
    x = torch.ones(64, dtype=torch.int64)
    line, pair, plane = x[None], torch.ones((2, 64), dtype=torch.int64), x[:1, None]
    planes.planes(x, 0, 0, 2)
    planes.spread(plane, 64)
    planes.and_summand(x, x, x, x, x, x)
    planes.pair_summand(x, x, x, x)
    replicated.product_summand(x, x, x, x, x, x)
    replicated.masked_summand(x, x, x)
    replicated.truncate_owner(x, x, 0, 0, pair)
    replicated.truncate_others(x, 0, x, 0, pair, x)
    replicated.truncated_piece(x, 0, x, 1, 0)
    replicated.top_bits_table(x, 0, pair[:1, :4])
    replicated.bits_owner(plane, plane, line)
    replicated.bits_others(plane, line, plane, line)
    replicated.bits_sum(plane, plane, 64)
    table = torch.ones(1 << replicated.EXP_POSITION, dtype=torch.int64)
    replicated.exp_owner(x, x, 0, 0, 35, table, plane, plane, pair)
    replicated.exp_others(x, 0, 35, table, x[:1], plane, pair, x)


@functools.cache
def warm_proofs() -> None:
    """The same of the kernels of proofs: ``field``, ``gf64`` and ``shrink``."""
    _field()
    _gf64()
    r, x = np.ones((2, 4), np.uint8), np.ones((4, 3), np.uint64)
    for matrix in (x, np.asfortranarray(x), np.ones((4, 6), np.uint64)[:, ::2]):
        shrink.shrink(r, matrix)


def _field() -> None:
    f = field.PrimeField(HIGH - 1)  # 2^61 - 1 is a prime
    x, out, row = np.ones(4, np.uint64), np.empty(4, np.uint64), np.ones((4, 1), np.uint64)
    f.cross(x, x)
    f.fold(x, f.coefficients([1] * 4))
    f.fold(x, f.coefficients([1] * 3))
    f.inner(x, x)
    f.reduce(x, out)
    f.scale_rows(x, row, np.empty((4, 1), np.uint64))
    f.combine_rows([1, 1], np.ones((2, 3), np.uint64))
    f.weights(x, f.weight_table([1]), out)
    field.weighted_sum(x, x, np.zeros(3, np.uint64))
    field.less_products(x, x, row, row)
    sums = field.new_sums()
    field.add_quotients(x, x, [row], [row], x, sums)
    field.quotients(sums)
    field.polynomial_products(row, row, row, row)


def _gf64() -> None:
    f = gf64.BinaryField()
    x, words = np.ones(4, np.uint64), np.ones(gf64.BLOCK, np.uint64)
    f.mul(1, 1)
    f.cross(x, x)
    f.fold(x, f.coefficients([1] * 4))
    f.inner(x, x)
    gf64.cross_words(x[:1], (words, words), (words, words))
    for omega in (None, x[:1]):
        gf64.fold_words(words, words, [1] * 16, omega, np.empty(64, np.uint64))
    gf64.weighted_words(x[:1], words)
