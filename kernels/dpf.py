"""XOR shares of a one-hot of 2^n bits from short keys: a distributed point function.

Boyle, Gilboa, Ishai, "Function Secret Sharing: Improvements and Extensions" (CCS 2016), section 3.2, with early
termination (section 3.2.3): n - 7 levels, leaves of 128 bits. A node is 128 bits, its lowest bit the control bit. The
pseudorandom generator is the Matyas-Meyer-Oseas hash of fixed-key AES-128, H(x) = AES(x) xor x, under three public keys
(left child, right child, leaf); Guo, Katz, Wang, Yu, "Efficient and Secure Multiparty Computation from Fixed-Key Block
Ciphers" (S&P 2020) gives the model (ideal cipher) in which it is correlation-robust. Each root seed must be uniform,
used once, and unknown to the other party.

With hash_s(x) the child's 128 bits and cut_s the correction word of side s (its lowest bit that side's control bit):
child_s = hash_s(x) xor (cut_s if x's control bit is 1). Both parties hold equal nodes off the path, so equal bits; on
the path their control bits differ, and the last correction word leaves exactly the one bit between the two leaves.

Bit j of the domain is bit (j & 7) of byte j >> 3, as in ``lookup``.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass

import numpy as np
import torch

from mpc_ray.errors import InputError

from . import dpf_levels as steps
from .checks import expect, in_range
from .cuda import dpf as cuda
from .device import on_cuda
from .lookup import PreparedTables, lookup_sums

Tensor = torch.Tensor

LEAF_LOG = 7
SMALLEST, LARGEST = 8, 24
FIXED_KEYS = {
    side: hashlib.sha256(f"mpc-ray point function, version 1, {side}".encode()).digest()[:16]
    for side in ("left", "right", "leaf")
}
_KEYS = tuple(FIXED_KEYS[side] for side in ("left", "right", "leaf"))
# Leaves expanded together: with the levels above them they stay in the second-level cache.
CHUNK_BYTES = 1 << 19
SUMS_BYTES = 1 << 22  # of one-hots that ``evaluate_sums`` holds at a time
CUDA_SUMS_BYTES = 1 << 28  # the same on a device, whose launches want more rows


def key_bytes(n: int) -> int:
    """Bytes of one key body: n - 7 seed corrections and the leaf's, 16 bytes each, then 2 (n - 7) control bits."""
    return 16 * (n - LEAF_LOG) + 16 + (2 * (n - LEAF_LOG) + 7) // 8


@dataclass(frozen=True)
class Keys:
    """Correction words of N points over the domain 2^n; ``data`` uint8[N, key_bytes(n)] is the wire form.

    A row: correction words from the root down, the leaf's, then the control bits, level l's left one at bit 2 l and
    right one at bit 2 l + 1. Public to both parties: without a root seed it says nothing of the position.
    """

    data: Tensor
    n: int

    def __post_init__(self) -> None:
        in_range("dpf.Keys", "n", self.n, SMALLEST, LARGEST)
        expect("dpf.Keys", "data", self.data, torch.uint8, (None, key_bytes(self.n)))


def _check(name: str, seed: Tensor, n: int) -> None:
    in_range(name, "n", n, SMALLEST, LARGEST)
    expect(name, "seed", seed, torch.uint8, (None, 16))


def generate(seed0: Tensor, seed1: Tensor, position: Tensor, n: int) -> tuple[Keys, Tensor]:
    """Dealer's part: seeds uint8[N, 16] of the two parties, position int64[N] (mod 2^n), 8 <= n <= 24.

    Returns the keys that both parties get, and sign int64[N], the dealer's: +1 where party 0's share holds the one bit,
    else -1. 4 n - 26 AES blocks a point.
    """
    for seed in (seed0, seed1):
        _check("dpf.generate", seed, n)
    expect("dpf.generate", "seed1", seed1, torch.uint8, tuple(seed0.shape))
    expect("dpf.generate", "position", position, torch.int64, (len(seed0),))
    if on_cuda("dpf.generate", seed0, seed1, position):
        filled = torch.empty((len(seed0), key_bytes(n)), dtype=torch.uint8, device=seed0.device)
        roots = (seed0.contiguous(), seed1.contiguous())
        return Keys(filled, n), cuda.generate(*roots, position.contiguous(), n, filled, _KEYS)
    data = torch.zeros((len(seed0), key_bytes(n)), dtype=torch.uint8)
    sign = torch.empty(len(seed0), dtype=torch.int64)
    count = len(seed0)
    if count:
        words = 4 * count
        both, hashes = steps.line(words), [steps.line(words), steps.line(words)]
        nodes, left, right = (memory[:words].reshape(2, 2 * count) for memory in (both, *hashes))
        for party, seed in enumerate((seed0, seed1)):
            steps.roots(seed.contiguous().numpy(), party, count, nodes[party])
        at = (position & ((1 << n) - 1)).numpy()
        ciphers = [steps.cipher(FIXED_KEYS[side]) for side in ("left", "right", "leaf")]
        for level in range(n - LEAF_LOG):
            for aes, hashed in zip(ciphers[:2], hashes, strict=True):
                steps.permute(aes, both, hashed, words)
            steps.deal_level(level, n, at, nodes, left, right, data.numpy())
        steps.permute(ciphers[2], both, hashes[0], words)
        steps.deal_leaf(n, at, nodes, left, data.numpy(), sign.numpy())
    return Keys(data, n), sign


