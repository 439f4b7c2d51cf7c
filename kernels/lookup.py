"""XOR-shared one-hots and the table sums they select.

The dealer knows position r, the evaluators know c; they want a table's value at c - r. Evaluator i holds bits e_i with
e_0 XOR e_1 = one-hot(r), and computes sum_j e_i[j] T[(c - j) mod 2^n]. The difference of the two sums is
sign * T[(c - r) mod 2^n], where the sign, known to the dealer alone, is +1 if e_0 holds the one bit, else -1.

Bit j of the domain is bit (j & 7) of byte j >> 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from mpc_ray.errors import DeviceError, InputError

from . import lookup_tile
from .checks import expect
from .compiled import has
from .cuda import lookup as cuda
from .device import on_cuda

Tensor = torch.Tensor
SMALLEST, LARGEST = 3, 16
KEPT = 10  # up to here sums are kept; of a longer table they are made at every call, or each would take megabytes
ROWS_AT_ONCE = 4096  # their running sums (128 KB at most) stay in the second-level cache


@dataclass(frozen=True)
class PreparedTables:
    """K tables over the domain 2^n, prepared once for many look-ups.

    ``sums`` holds the subset sums of up to 4 tables each (32 bytes a coefficient), or above 2^10 only says how many
    tables go together; empty where the body is "plain". For the CUDA body it is one tensor, of all tables.
    """

    n: int
    tables: Tensor
    sums: tuple[Tensor, ...]
    cuda: bool = False

    @property
    def count(self) -> int:
        """K."""
        return len(self.tables)


def body() -> str:
    """The body of the look-up: "permute" (AVX-512), or "plain" machine code without vector instructions."""
    return "permute" if has("avx512f") else "plain"


def unpack_domain(bits: Tensor) -> Tensor:
    """uint8[N, B] -> uint8[N, 8 B] of 0 and 1, in the order of the domain."""
    return ((bits[:, :, None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten(1)


def deal_one_hot_reference(e0: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """The definition of ``deal_one_hot``."""
    rows = torch.arange(len(e0))
    at = position % (8 * e0.shape[1])
    byte, bit = at >> 3, (torch.ones_like(at) << (at & 7)).to(torch.uint8)
    e1 = e0.clone()
    e1[rows, byte] ^= bit
    return e1, torch.where((e0[rows, byte] & bit) != 0, 1, -1)


def lookup_sums_reference(bits: Tensor, c: Tensor, tables: Tensor) -> Tensor:
    """The definition of ``lookup_sums``, from the raw tables int64[K, 2^n]. Holds N 2^n int64."""
    size = tables.shape[1]
    index = (c[:, None] - torch.arange(size)) % size
    ones = unpack_domain(bits).to(torch.int64)
    return torch.stack([(ones * table[index]).sum(1) for table in tables], 1)


def domain_log(name: str, size: int) -> int:
    """n for a domain of 2^n; InputError unless it is a power of two between 2^3 and 2^16."""
    n = size.bit_length() - 1
    if size != 1 << n or not SMALLEST <= n <= LARGEST:
        raise InputError(
            f"kernel {name}: a domain of {size}",
            remedy=f"use a power of two between 2^{SMALLEST} and 2^{LARGEST}",
        )
    return n


def deal_one_hot(e0: Tensor, position: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """XOR-share one-hots: e0 uint8[N, 2^n/8], position int64[N] (mod 2^n) -> (e1 uint8[N, 2^n/8], sign int64[N]).

    e1 = e0 XOR one-hot(position); sign = +1 where e0 holds the bit, else -1, so that
    sum_j (e0[j] - e1[j]) T[j] = sign * T[position]. e0 must be uniform and unknown to the receiver of e1.
    ``out`` receives e1 and may be e0 itself.
    """
    expect("lookup.deal_one_hot", "e0", e0, torch.uint8, (None, None))
    expect("lookup.deal_one_hot", "position", position, torch.int64, (len(e0),))
    domain_log("lookup.deal_one_hot", 8 * e0.shape[1])
    if out is None:
        out = e0.clone(memory_format=torch.contiguous_format)
    else:
        expect("lookup.deal_one_hot", "out", out, torch.uint8, tuple(e0.shape))
        if out.data_ptr() != e0.data_ptr():
            out.copy_(e0)
    if on_cuda("lookup.deal_one_hot", out, position):
        flipped = out if out.is_contiguous() else out.contiguous()
        sign = cuda.deal_one_hot(flipped, position.contiguous())
        return out if flipped is out else out.copy_(flipped), sign
    sign = torch.empty(len(e0), dtype=torch.int64)
    lookup_tile.flip(out.numpy(), position.contiguous().numpy(), sign.numpy())
    return out, sign


def prepare(tables: Tensor) -> PreparedTables:
    """tables int64[K, 2^n], n from 3 to 16 -> PreparedTables. 40 bytes a coefficient up to n = 10, 8 above."""
    expect("lookup.prepare", "tables", tables, torch.int64, (None, None))
    n = domain_log("lookup.prepare", tables.shape[1])
    kept = tables.contiguous().clone()
    if on_cuda("lookup.prepare", tables):
        return PreparedTables(n, kept, (cuda.prepare(kept, n),), True)
    if body() == "plain":
        return PreparedTables(n, kept, ())
    most = lookup_tile.MOST_TABLES
    groups = [kept[k : k + most] for k in range(0, len(kept), most)]
    if n > KEPT:
        return PreparedTables(
            n, kept, tuple(torch.empty((0, 16, len(g), 16), dtype=torch.int64) for g in groups)
        )
    return PreparedTables(
        n, kept, tuple(_aligned(lookup_tile.subset_sums(group.numpy())) for group in groups)
    )


def lookup_sums(bits: Tensor, c: Tensor, prepared: PreparedTables) -> Tensor:
    """bits uint8[N, 2^n/8], c int64[N] (mod 2^n) -> int64[N, K]: sum over j of bit_j * T[k][(c - j) mod 2^n] mod 2^64.

    Groups of rows with their own tables: one call a group, each with its prepared tables.
    """
    expect("lookup.lookup_sums", "bits", bits, torch.uint8, (None, 1 << (prepared.n - 3)))
    expect("lookup.lookup_sums", "c", c, torch.int64, (len(bits),))
    if on_cuda("lookup.lookup_sums", bits, c, prepared.tables) != prepared.cuda:
        raise DeviceError(
            "kernel lookup.lookup_sums: tables prepared for another body", remedy="prepare them again"
        )
    if prepared.cuda:
        rows = bits.contiguous()
        rows = rows if rows.data_ptr() % 8 == 0 else rows.clone()
        return cuda.lookup_sums(rows, c.contiguous(), prepared.sums[0], prepared.n)
    out = torch.empty((len(bits), prepared.count), dtype=torch.int64)
    by = c.contiguous().numpy()
    if not prepared.sums:
        lookup_tile.lookup_plain(bits.contiguous().numpy(), by, prepared.tables.numpy(), out.numpy())
    elif len(bits):
        words = _words(bits, c, prepared.n)
        turn = by if prepared.n >= 6 else np.zeros_like(by)
        for i, sums in enumerate(prepared.sums):
            first = i * lookup_tile.MOST_TABLES
            block = max(lookup_tile.BLOCK_BYTES // (2048 * sums.shape[2]), 1)
            found = out[:, first : first + sums.shape[2]].numpy()
            tables = prepared.tables[first : first + sums.shape[2]].numpy()
            for row in range(0, len(bits), ROWS_AT_ONCE):
                some = slice(row, row + ROWS_AT_ONCE)
                lookup_tile.lookup(words[some], turn[some], tables, sums.numpy(), block, found[some])
    return out


def _words(bits: Tensor, c: Tensor, n: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """The rows as uint64[N, W]. A domain below 64 is one word, already rotated; what lies above it is ignored."""
    if n >= 6:
        rows = bits.contiguous()
        return (rows if rows.data_ptr() % 8 == 0 else rows.clone()).numpy().view(np.uint64)
    size = 1 << n
    narrow = {3: np.uint8, 4: np.uint16, 5: np.uint32}[n]
    word = np.ascontiguousarray(bits.numpy()).view(narrow).astype(np.uint64)
    twice: np.ndarray[tuple[int, int], np.dtype[np.uint64]] = word | word << np.uint64(size)
    return twice >> (c.numpy()[:, None] & (size - 1)).astype(np.uint64)


def _aligned(sums: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Tensor:
    """A copy that starts at a multiple of 64 bytes."""
    memory = torch.empty(sums.size + 8, dtype=torch.int64)
    skip = -memory.data_ptr() % 64 // 8
    return memory[skip : skip + sums.size].copy_(torch.from_numpy(sums.reshape(-1))).reshape(sums.shape)
