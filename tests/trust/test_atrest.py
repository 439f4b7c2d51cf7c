"""Keys at rest and files under them: who may read a key file, what a key is for, and files written whole."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import keywrap

from mpc_ray.errors import ConfigError, SealError
from mpc_ray.trust import atrest
from mpc_ray.trust.atrest import FileKeys, begin, body, read_head, whole_file
from mpc_ray.trust.secret import Secret

MAGIC = b"MPCTEST1"
DEK = Secret(bytes(range(32)))


@pytest.fixture
def keys(tmp_path: Path) -> FileKeys:
    return FileKeys.create(tmp_path / "at-rest.key")


def test_the_key_wrap_is_rfc_3394s() -> None:
    """Its vector 4.6: 256 bits of key data under a 256-bit key."""
    kek = bytes(range(32))
    data = bytes.fromhex("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f")
    wrapped = "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"
    assert keywrap.aes_key_wrap(kek, data).hex() == wrapped


def test_wrapped_keys_open_in_their_own_context_alone(keys: FileKeys, tmp_path: Path) -> None:
    wrapped = keys.wrap(DEK, b"model a")
    assert len(wrapped) == 48 and DEK.reveal() not in wrapped
    assert FileKeys.load(keys.path).unwrap(wrapped, b"model a") == DEK
    for context, changed in (
        (b"model b", wrapped),
        (b"model a", wrapped[:-1] + b"\x00"),
        (b"model a", wrapped[:9]),
    ):
        with pytest.raises(SealError, match="does not unwrap"):
            keys.unwrap(changed, context)
    other = FileKeys.create(tmp_path / "other.key")
    with pytest.raises(SealError, match=r"no key of .*other\.key wrapped"):
        other.unwrap(wrapped, b"model a")


def test_an_older_key_of_the_file_still_opens(keys: FileKeys) -> None:
    newer = FileKeys(keys.path, (Secret(os.urandom(32)), *keys.keys))
    assert newer.unwrap(keys.wrap(DEK, b""), b"") == DEK
    with pytest.raises(SealError):
        keys.unwrap(newer.wrap(DEK, b""), b"")


def test_the_key_file_is_private_and_never_replaced(keys: FileKeys) -> None:
    assert keys.path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="exists"):
        FileKeys.create(keys.path)
    assert keys.keys[0].reveal().hex() not in repr(keys)
    keys.path.chmod(0o640)
    with pytest.raises(ConfigError, match="others on this machine may read it"):
        FileKeys.load(keys.path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b'{"format":"mpc-ray at-rest keys v1","keys":[]}', b'{"format":"x","keys":["00"]}'],
)
def test_a_damaged_key_file_is_named(keys: FileKeys, content: bytes) -> None:
    keys.path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"at-rest\.key"):
        FileKeys.load(keys.path)


def sealed(keys: FileKeys, header: bytes = b"header", plain: bytes = b"content") -> bytes:
    file = io.BytesIO()
    writer = begin(file, MAGIC, header, keys.wrap)
    writer.write(plain)
    writer.finish()
    return file.getvalue()


def opened(data: bytes, keys: FileKeys, size: int = 7) -> tuple[bytes, bytes]:
    file = io.BytesIO(data)
    head = read_head(file, MAGIC, "store/m")
    reader = body(file, head, keys.unwrap, "store/m")
    plain = memoryview(bytearray(size))
    reader.fill(plain)
    reader.finish()
    return head.header, bytes(plain)


def test_a_file_opens_with_its_header(keys: FileKeys) -> None:
    data = sealed(keys)
    assert b"header" in data and b"content" not in data
    assert opened(data, keys) == (b"header", b"content")


def test_no_byte_of_a_file_can_be_changed(keys: FileKeys) -> None:
    data = sealed(keys)
    for i in range(len(data)):
        with pytest.raises(SealError):
            opened(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :], keys)
    for i in range(len(data)):
        with pytest.raises(SealError):
            opened(data[:i], keys)


def test_the_key_of_one_file_does_not_open_another(keys: FileKeys) -> None:
    a, b = sealed(keys, b"aaaaaa"), sealed(keys, b"bbbbbb")
    with pytest.raises(SealError, match="header was changed"):
        opened(a.replace(b"aaaaaa", b"bbbbbb"), keys)
    head = 8 + 4 + 6 + 4 + 48
    with pytest.raises(SealError, match="chunk 0"):
        opened(a[:head] + b[head:], keys)


def test_a_long_head_is_refused_before_memory_is_taken(keys: FileKeys) -> None:
    data = bytearray(sealed(keys))
    data[8:12] = (1 << 31).to_bytes(4, "little")
    with pytest.raises(SealError, match="in its head"):
        opened(bytes(data), keys)
    with pytest.raises(ValueError, match="64 KiB"):
        begin(io.BytesIO(), MAGIC, bytes(atrest.MAX_HEADER + 1), keys.wrap)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "m.model"
    with whole_file(path) as file:
        file.write(b"one")
        assert not path.exists()
    assert path.read_bytes() == b"one" and path.stat().st_mode & 0o777 == 0o600

    def write(error: BaseException) -> None:
        with whole_file(path) as file:
            file.write(b"two")
            raise error

    for error in (SealError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            write(error)
        assert [p.name for p in tmp_path.iterdir()] == ["m.model"] and path.read_bytes() == b"one"


def test_a_disk_without_room_is_an_error_that_says_so(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        with whole_file(path) as file, open("/dev/full", "wb", buffering=0) as full:
            os.dup2(full.fileno(), file.fileno())
            file.write(bytes(1 << 20))

    with pytest.raises(ConfigError, match="No space left"):
        write(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="cannot be written"):
        write(tmp_path / "no" / "m")