class _Buffers(threading.local):
    """A thread's working memory, kept between calls: fresh pages would cost as much as the AES that fills them."""

    def __init__(self) -> None:
        self.kept: dict[str, steps.Word] = {}

    def line(self, name: str, words: int) -> steps.Word:
        """uint64[words + 2] from a 64-byte boundary, with whatever was in it."""
        if name not in self.kept or len(self.kept[name]) < words + 2:
            self.kept[name] = steps.line(words)
        return self.kept[name][: words + 2]


_buffers = _Buffers()


class _Expander:
    """Buffers and ciphers for chunks of up to ``rows`` rows, kept over the chunks of a call."""

    def __init__(self, rows: int, n: int) -> None:
        self.levels, self.rows = n - LEAF_LOG, -(-rows // 4) * 4
        words = 2 * self.rows << self.levels
        self.nodes = [_buffers.line(f"nodes {i}", words) for i in (0, 1)]
        self.hashes = [_buffers.line("hashes 0", words), _buffers.line("hashes 1", words // 2)]
        self.left, self.right = (np.empty((self.levels, 2 * self.rows), np.uint64) for _ in (0, 1))
        self.leaf = np.empty(2 * self.rows, np.uint64)
        self.ciphers = [steps.cipher(FIXED_KEYS[side]) for side in ("left", "right", "leaf")]

    def expand(self, seed: Tensor, party: int, data: Tensor, out: Tensor) -> None:
        """out uint8[r, 2^n / 8], contiguous, r <= rows, from seed uint8[r, 16] and keys uint8[r, key bytes]."""
        rows, width = self.rows, 2 * self.rows
        steps.corrections(data.contiguous().numpy(), self.levels, rows, self.left, self.right, self.leaf)
        above, below = self.nodes
        steps.roots(seed.contiguous().numpy(), party, rows, above)
        for level in range(self.levels):
            for aes, hashed in zip(self.ciphers[:2], self.hashes, strict=True):
                steps.permute(aes, above, hashed, width << level)
            hashes, cuts = self.hashes, (self.left[level], self.right[level])
            steps.descend(above, hashes[0], hashes[1], cuts[0], cuts[1], 1 << level, below)
            above, below = below, above
        steps.permute(self.ciphers[2], above, self.hashes[0], width << self.levels)
        steps.leaves(above, self.hashes[0], self.leaf, 1 << self.levels, out.numpy().view(np.uint64))


def _expand_into(seed: Tensor, party: int, data: Tensor, n: int, expander: _Expander, out: Tensor) -> None:
    for row in range(0, len(seed), expander.rows):
        some = slice(row, row + expander.rows)
        expander.expand(seed[some], party, data[some], out[some])


def _expander(count: int, n: int) -> _Expander:
    most = max(CHUNK_BYTES >> (n - 3), 4)
    chunks = -(-count // most)
    return _Expander(-(-count // chunks), n)


def expand(seed: Tensor, party: int, keys: Keys, n: int) -> Tensor:
    """A party's share of the one-hots: seed uint8[N, 16], party 0 or 1, its keys -> uint8[N, 2^n / 8].

    3 * 2^(n - 7) - 2 AES blocks a row.
    """
    _check_evaluation("dpf.expand", seed, party, keys, n)
    out = torch.empty((len(seed), 1 << (n - 3)), dtype=torch.uint8, device=seed.device)
    if on_cuda("dpf.expand", seed, keys.data):
        cuda.expand(seed.contiguous(), party, keys.data.contiguous(), n, out, _KEYS)
    elif len(seed):
        _expand_into(seed, party, keys.data, n, _expander(len(seed), n), out)
    return out


def evaluate_sums(
    seed: Tensor, party: int, keys: Keys, c: Tensor, prepared: PreparedTables, n: int
) -> Tensor:
    """``expand`` and ``lookup.lookup_sums`` together: c int64[N], K tables -> int64[N, K].

    Holds at most 8 MB, on a device 256 MB.
    """
    _check_evaluation("dpf.evaluate_sums", seed, party, keys, n)
    expect("dpf.evaluate_sums", "c", c, torch.int64, (len(seed),))
    if prepared.n != n:
        raise InputError(
            f"tables over 2^{prepared.n} for keys over 2^{n}", remedy="prepare tables of the keys' domain"
        )
    sums = torch.empty((len(seed), prepared.count), dtype=torch.int64, device=seed.device)
    if on_cuda("dpf.evaluate_sums", seed, keys.data, c):
        most = max(CUDA_SUMS_BYTES >> (n - 3), 1)
        for row in range(0, len(seed), most):
            some = slice(row, row + most)
            one_hots = expand(seed[some], party, Keys(keys.data[some], n), n)
            sums[some] = lookup_sums(one_hots, c[some], prepared)
    elif len(seed):
        rows = min(max(SUMS_BYTES >> (n - 3), 1), len(seed))
        expander = _expander(rows, n)
        memory = torch.from_numpy(_buffers.line("one-hots", rows << (n - 6)).view(np.uint8))
        bits = memory[: rows << (n - 3)].reshape(rows, 1 << (n - 3))
        for row in range(0, len(seed), rows):
            some = slice(row, row + rows)
            share = bits[: len(seed[some])]
            _expand_into(seed[some], party, keys.data[some], n, expander, share)
            sums[some] = lookup_sums(share, c[some], prepared)
    return sums


def _check_evaluation(name: str, seed: Tensor, party: int, keys: Keys, n: int) -> None:
    _check(name, seed, n)
    in_range(name, "party", party, 0, 1)
    if keys.n != n or len(keys.data) != len(seed):
        raise InputError(
            f"kernel {name}: {len(keys.data)} keys over 2^{keys.n} beside {len(seed)} seeds over 2^{n}",
            remedy="pass one key for every seed, of the same domain",
        )
