"""The point function of ``dpf`` in Python integers, one point after the other: its definition, slow and short."""

from __future__ import annotations

import torch

from .dpf import FIXED_KEYS, LEAF_LOG, Keys, key_bytes
from .dpf_levels import cipher

Tensor = torch.Tensor


def _integer(row: Tensor) -> int:
    return int.from_bytes(bytes(row.tolist()), "little")


def _hash(side: str, block: int) -> int:
    return int.from_bytes(cipher(FIXED_KEYS[side]).update(block.to_bytes(16, "little")), "little") ^ block


def generate_reference(seed0: Tensor, seed1: Tensor, position: Tensor, n: int) -> tuple[Keys, Tensor]:
    """The definition of ``dpf.generate``."""
    levels = n - LEAF_LOG
    rows, signs = [], []
    for s0, s1, at in zip(seed0, seed1, position.tolist(), strict=True):
        node = [_integer(s0) & ~1, _integer(s1) | 1]
        body, control = b"", 0
        for level in range(levels):
            turn = at >> (n - 1 - level) & 1
            hashes = [[_hash(side, x) for side in ("left", "right")] for x in node]
            both = [hashes[0][side] ^ hashes[1][side] for side in (0, 1)]
            lose = both[1 - turn] & ~1
            bits = [both[side] & 1 ^ int(side == turn) for side in (0, 1)]
            body += lose.to_bytes(16, "little")
            control |= bits[0] << 2 * level | bits[1] << 2 * level + 1
            node = [hashes[p][turn] ^ (node[p] & 1) * (lose | bits[turn]) for p in (0, 1)]
        share = [_hash("leaf", x) for x in node]
        hot = 1 << (at & 127)
        cut = share[0] ^ share[1] ^ hot
        body += cut.to_bytes(16, "little") + control.to_bytes((2 * levels + 7) // 8, "little")
        rows.append(list(body))
        signs.append(1 if (share[0] ^ (node[0] & 1) * cut) & hot else -1)
    data = torch.tensor(rows, dtype=torch.uint8).reshape(len(rows), key_bytes(n))
    return Keys(data, n), torch.tensor(signs, dtype=torch.int64)


def expand_reference(seed: Tensor, party: int, keys: Keys, n: int) -> Tensor:
    """The definition of ``dpf.expand``."""
    levels = n - LEAF_LOG
    rows = []
    for s, row in zip(seed, keys.data, strict=True):
        cuts = [_integer(row[16 * i : 16 * i + 16]) for i in range(levels + 1)]
        control = _integer(row[16 * levels + 16 :])
        nodes = [_integer(s) & ~1 | party]
        for level in range(levels):
            sides = [
                (side, cuts[level] & ~1 | control >> 2 * level + i & 1)
                for i, side in enumerate(("left", "right"))
            ]
            nodes = [_hash(side, x) ^ (x & 1) * cut for x in nodes for side, cut in sides]
        leaves = [_hash("leaf", x) ^ (x & 1) * cuts[levels] for x in nodes]
        rows.append(list(b"".join(leaf.to_bytes(16, "little") for leaf in leaves)))
    return torch.tensor(rows, dtype=torch.uint8).reshape(len(rows), 1 << (n - 3))
