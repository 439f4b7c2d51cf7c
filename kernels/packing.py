"""Bytes and bits packed tight for the wire, little endian."""

from __future__ import annotations

import numpy as np
import torch

from mpc_ray.errors import InputError

from . import packing_loops as loops
from .checks import expect, in_range
from .cuda import packing as cuda
from .device import on_cuda

Tensor = torch.Tensor


def pack_low_bytes_reference(x: Tensor, nbytes: int) -> Tensor:
    """The definition of ``pack_low_bytes``."""
    return ((x[:, None] >> 8 * torch.arange(nbytes)) & 255).to(torch.uint8).reshape(-1)


def pack_low_bytes(x: Tensor, nbytes: int) -> Tensor:
    """x int64[N] -> uint8[N * nbytes]: the low 1 to 8 bytes of every element."""
    expect("packing.pack_low_bytes", "x", x, torch.int64, (None,))
    in_range("packing.pack_low_bytes", "nbytes", nbytes, 1, 8)
    if on_cuda("packing.pack_low_bytes", x):
        return cuda.pack_low_bytes(x.contiguous(), nbytes)
    out = torch.empty(len(x) * nbytes, dtype=torch.uint8)
    loops.pack_bytes(x.contiguous().numpy(), nbytes, out.numpy())
    return out


def unpack_low_bytes_reference(data: Tensor, nbytes: int) -> Tensor:
    """The definition of ``unpack_low_bytes``."""
    return (data.reshape(-1, nbytes).to(torch.int64) << 8 * torch.arange(nbytes)).sum(1)


def unpack_low_bytes(data: Tensor, nbytes: int) -> Tensor:
    """data uint8[N * nbytes] -> int64[N] from 0 to 256^nbytes - 1 (all of Z_2^64 for 8)."""
    expect("packing.unpack_low_bytes", "data", data, torch.uint8, (None,))
    in_range("packing.unpack_low_bytes", "nbytes", nbytes, 1, 8)
    if len(data) % nbytes:
        raise InputError(
            f"kernel packing.unpack_low_bytes: {len(data)} bytes in elements of {nbytes}",
            remedy="pass whole elements",
        )
    if on_cuda("packing.unpack_low_bytes", data):
        return cuda.unpack_low_bytes(data.contiguous(), nbytes)
    out = torch.empty(len(data) // nbytes, dtype=torch.int64)
    loops.unpack_bytes(data.contiguous().numpy(), nbytes, out.numpy())
    return out


def packed_size(n: int, bits: int) -> int:
    """Bytes of n values of ``bits`` bits."""
    return (n * bits + 7) // 8


def pack_bits_reference(x: Tensor, bits: int) -> Tensor:
    """The definition of ``pack_bits``."""
    flat = ((x.to(torch.int64)[:, None] >> torch.arange(bits)) & 1).reshape(-1)
    padded = torch.zeros(8 * packed_size(len(x), bits), dtype=torch.int64)
    padded[: len(flat)] = flat
    return (padded.reshape(-1, 8) << torch.arange(8)).sum(1).to(torch.uint8)


def pack_bits(x: Tensor, bits: int) -> Tensor:
    """x int64|uint8|uint16[N] -> uint8[ceil(N bits / 8)]: the low 1 to 16 bits of every value, low bit first.

    Spare bits of the last byte are zero.
    """
    in_range("packing.pack_bits", "bits", bits, 1, 16)
    if x.ndim != 1 or x.dtype not in (torch.int64, torch.uint8, torch.uint16):
        raise InputError(
            f"kernel packing.pack_bits: {x.dtype}{list(x.shape)}", remedy="pass int64, uint8 or uint16[N]"
        )
    if on_cuda("packing.pack_bits", x):
        return cuda.pack_bits(x.contiguous(), bits)
    out = torch.empty(packed_size(len(x), bits), dtype=torch.uint8)
    loops.pack_bits(x.contiguous().numpy(), bits, out.numpy())
    return out


def pack_flags(x: Tensor) -> Tensor:
    """x uint8[N] of 0 and 1 -> uint8[ceil(N / 8)]: ``pack_bits`` of one bit each."""
    if on_cuda("packing.pack_flags", x):
        return pack_bits(x, 1)
    return torch.from_numpy(np.packbits(x.numpy(), bitorder="little"))


def unpack_flags(data: Tensor, n: int) -> Tensor:
    """data uint8[ceil(n / 8)] -> uint8[n] of 0 and 1: ``unpack_bits`` of one bit each."""
    if on_cuda("packing.unpack_flags", data):
        return unpack_bits(data, n, 1).to(torch.uint8)
    return torch.from_numpy(np.unpackbits(data.numpy(), count=n, bitorder="little"))


def unpack_bits_reference(data: Tensor, n: int, bits: int) -> Tensor:
    """The definition of ``unpack_bits``."""
    flat = ((data.to(torch.int64)[:, None] >> torch.arange(8)) & 1).reshape(-1)[: n * bits]
    return (flat.reshape(n, bits) << torch.arange(bits)).sum(1)


def unpack_bits(data: Tensor, n: int, bits: int) -> Tensor:
    """data uint8[ceil(n bits / 8)] -> int64[n] from 0 to 2^bits - 1, 1 to 16 bits each."""
    in_range("packing.unpack_bits", "bits", bits, 1, 16)
    expect("packing.unpack_bits", "data", data, torch.uint8, (packed_size(n, bits),))
    if on_cuda("packing.unpack_bits", data):
        return cuda.unpack_bits(data.contiguous(), n, bits)
    out = torch.empty(n, dtype=torch.int64)
    loops.unpack_bits(data.contiguous().numpy(), bits, out.numpy())
    return out
