"""ChaCha20 key streams (RFC 8439) straight into what uses them, on the CPU and on a device with the same bytes.

A stream is named by a key of 32 bytes and a nonce of 12; its first block is number 0. Read as elements of Z_2^64 it is
little endian, 8 elements a block. Which names a stream may have, and that none is used twice, is the caller's matter.
"""

from __future__ import annotations

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms

from mpc_ray.errors import InputError

from . import elementwise_loops as loops
from .checks import same_shape, wrap
from .cuda import stream as cuda
from .device import on_cuda

Tensor = torch.Tensor
LONGEST = 64 << 32  # bytes: the block counter has 32 bits
PIECE = 1 << 14  # elements expanded at a time: they are used while still in the first-level caches
_ZEROS = bytes(8 * PIECE)


def _cipher(key: bytes, nonce: bytes) -> CipherContext:
    return Cipher(algorithms.ChaCha20(key, bytes(4) + nonce), mode=None).encryptor()


def _check(name: str, nbytes: int, *parts: tuple[bytes, int]) -> None:
    for part, length in parts:
        if len(part) != length:
            raise InputError(
                f"kernel {name}: {len(part)} bytes, not {length}", remedy="pass a key of 32, a nonce of 12"
            )
    if nbytes > LONGEST:
        raise InputError(f"kernel {name}: a stream of {nbytes} bytes", remedy="a nonce names at most 256 GiB")


def expand_reference(key: bytes, nonce: bytes, n: int) -> Tensor:
    """The definition of ``expand``, by the library ``cryptography``."""
    return torch.frombuffer(
        bytearray(_cipher(key, nonce).update(bytes(n))) or bytearray(1), dtype=torch.uint8
    )[:n]


def expand(key: bytes, nonce: bytes, out: Tensor) -> Tensor:
    """Fill out, uint8[n] contiguous, with the stream; on a device its address must be divisible by 8."""
    n = out.numel()
    _check("stream.expand", n, (key, 32), (nonce, 12))
    if on_cuda("stream.expand", out):
        cuda.expand(key, nonce, out)
        return out
    cipher, view = _cipher(key, nonce), out.view(-1).numpy().data
    for start in range(0, n, len(_ZEROS)):
        piece = min(len(_ZEROS), n - start)
        cipher.update_into(memoryview(_ZEROS)[:piece], view[start : start + piece])
    return out


def _words(key: bytes, nonce: bytes, n: int) -> Tensor:
    return expand_reference(key, nonce, 8 * n).view(torch.int64)


def add_reference(z: Tensor, key: bytes, nonce: bytes, constant: int, minus: bool = False) -> Tensor:
    """The definition of ``add``."""
    words = _words(key, nonce, z.numel()).reshape(z.shape)
    return z + wrap(constant) + (-words if minus else words)


def add(
    z: Tensor, key: bytes, nonce: bytes, constant: int, minus: bool = False, out: Tensor | None = None
) -> Tensor:
    """z + F + constant, or z - F + constant: z int64 of any shape, F the stream. ``out``, contiguous, may be z."""
    same_shape("stream.add", z, *([] if out is None else [out]))
    _check("stream.add", 8 * z.numel(), (key, 32), (nonce, 12))
    out = torch.empty(z.shape, dtype=torch.int64, device=z.device) if out is None else out
    if on_cuda("stream.add", z, out):
        cuda.add(z.contiguous(), key, nonce, minus, wrap(constant), out)
    else:
        combine = loops.subtract_with if minus else loops.add_with
        cipher, given, into = _cipher(key, nonce), z.contiguous().view(-1).numpy(), out.view(-1).numpy()
        piece = np.empty(PIECE, np.int64)
        for start in range(0, given.size, PIECE):
            some = slice(start, start + PIECE)
            used = piece[: given[some].size]
            cipher.update_into(memoryview(_ZEROS)[: used.nbytes], used.view(np.uint8).data)
            combine(given[some], used, wrap(constant), into[some])
    return out


def zero_share_reference(z: Tensor, plus: bytes, minus: bytes, nonce: bytes) -> Tensor:
    """The definition of ``zero_share``."""
    return add_reference(add_reference(z, plus, nonce, 0), minus, nonce, 0, minus=True)


def zero_share(z: Tensor, plus: bytes, minus: bytes, nonce: bytes) -> Tensor:
    """z + F(plus) - F(minus): blinded by a share of zero, of which each key gives half. z int64 of any shape."""
    same_shape("stream.zero_share", z)
    _check("stream.zero_share", 8 * z.numel(), (plus, 32), (minus, 32), (nonce, 12))
    if on_cuda("stream.zero_share", z):
        out = torch.empty(z.shape, dtype=torch.int64, device=z.device)
        cuda.zero_share(z.contiguous(), plus, minus, nonce, out)
        return out
    blinded = add(z, plus, nonce, 0)
    return add(blinded, minus, nonce, 0, minus=True, out=blinded)
