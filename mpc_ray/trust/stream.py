"""Encryption of long files in chunks: the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015).

    salt 16 · chunks of 1 MiB, the last one shorter or as long, each followed by its 16-byte tag

AES-256-GCM under a key of this file's own: HKDF-SHA-256 of the data key over the salt. The nonce is the chunk's number
(11 bytes) and whether it is the last (1 byte); the associated data is what the file says in the clear. So a chunk that
was changed, moved, left out, added, or taken from another file does not open, and neither does a file that was cut,
even between two chunks. No byte is given out before its chunk's tag was checked.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mpc_ray.errors import SealError
from mpc_ray.trust import canonical
from mpc_ray.trust.secret import Secret

CHUNK = 1 << 20
TAG = 16
SALT = 16
KEY_BYTES = 32
_PURPOSE = "mpc-ray stream v1"


def stream_size(plain: int) -> int:
    """Bytes that ``plain`` bytes take when they are sealed."""
    return SALT + plain + TAG * max(1, -(-plain // CHUNK))


class StreamWriter:
    """Seals what is written to it into ``file``, chunk by chunk; ``finish`` writes the last one.

    ``key`` has 32 bytes; ``associated`` must be the same when it is read. Memory: three chunks.
    """

    def __init__(self, file: BinaryIO, key: Secret, associated: bytes) -> None:
        salt = os.urandom(SALT)
        self._file = file
        self._cipher = _cipher(key, salt)
        self._associated = associated
        self._waiting = bytearray()
        self._count = 0
        file.write(salt)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes. A full chunk is held back until more comes, since it may be the last."""
        view = memoryview(data).cast("B")
        while len(view):
            if len(self._waiting) == CHUNK:
                self._seal(last=False)
            taken = view[: CHUNK - len(self._waiting)]
            self._waiting += taken
            view = view[len(taken) :]

    def finish(self) -> None:
        """Seal what is left as the last chunk. Nothing may be written after it."""
        self._seal(last=True)

    def _seal(self, last: bool) -> None:
        nonce = _nonce(self._count, last)
        self._file.write(self._cipher.encrypt(nonce, bytes(self._waiting), self._associated))
        self._waiting.clear()
        self._count += 1


class StreamReader:
    """Gives out what a ``StreamWriter`` sealed. ``source`` names the file in errors.

    Raises ``SealError`` as soon as a chunk does not open. What was read is all there was only after ``finish``.
    """

    def __init__(self, file: BinaryIO, key: Secret, associated: bytes, source: str) -> None:
        salt = file.read(SALT)
        self._file = file
        self._source = source
        self._associated = associated
        self._cipher = _cipher(key, salt)
        self._ahead = file.read(CHUNK + TAG)
        self._left = memoryview(b"")
        self._count = 0
        self._ended = False
        self._failed = False

    def fill(self, into: memoryview) -> None:
        """Fill ``into`` with the next bytes. ``SealError`` if the file ends before."""
        while len(into):
            if not len(self._left):
                if self._ended or self._failed:
                    raise self._broken("it ends too early")
                self._open()
            taken = min(len(into), len(self._left))
            into[:taken] = self._left[:taken]
            into, self._left = into[taken:], self._left[taken:]

    def finish(self) -> None:
        """``SealError`` unless all was read and the file ends here."""
        if not self._ended and not self._failed and not len(self._left):
            self._open()
        if self._failed or not self._ended or len(self._left):
            raise self._broken("it holds more than it should")

    def _open(self) -> None:
        sealed, self._ahead = self._ahead, self._file.read(CHUNK + TAG)
        last = not self._ahead
        try:
            plain = self._cipher.decrypt(_nonce(self._count, last), sealed, self._associated)
        except (InvalidTag, ValueError):
            raise self._broken("it was truncated or changed, or the key is another one") from None
        if not plain and self._count:  # only an empty file has an empty chunk
            raise self._broken("it was not written by mpc-ray")
        self._left, self._ended = memoryview(plain), last
        self._count += 1

    def _broken(self, why: str) -> SealError:
        self._ahead, self._left, self._failed = b"", memoryview(b""), True
        return SealError(
            f"{self._source} does not open at chunk {self._count}: {why}", remedy="copy the file again"
        )


def _cipher(key: Secret, salt: bytes) -> AESGCM:
    info = canonical.bind(_PURPOSE, salt)
    return AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(key.reveal()))


def _nonce(count: int, last: bool) -> bytes:
    return count.to_bytes(11, "big") + bytes([last])
