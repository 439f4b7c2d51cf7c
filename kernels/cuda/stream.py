"""Bodies of ``kernels.stream``: ChaCha20 expanded on the device, into memory or straight into a sum."""

from __future__ import annotations

import struct

import torch

from .launch import blocks, launch

Tensor = torch.Tensor
THREADS = 128


def _key(key: bytes) -> tuple[int, ...]:
    return struct.unpack("<4Q", key)


def _nonce(nonce: bytes) -> tuple[int, ...]:
    return struct.unpack("<3I", nonce)


def expand(key: bytes, nonce: bytes, out: Tensor, counter: int = 0) -> None:
    """The key stream into uint8[n] contiguous from an address divisible by 8."""
    n = out.numel()
    launch("stream_bytes", blocks(n, 64 * THREADS), THREADS, *_key(key), *_nonce(nonce), counter, out, n)


def add(z: Tensor, key: bytes, nonce: bytes, minus: bool, constant: int, out: Tensor) -> None:
    """out = z +- F + constant; int64, contiguous."""
    n = z.numel()
    grid = blocks(n, 8 * THREADS)
    launch("stream_add", grid, THREADS, z, *_key(key), *_nonce(nonce), int(minus), constant, out, n)


def zero_share(z: Tensor, plus: bytes, minus: bytes, nonce: bytes, out: Tensor) -> None:
    """out = z + F(plus) - F(minus); int64, contiguous."""
    n = z.numel()
    grid = blocks(n, 8 * THREADS)
    launch("stream_zero_share", grid, THREADS, z, *_key(plus), *_key(minus), *_nonce(nonce), out, n)
