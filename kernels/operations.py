"""Every operation of this package, once: what defines it, what computes it, which CUDA kernels that takes.

Tests hold all bodies of each to the bits of its reference, on arguments that ``draw`` makes, and every CUDA kernel to
being in this list. A new operation is a line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from . import dpf, dpf_reference, elementwise, histogram, lookup, packing, ring, stream, subset

Tensor = torch.Tensor
ENDS = (0, 1, -1, 2**63 - 1, -(2**63), 0x7F7F7F7F7F7F7F7F, 0x7F7F7F7F7F7F7F80)


@dataclass(frozen=True)
class Draw:
    """Random arguments of about ``size`` elements; the same for the same source."""

    source: torch.Generator
    size: int

    def number(self, low: int, high: int) -> int:
        """low to high, both included."""
        return int(torch.randint(low, high + 1, (1,), generator=self.source))

    def ring(self, *shape: int) -> Tensor:
        """int64 of all sizes, the ends of the range among them."""
        x = torch.randint(-(2**63), 2**63 - 1, shape, generator=self.source)
        end = torch.tensor(ENDS)[torch.randint(0, len(ENDS), shape, generator=self.source)]
        return torch.where(torch.randint(0, 8, shape, generator=self.source) == 0, end, x)

    def octets(self, *shape: int) -> Tensor:
        return torch.randint(0, 256, shape, generator=self.source).to(torch.uint8)

    def words16(self, *shape: int) -> Tensor:
        return torch.randint(0, 1 << 16, shape, generator=self.source).to(torch.uint16)

    def key(self, length: int) -> bytes:
        return bytes(self.octets(length).tolist())


@dataclass(frozen=True)
class Operation:
    """``reference`` and ``body`` take ``draw``'s arguments and give a tensor or a tuple of them, bit for bit the same.

    ``body`` takes its CUDA body where the arguments lie on a device; ``kernels`` are what that may launch.
    """

    name: str
    reference: Callable[..., Any]
    body: Callable[..., Any]
    kernels: tuple[str, ...]
    draw: Callable[[Draw], tuple[Any, ...]]


def _some(x: Draw) -> int:
    return x.number(1, x.size)


def _same(x: Draw, count: int) -> list[Tensor]:
    """``count`` tensors of one length."""
    n = _some(x)
    return [x.ring(n) for _ in range(count)]


def _public_or_none(x: Draw) -> list[Tensor | None]:
    n = _some(x)
    return [x.ring(n) if x.number(0, 1) else None, x.ring(n), x.ring(n), x.ring(n)]


def _packed_product(a: Tensor, b: Tensor) -> Tensor:
    return ring.matmul_packed(a, ring.pack(b))


def _added_product(a: Tensor, b: Tensor, plus: Tensor) -> Tensor:
    return ring.matmul_plus(a, ring.pack(b), plus)


def _matrices(x: Draw) -> tuple[Tensor, Tensor]:
    m, k, n = x.number(1, 70), _some(x), x.number(1, 70)
    b = x.ring(n, k).t() if x.number(0, 1) else x.ring(k, n)
    return x.ring(m, k), b


def _batch(x: Draw) -> tuple[Tensor, Tensor]:
    heads, m, k, n = x.number(1, 3), x.number(1, 20), _some(x), x.number(1, 20)
    b = x.ring(heads, n, k).mT if x.number(0, 1) else x.ring(heads, k, n)
    return x.ring(m, heads, k).transpose(0, 1), b


def _lookup(bits: Tensor, c: Tensor, tables: Tensor) -> Tensor:
    return lookup.lookup_sums(bits, c, lookup.prepare(tables))


def _tables(x: Draw) -> tuple[Tensor, Tensor, Tensor]:
    n, rows = x.number(3, 12), x.number(1, 40)
    return x.octets(rows, 1 << (n - 3)), x.ring(rows), x.ring(x.number(1, 5), 1 << n)


def _one_hots(x: Draw) -> tuple[Tensor, Tensor]:
    rows = _some(x)
    return x.octets(rows, 1 << x.number(0, 5)), x.ring(rows)


def _points(x: Draw) -> tuple[Tensor, Tensor, Tensor, int]:
    rows = x.number(1, 5)
    return x.octets(rows, 16), x.octets(rows, 16), x.ring(rows), x.number(8, 12)


def _generated(seed0: Tensor, seed1: Tensor, position: Tensor, n: int) -> tuple[Tensor, Tensor]:
    keys, sign = dpf.generate(seed0, seed1, position, n)
    return keys.data, sign


def _generated_reference(seed0: Tensor, seed1: Tensor, position: Tensor, n: int) -> tuple[Tensor, Tensor]:
    keys, sign = dpf_reference.generate_reference(seed0, seed1, position & ((1 << n) - 1), n)
    return keys.data, sign


def _expanded(seed: Tensor, party: int, data: Tensor, n: int) -> Tensor:
    return dpf.expand(seed, party, dpf.Keys(data, n), n)


def _expanded_reference(seed: Tensor, party: int, data: Tensor, n: int) -> Tensor:
    return dpf_reference.expand_reference(seed, party, dpf.Keys(data, n), n)


def _keys(x: Draw) -> tuple[Tensor, int, Tensor, int]:
    """Not of any dealer: an expansion is defined for every key."""
    rows, n = x.number(1, 4), x.number(8, 12)
    return x.octets(rows, 16), x.number(0, 1), x.octets(rows, dpf.key_bytes(n)), n


def _points_summed(seed: Tensor, party: int, data: Tensor, n: int, c: Tensor, tables: Tensor) -> Tensor:
    return dpf.evaluate_sums(seed, party, dpf.Keys(data, n), c, lookup.prepare(tables), n)


def _points_summed_reference(
    seed: Tensor, party: int, data: Tensor, n: int, c: Tensor, tables: Tensor
) -> Tensor:
    return lookup.lookup_sums_reference(_expanded_reference(seed, party, data, n), c, tables)


def _keys_and_tables(x: Draw) -> tuple[Any, ...]:
    seed, party, data, n = _keys(x)
    return seed, party, data, n, x.ring(len(seed)), x.ring(2, 1 << n)


def _thermometer(x: Draw) -> tuple[Any, ...]:
    rows, n, nb, bits = x.number(1, 3), x.number(1, 9), x.number(1, 70), 8 * x.number(1, 2)
    e = x.octets(rows, n, nb) if bits == 8 else x.words16(rows, n, nb)
    keep = (None, x.octets(n) & 1, x.octets(rows, n) & 1)[x.number(0, 2)]
    return e, x.ring(rows, n), keep, bits


def _counts(x: Draw) -> tuple[Tensor]:
    shape = x.number(1, 9), x.number(1, 100)
    return (x.octets(*shape) if x.number(0, 1) else x.words16(*shape),)


def _expand_stream(key: bytes, nonce: bytes, like: Tensor) -> Tensor:
    return stream.expand(key, nonce, torch.empty_like(like))


OPERATIONS = (
    Operation(
        "ring.matmul_packed",
        ring.matmul_reference,
        _packed_product,
        ("ring_prepare", "ring_product"),
        _matrices,
    ),
    Operation(
        "ring.matmul_plus",
        lambda a, b, plus: plus + ring.matmul_reference(a, b),
        _added_product,
        ("ring_prepare", "ring_product"),
        lambda x: (*(ab := _matrices(x)), x.ring(*[len(ab[0])] * x.number(0, 1), ab[1].shape[1])),
    ),
    Operation(
        "ring.matmul",
        ring.matmul_reference,
        ring.matmul,
        ("ring_product_straight", "ring_product_turned"),
        _batch,
    ),
    Operation(
        "lookup.lookup_sums",
        lookup.lookup_sums_reference,
        _lookup,
        ("prepare_sums", "lookup_sums", "lookup_wide"),
        _tables,
    ),
    Operation(
        "lookup.deal_one_hot", lookup.deal_one_hot_reference, lookup.deal_one_hot, ("flip_bit",), _one_hots
    ),
    Operation("dpf.generate", _generated_reference, _generated, ("dpf_generate",), _points),
    Operation("dpf.expand", _expanded_reference, _expanded, ("dpf_expand",), _keys),
    Operation(
        "dpf.evaluate_sums",
        _points_summed_reference,
        _points_summed,
        ("dpf_expand", "prepare_sums", "lookup_sums", "lookup_wide"),
        _keys_and_tables,
    ),
    Operation(
        "histogram.thermometer_counts",
        histogram.thermometer_counts_reference,
        histogram.thermometer_counts,
        ("thermometer_counts_uint8", "thermometer_counts_uint16"),
        _thermometer,
    ),
    Operation(
        "histogram.suffix_sum",
        histogram.suffix_sum_reference,
        histogram.suffix_sum,
        ("suffix_sum_uint8", "suffix_sum_uint16"),
        _counts,
    ),
    Operation(
        "histogram.deal_thermometer",
        histogram.deal_thermometer_reference,
        histogram.deal_thermometer,
        ("deal_thermometer_uint8", "deal_thermometer_uint16"),
        lambda x: (*(e := _counts(x)), x.ring(len(e[0]))),
    ),
    Operation(
        "histogram.pick_bits", histogram.pick_bits_reference, histogram.pick_bits, ("pick_bits",), _one_hots
    ),
    Operation(
        "histogram.rotate_rows",
        histogram.rotate_rows_reference,
        histogram.rotate_rows,
        ("rotate_rows",),
        lambda x: (x.octets(n := x.number(1, 9), x.number(1, 70)), x.ring(n)),
    ),
    Operation(
        "subset.subset_sums",
        subset.subset_sums_reference,
        subset.subset_sums,
        ("subset_sums",),
        lambda x: (v := x.ring(_some(x)), (x.ring(len(v)) >> 32).to(torch.int32), x.number(1, 32)),
    ),
    Operation(
        "elementwise.mask_for_open",
        elementwise.mask_for_open_reference,
        elementwise.mask_for_open,
        ("add_with",),
        lambda x: (*_same(x, 2), ENDS[x.number(0, 6)]),
    ),
    Operation(
        "elementwise.multiply_mask",
        elementwise.multiply_mask_reference,
        elementwise.multiply_mask,
        ("multiply_mask",),
        lambda x: (*_same(x, 3), ENDS[x.number(0, 6)]),
    ),
    Operation(
        "elementwise.truncate_public",
        elementwise.truncate_public_reference,
        elementwise.truncate_public,
        ("truncate_public",),
        lambda x: (*_same(x, 1), x.number(1, 62)),
    ),
    Operation(
        "elementwise.open_truncate",
        elementwise.open_truncate_reference,
        elementwise.open_truncate,
        ("open_truncate",),
        lambda x: (*_same(x, 2), x.number(1, 62)),
    ),
    Operation(
        "elementwise.truncate_dealer",
        elementwise.truncate_dealer_reference,
        elementwise.truncate_dealer,
        ("truncate_dealer",),
        lambda x: (*_same(x, 1), x.number(1, 62)),
    ),
    Operation(
        "elementwise.truncated_share",
        elementwise.truncated_share_reference,
        elementwise.truncated_share,
        ("truncated_share",),
        lambda x: (*_public_or_none(x), x.number(1, 62)),
    ),
    Operation(
        "elementwise.polynomial_parts",
        elementwise.polynomial_parts_reference,
        elementwise.polynomial_parts,
        ("polynomial_parts",),
        lambda x: (x.ring(n := _some(x), x.number(1, 5)), x.ring(n)),
    ),
    Operation(
        "elementwise.powers",
        elementwise.powers_reference,
        elementwise.powers,
        ("powers",),
        lambda x: (*_same(x, 2), x.number(0, 4)),
    ),
    Operation(
        "packing.pack_low_bytes",
        packing.pack_low_bytes_reference,
        packing.pack_low_bytes,
        ("pack_low_bytes",),
        lambda x: (x.ring(_some(x)), x.number(1, 8)),
    ),
    Operation(
        "packing.unpack_low_bytes",
        packing.unpack_low_bytes_reference,
        packing.unpack_low_bytes,
        ("unpack_low_bytes",),
        lambda x: (x.octets(_some(x) * (n := x.number(1, 8))), n),
    ),
    Operation(
        "packing.pack_bits",
        packing.pack_bits_reference,
        packing.pack_bits,
        ("pack_bits_int64", "pack_bits_uint16", "pack_bits_uint8"),
        lambda x: ((x.ring, x.words16, x.octets)[x.number(0, 2)](_some(x)), x.number(1, 16)),
    ),
    Operation(
        "packing.unpack_bits",
        packing.unpack_bits_reference,
        packing.unpack_bits,
        ("unpack_bits",),
        lambda x: (x.octets(((n := _some(x)) * (bits := x.number(1, 16)) + 7) // 8), n, bits),
    ),
    Operation(
        "stream.expand",
        lambda key, nonce, like: stream.expand_reference(key, nonce, len(like)),
        _expand_stream,
        ("stream_bytes",),
        lambda x: (x.key(32), x.key(12), x.octets(_some(x))),
    ),
    Operation(
        "stream.add",
        stream.add_reference,
        stream.add,
        ("stream_add",),
        lambda x: (x.ring(_some(x)), x.key(32), x.key(12), ENDS[x.number(0, 6)], bool(x.number(0, 1))),
    ),
    Operation(
        "stream.zero_share",
        stream.zero_share_reference,
        stream.zero_share,
        ("stream_zero_share",),
        lambda x: (x.ring(_some(x)), x.key(32), x.key(32), x.key(12)),
    ),
)
