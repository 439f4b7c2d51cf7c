"""Bodies of ``kernels.dpf``, with the fixed keys' schedules as the bit planes that ``aes.cuh`` reads."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from .launch import blocks, launch

Tensor = torch.Tensor
THREADS = 128
LEAF_LOG = 7
SUBTREE = 9  # levels of a tree that one block holds: 8 + 4 KB of nodes


def _substitution() -> list[int]:
    """The S-box of FIPS 197: the inverse in GF(2^8), then an affine map."""
    powers = [1]
    for _ in range(254):
        x = powers[-1]
        powers.append(x ^ x << 1 ^ (0x11B if x & 0x80 else 0))  # times 3, a generator
    box = []
    for value in range(256):
        inverse = powers[(255 - powers.index(value)) % 255] if value else 0
        turned = inverse
        for shift in (1, 2, 3, 4):
            turned ^= (inverse << shift | inverse >> (8 - shift)) & 255
        box.append(turned ^ 0x63)
    return box


def round_keys(key: bytes) -> list[bytes]:
    """The 11 round keys of AES-128 (FIPS 197, section 5.2)."""
    box = _substitution()
    words, constant = [list(key[i : i + 4]) for i in range(0, 16, 4)], 1
    for i in range(4, 44):
        word = words[i - 1]
        if i % 4 == 0:
            word = [box[b] for b in (*word[1:], word[0])]
            word[0] ^= constant
            constant = constant << 1 ^ (0x11B if constant & 0x80 else 0)
        words.append([a ^ b for a, b in zip(words[i - 4], word, strict=True)])
    return [bytes(b for word in words[i : i + 4] for b in word) for i in range(0, 44, 4)]


def planes(block: bytes) -> list[int]:
    """16 bytes, the same for both blocks of a thread, as eight planes: bit 8 r + 2 c + b of plane p."""
    out = [0] * 8
    for i, byte in enumerate(block):
        for p in range(8):
            if byte >> p & 1:
                out[p] |= 3 << (8 * (i % 4) + 2 * (i // 4))
    return out


@cache
def schedules(keys: tuple[bytes, ...], place: torch.device) -> Tensor:
    """int32[keys, 11, 8] on a device."""
    words = [[planes(k) for k in round_keys(key)] for key in keys]
    return torch.from_numpy(np.array(words, np.uint32).view(np.int32)).to(place)


def generate(
    seed0: Tensor, seed1: Tensor, position: Tensor, n: int, data: Tensor, keys: tuple[bytes, ...]
) -> Tensor:
    """Fill data uint8[N, key bytes]; the dealer's signs, int64[N]. Tensors are contiguous."""
    rows = len(seed0)
    sign = torch.empty(rows, dtype=torch.int64, device=seed0.device)
    table = schedules(keys, seed0.device)
    launch(
        "dpf_generate",
        blocks(rows, THREADS),
        THREADS,
        *(seed0, seed1, position, rows, n, data.shape[1], table, data, sign),
    )
    return sign


def expand(seed: Tensor, party: int, data: Tensor, n: int, out: Tensor, keys: tuple[bytes, ...]) -> None:
    """Fill out uint8[N, 2^n / 8] from seeds and keys; contiguous, out from an address divisible by 16."""
    levels = n - LEAF_LOG
    deep = min(levels, SUBTREE)
    launch(
        "dpf_expand",
        (len(seed), 1 << (levels - deep), 1),
        max(32, min(256, 1 << deep)),
        *(seed, party, data, data.shape[1], n, deep, schedules(keys, seed.device), out),
        shared=16 * (2 * levels + 1 + (2 << deep)),
    )
