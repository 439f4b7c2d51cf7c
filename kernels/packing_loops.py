"""The compiled loops of ``packing``. Words are stored and loaded at any byte, so elements of odd width overlap:
each store's spare bytes are what the next one writes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from .compiled import compiled, intrinsic
from .vector_ir import I64, load, store

Byte = NDArray[np.uint8]
Int = NDArray[np.int64]


@intrinsic
def load_word(typing: Any, address: Any) -> Any:
    """The little-endian int64 at any byte address."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return load(b, I64, args[0], 0, 1)

    return types.int64(types.int64), code


@intrinsic
def store_word(typing: Any, address: Any, value: Any) -> Any:
    """Store an int64 at any byte address."""

    def code(context: Any, b: Any, signature: Any, args: Any) -> Any:
        store(b, args[1], args[0], 0, 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), code


@compiled
def pack_bytes(x: Int, width: int, out: Byte) -> None:
    """out[width i ..] = the low ``width`` bytes of x[i]."""
    whole = (out.size - 8) // width + 1 if out.size >= 8 else 0
    to = out.ctypes.data
    for i in range(whole):
        store_word(to + i * width, x[i])
    for i in range(whole, x.size):
        for byte in range(width):
            out[i * width + byte] = np.uint8((x[i] >> (8 * byte)) & 255)


@compiled
def unpack_bytes(data: Byte, width: int, out: Int) -> None:
    """out[i] = the ``width`` bytes from data[width i], zero-extended."""
    whole = (data.size - 8) // width + 1 if data.size >= 8 else 0
    mask = np.int64(-1) if width == 8 else (np.int64(1) << np.int64(8 * width)) - np.int64(1)
    source = data.ctypes.data
    for i in range(whole):
        out[i] = load_word(source + i * width) & mask
    for i in range(whole, out.size):
        value = np.int64(0)
        for byte in range(width):
            value |= np.int64(data[i * width + byte]) << (8 * byte)
        out[i] = value


@compiled
def pack_bits(x: Any, bits: int, out: Byte) -> None:
    """The low ``bits`` of every element one after the other, low bit first."""
    mask = np.uint64((1 << bits) - 1)
    word, fill, at = np.uint64(0), 0, 0
    to = out.ctypes.data
    for i in range(x.size):
        value = np.uint64(x[i]) & mask
        word |= value << np.uint64(fill)
        fill += bits
        if fill >= 64:
            store_word(to + at, np.int64(word))
            at += 8
            fill -= 64
            word = value >> np.uint64(bits - fill)
    while at < out.size:
        out[at] = np.uint8(word & np.uint64(255))
        word >>= np.uint64(8)
        at += 1


@compiled
def unpack_bits(data: Byte, bits: int, out: Int) -> None:
    """The inverse of ``pack_bits``."""
    mask = np.int64((1 << bits) - 1)
    source, size = data.ctypes.data, data.size
    for i in range(out.size):
        first = i * bits
        byte, shift = first >> 3, first & 7
        if byte + 8 <= size:
            out[i] = (load_word(source + byte) >> shift) & mask
        else:
            value = np.int64(0)
            for spot in range(byte, size):
                value |= np.int64(data[spot]) << (8 * (spot - byte))
            out[i] = (value >> shift) & mask
