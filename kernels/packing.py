"""Bytes and bits packed tight for the wire, little endian."""

from __future__ import annotations

import torch

Tensor = torch.Tensor


def pack_low_bytes(x: Tensor, nbytes: int) -> Tensor:
    """int64[N] -> uint8[N * nbytes]: the low bytes of every element, little endian."""
    return x.contiguous().view(torch.uint8).reshape(-1, 8)[:, :nbytes].reshape(-1).clone()


def unpack_low_bytes(data: Tensor, nbytes: int) -> Tensor:
    """uint8[N * nbytes] -> int64[N], zero above the packed bytes."""
    wide = torch.zeros((data.numel() // nbytes, 8), dtype=torch.uint8)
    wide[:, :nbytes] = data.reshape(-1, nbytes)
    return wide.view(torch.int64).reshape(-1)


def pack_bits(x: Tensor, bits: int) -> Tensor:
    """int64|uint8|uint16[N] -> uint8[ceil(N bits / 8)]: the low ``bits`` of each value, tight, little endian."""
    flat = ((x.to(torch.int64)[:, None] >> torch.arange(bits)) & 1).reshape(-1)
    padded = torch.zeros((len(flat) + 7) // 8 * 8, dtype=torch.int64)
    padded[: len(flat)] = flat
    return (padded.reshape(-1, 8) << torch.arange(8)).sum(1).to(torch.uint8)


def unpack_bits(data: Tensor, n: int, bits: int) -> Tensor:
    """uint8[ceil(n bits / 8)] -> int64[n]."""
    flat = ((data.to(torch.int64)[:, None] >> torch.arange(8)) & 1).reshape(-1)[: n * bits]
    return (flat.reshape(n, bits) << torch.arange(bits)).sum(1)
