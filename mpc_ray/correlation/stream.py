"""Keys and key streams: bytes in, bytes out, on ``cryptography`` and numpy alone, since clients expand shares too.

PRF: AES-128-CTR (default) or ChaCha20. Which names a stream may have is ``prf``'s matter.
"""

from __future__ import annotations

import struct
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Prf = Literal["aes128ctr", "chacha20"]

_PIECE = 1 << 18  # bytes expanded at a time: the zeros that are encrypted stay in the L2 cache
_ZEROS = bytes(_PIECE)


def derive(secret: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-SHA-256 of ``secret`` without salt (RFC 5869); ``info`` separates the uses."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(secret)


def expand(
    key: bytes, step: int, chunk: int, length: int, prf: Prf = "aes128ctr", start: int = 0
) -> np.ndarray:
    """``length`` pseudo-random bytes, uint8. ``key`` has 32 bytes (AES-128 uses the first 16).

    From byte ``start`` of the stream on, a multiple of 64.

    The 16-byte counter block is step (4 bytes), chunk (4), block counter (8) for AES; for ChaCha20 it is
    RFC 8439's: a 4-byte block counter from 0, then step (4) and chunk (8) as the 12-byte nonce.
    """
    if start % 64:
        raise ValueError("a stream is entered at a multiple of 64 bytes")
    if prf == "aes128ctr":
        return keystream(key, struct.pack(">IIQ", step, chunk, start // 16), length, prf)
    return keystream(key, struct.pack("<I", start // 64) + struct.pack(">IQ", step, chunk), length, prf)


def keystream(key: bytes, block: bytes, length: int, prf: Prf = "aes128ctr") -> np.ndarray:
    """The cipher's key stream from the 16-byte counter block ``block`` on, uint8 of ``length``."""
    out = np.empty(length, np.uint8)
    fill(out.data, key, block, prf)
    return out


def fill(into: memoryview, key: bytes, block: bytes, prf: Prf = "aes128ctr") -> None:
    """As ``keystream``, into a writeable "B" view."""
    cipher: Cipher[modes.CTR | None]
    if prf == "aes128ctr":
        cipher = Cipher(algorithms.AES(key[:16]), modes.CTR(block))
    elif prf == "chacha20":
        cipher = Cipher(algorithms.ChaCha20(key, block), mode=None)
    else:
        raise ValueError(f"unknown PRF {prf!r}")
    encryptor = cipher.encryptor()
    for start in range(0, len(into), _PIECE):
        piece = min(_PIECE, len(into) - start)
        zeros = _ZEROS if piece == _PIECE else memoryview(_ZEROS)[:piece]
        encryptor.update_into(zeros, into[start : start + piece])
