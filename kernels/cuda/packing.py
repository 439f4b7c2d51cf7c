"""Bodies of ``kernels.packing``; arguments are checked there."""

from __future__ import annotations

import torch

from .launch import blocks, launch

Tensor = torch.Tensor
THREADS = 256


def pack_low_bytes(x: Tensor, nbytes: int) -> Tensor:
    size = len(x) * nbytes
    out = torch.empty(size, dtype=torch.uint8, device=x.device)
    launch("pack_low_bytes", blocks(blocks(size, 8), THREADS), THREADS, x, nbytes, out, size)
    return out


def unpack_low_bytes(data: Tensor, nbytes: int) -> Tensor:
    n = len(data) // nbytes
    out = torch.empty(n, dtype=torch.int64, device=data.device)
    launch("unpack_low_bytes", blocks(n, THREADS), THREADS, data, nbytes, out, n)
    return out


def pack_bits(x: Tensor, bits: int) -> Tensor:
    size = (len(x) * bits + 7) // 8
    out = torch.empty(size, dtype=torch.uint8, device=x.device)
    kind = str(x.dtype).removeprefix("torch.")
    launch(f"pack_bits_{kind}", blocks(blocks(size, 8), THREADS), THREADS, x, len(x), bits, out, size)
    return out


def unpack_bits(data: Tensor, n: int, bits: int) -> Tensor:
    out = torch.empty(n, dtype=torch.int64, device=data.device)
    launch("unpack_bits", blocks(n, THREADS), THREADS, data, len(data), bits, out, n)
    return out
