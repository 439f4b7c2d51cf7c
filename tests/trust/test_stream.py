"""STREAM: whatever is done to a sealed file, it does not open; what is not disturbed does, at every size."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable

import pytest

from mpc_ray.errors import SealError
from mpc_ray.trust.secret import Secret
from mpc_ray.trust.stream import CHUNK, SALT, TAG, StreamReader, StreamWriter, stream_size

KEY = Secret(bytes(range(32)))
CELL = CHUNK + TAG


def sealed(plain: bytes, key: Secret = KEY, associated: bytes = b"head", step: int = 700_001) -> bytes:
    file = io.BytesIO()
    writer = StreamWriter(file, key, associated)
    for start in range(0, len(plain), step):
        writer.write(plain[start : start + step])
    writer.finish()
    return file.getvalue()


def opened(
    data: bytes, size: int, key: Secret = KEY, associated: bytes = b"head", step: int = 333_333
) -> bytes:
    reader = StreamReader(io.BytesIO(data), key, associated, "the file")
    out = bytearray(size)
    for start in range(0, size, step):
        reader.fill(memoryview(out)[start : start + step])
    reader.finish()
    return bytes(out)


def pattern(size: int) -> bytes:
    return (b"%07d." * (size // 8 + 1) % tuple(range(size // 8 + 1)))[:size]


SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5]
BIG = pattern(3 * CHUNK + 5)
DATA = sealed(BIG)


@pytest.mark.parametrize("size", SIZES)
def test_round_trip_at_every_edge(size: int) -> None:
    plain = pattern(size)
    data = sealed(plain)
    assert len(data) == stream_size(size)
    assert opened(data, size) == plain
    assert plain[:40] not in data or size < 8  # a few bytes are anywhere by chance


def test_the_same_bytes_are_sealed_anew_every_time() -> None:
    first, second = sealed(b"x" * 100), sealed(b"x" * 100)
    assert first[SALT:] != second[SALT:]


def chunks(data: bytes) -> list[bytes]:
    return [data[SALT + start : SALT + start + CELL] for start in range(0, len(data) - SALT, CELL)]


def joined(parts: list[bytes], salt: bytes = DATA[:SALT]) -> bytes:
    return salt + b"".join(parts)


BAD: dict[str, Callable[[], bytes]] = {
    "cut by one byte": lambda: DATA[:-1],
    "cut between two chunks": lambda: joined(chunks(DATA)[:2]),
    "without its last chunk": lambda: joined(chunks(DATA)[:3]),
    "cut within the salt": lambda: DATA[: SALT - 1],
    "nothing but the salt": lambda: DATA[:SALT],
    "empty": lambda: b"",
    "two chunks swapped": lambda: joined([chunks(DATA)[i] for i in (1, 0, 2, 3)]),
    "a chunk twice": lambda: joined([chunks(DATA)[i] for i in (0, 0, 2, 3)]),
    "a chunk left out": lambda: joined([chunks(DATA)[i] for i in (0, 2, 3)]),
    "the last chunk first": lambda: joined([chunks(DATA)[i] for i in (3, 0, 1, 2)]),
    "bytes added": lambda: DATA + b"\x00",
    "a chunk added": lambda: DATA + chunks(DATA)[-1],
    "a chunk of another file": lambda: joined([*chunks(sealed(BIG))[:1], *chunks(DATA)[1:]]),
    "a bit of the first chunk": lambda: DATA[:SALT] + bytes([DATA[SALT] ^ 1]) + DATA[SALT + 1 :],
    "a bit of the last tag": lambda: DATA[:-1] + bytes([DATA[-1] ^ 1]),
    "a bit of the salt": lambda: bytes([DATA[0] ^ 1]) + DATA[1:],
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_what_was_disturbed_does_not_open(case: str) -> None:
    with pytest.raises(SealError, match="the file does not open at chunk"):
        opened(BAD[case](), len(BIG))


def test_another_key_or_another_head_does_not_open() -> None:
    for key, associated in ((Secret(bytes(32)), b"head"), (KEY, b"Head")):
        with pytest.raises(SealError, match="chunk 0"):
            opened(DATA, len(BIG), key, associated)


def test_reading_less_or_more_than_there_is() -> None:
    with pytest.raises(SealError, match="more than it should"):
        opened(DATA, len(BIG) - 1)
    with pytest.raises(SealError, match="ends too early"):
        opened(DATA, len(BIG) + 1)


def test_no_byte_of_a_broken_chunk_is_given_out_and_a_failed_reader_stays_failed() -> None:
    data = bytearray(DATA)
    data[SALT + CELL] ^= 1
    reader = StreamReader(io.BytesIO(bytes(data)), KEY, b"head", "the file")
    into = memoryview(bytearray(CHUNK))
    reader.fill(into)
    into[:] = bytes(CHUNK)
    with pytest.raises(SealError):
        reader.fill(into)
    assert bytes(into) == bytes(CHUNK)
    with pytest.raises(SealError):
        reader.fill(into[:1])
    with pytest.raises(SealError):
        reader.finish()


def test_long_files_take_little_memory() -> None:
    piece = bytes(1 << 20)

    class Sink(io.BytesIO):
        def write(self, data: object) -> int:
            return 0

    tracemalloc.start()
    writer = StreamWriter(Sink(), KEY, b"")
    for _ in range(24):
        writer.write(piece)
    writer.finish()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 << 20
