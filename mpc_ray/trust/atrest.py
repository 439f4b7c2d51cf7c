"""Encryption at rest: files under data keys of their own, those under an operator's key (envelope encryption).

    magic 8 · bytes of the header 4 · header · bytes of the wrapped key 4 · wrapped key · stream (``stream``)

(little-endian). The header is readable by all and authenticated: the data key is wrapped in the context of the magic
and the header's digest, and both are associated data of every chunk. Who wraps is a ``KeyProvider``; files that travel
to a party are wrapped to its HPKE key instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mpc_ray.errors import ConfigError, SealError
from mpc_ray.trust import canonical, files
from mpc_ray.trust.canonical import Malformed
from mpc_ray.trust.secret import Secret
from mpc_ray.trust.stream import KEY_BYTES, StreamReader, StreamWriter

FORMAT = "mpc-ray at-rest keys v1"
MAX_HEADER = 1 << 16
MAX_WRAPPED = 1 << 13
_ID = 8
_LENGTH = struct.Struct("<I")

Wrap = Callable[[Secret, bytes], bytes]
Unwrap = Callable[[bytes, bytes], Secret]


class KeyProvider(Protocol):
    """Keeps the key that data keys are wrapped with. ``context`` says what a data key is for: it must be said again."""

    def wrap(self, key: Secret, context: bytes) -> bytes:
        """``key`` (32 bytes), wrapped."""

    def unwrap(self, wrapped: bytes, context: bytes) -> Secret:
        """The inverse. ``SealError`` for another provider's, another context's, or a changed one."""


@dataclass(frozen=True)
class FileKeys:
    """The provider ``file``: keys in a file of mode 0600, newest first. The first wraps, all unwrap.

    AES key wrap (RFC 3394) under a key that HKDF-SHA-256 makes of the file's key and the context.
    """

    path: Path
    keys: tuple[Secret, ...]

    @staticmethod
    def create(path: Path) -> FileKeys:
        """A fresh key, written to ``path``. ``ConfigError`` if there is a file: its key may be needed."""
        if path.exists():
            raise ConfigError(f"{path} exists", remedy="keep it: what it encrypts cannot be read without it")
        keys = FileKeys(path, (Secret(os.urandom(KEY_BYTES)),))
        content = {"format": FORMAT, "keys": [key.reveal().hex() for key in keys.keys]}
        files.write_private(path, canonical.encode(content) + b"\n")
        return keys

    @staticmethod
    def load(path: Path) -> FileKeys:
        """What ``create`` wrote. ``ConfigError`` if it is missing, damaged, or others may read it."""
        data = files.read_private(path)
        try:
            content = canonical.take(canonical.parse(data, files.MAX_BYTES), {"format": str, "keys": list})
            if content["format"] != FORMAT or not content["keys"]:
                raise Malformed("is of another format")
            keys = tuple(Secret(canonical.unhex(key, KEY_BYTES, "key")) for key in content["keys"])
        except Malformed as error:
            raise ConfigError(f"{path} {error}", remedy="put the party's own at-rest.key back") from None
        return FileKeys(path, keys)

    def wrap(self, key: Secret, context: bytes) -> bytes:
        """As ``KeyProvider``: 8 bytes that name the key, and 40."""
        own = self.keys[0]
        return _key_id(own) + keywrap.aes_key_wrap(_wrapping(own, context), key.reveal())

    def unwrap(self, wrapped: bytes, context: bytes) -> Secret:
        """As ``KeyProvider``."""
        own = next((key for key in self.keys if _key_id(key) == wrapped[:_ID]), None)
        if own is None:
            raise SealError(f"a data key that no key of {self.path} wrapped", remedy="put that key back")
        try:
            return Secret(keywrap.aes_key_unwrap(_wrapping(own, context), wrapped[_ID:]))
        except (keywrap.InvalidUnwrap, ValueError):
            raise SealError(
                "a data key does not unwrap: its file's header was changed", remedy="put the file back"
            ) from None


@dataclass(frozen=True)
class Head:
    """The readable beginning of a sealed file. ``context`` is what its data key and its chunks are bound to."""

    magic: bytes
    header: bytes
    wrapped: bytes

    @property
    def context(self) -> bytes:
        """32 bytes, of magic and header."""
        return _context(self.magic, self.header)


def begin(file: BinaryIO, magic: bytes, header: bytes, wrap: Wrap) -> StreamWriter:
    """Write the head of a sealed file under a fresh data key; the body goes into the writer, then ``finish`` it."""
    key = Secret(os.urandom(KEY_BYTES))
    context = _context(magic, header)
    wrapped = wrap(key, context)
    if len(magic) != 8 or len(header) > MAX_HEADER or len(wrapped) > MAX_WRAPPED:
        raise ValueError("a sealed file's magic has 8 bytes, its header at most 64 KiB")
    for piece in (magic, _LENGTH.pack(len(header)), header, _LENGTH.pack(len(wrapped)), wrapped):
        file.write(piece)
    return StreamWriter(file, key, context)


def read_head(file: BinaryIO, magic: bytes, source: str) -> Head:
    """The head of a sealed file, not yet authenticated. ``SealError`` if it is no such file."""
    if file.read(len(magic)) != magic:
        raise SealError(f"{source} is no such file: it begins otherwise", remedy="name the right file")
    return Head(magic, _piece(file, MAX_HEADER, source), _piece(file, MAX_WRAPPED, source))


def body(file: BinaryIO, head: Head, unwrap: Unwrap, source: str) -> StreamReader:
    """The reader of what follows the head. ``SealError`` if the head was changed, or is sealed to another key."""
    return StreamReader(file, unwrap(head.wrapped, head.context), head.context, source)


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file that appears under ``path`` complete and on disk, or not at all, whatever ends the block or the machine.

    Raises ``ConfigError`` if it cannot be written.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
        files.sync_folder(path.parent)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise ConfigError(
                f"{path} cannot be written: {error.strerror}",
                remedy="check the folder and the room on its disk",
            ) from None
        raise


def _piece(file: BinaryIO, most: int, source: str) -> bytes:
    size = file.read(_LENGTH.size)
    length = _LENGTH.unpack(size)[0] if len(size) == _LENGTH.size else most + 1
    piece = file.read(length) if length <= most else b""
    if length > most or len(piece) != length:
        raise SealError(f"{source} is damaged or truncated in its head", remedy="copy the file again")
    return piece


def _context(magic: bytes, header: bytes) -> bytes:
    return hashlib.sha256(canonical.bind("mpc-ray sealed file v1", magic, header)).digest()


def _key_id(key: Secret) -> bytes:
    return hashlib.sha256(canonical.bind("mpc-ray at-rest key v1", key.reveal())).digest()[:_ID]


def _wrapping(key: Secret, context: bytes) -> bytes:
    info = canonical.bind("mpc-ray key wrap v1", context)
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=info).derive(key.reveal())
