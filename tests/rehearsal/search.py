"""Looking for secrets where they must not be: files, memory of processes, plasma, packets.

A *needle* is a byte string that betrays a secret: the text in several encodings, token ids as a tensor or as digits,
numbers of an embedding or of a weight, a share's first bytes. A *place* is anything that can be read as bytes.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

CHUNK = 8 << 20
ETH_P_ALL = 3


@dataclass(frozen=True)
class Found:
    """A needle in a place: what it betrays, and where. Its text form quotes nothing of it."""

    secret: str
    place: str


def text_needles(name: str, text: str) -> dict[str, list[bytes]]:
    """The text itself in UTF-8 and UTF-16, hexadecimal and the three alignments of base64."""
    raw = text.encode()
    return {name: [raw, text.encode("utf-16-le"), raw.hex().encode(), *_base64(raw)]}


def id_needles(name: str, ids: Sequence[int]) -> dict[str, list[bytes]]:
    """Token ids, at least five: as int64, int32 and uint16, and as digits with usual separators."""
    assert len(ids) >= 5
    arrays = [np.array(ids, dtype).tobytes() for dtype in ("<i8", "<i4", "<u2")]
    digits = [s.join(map(str, ids)).encode() for s in (", ", ",", " ")]
    return {name: [*arrays, *digits, *_base64(arrays[0]), *_base64(arrays[1])]}


def number_needles(name: str, values: np.ndarray) -> dict[str, list[bytes]]:
    """A run of real numbers: as float64, float32 and float16 and their base64, and the digits of the first three."""
    run = np.asarray(values, np.float64).ravel()[:6]
    arrays = [run.astype(dtype).tobytes() for dtype in ("<f8", "<f4", "<f2")]
    digits = [f"{abs(value):.7f}"[:-1].encode() for value in run[:3] if abs(value) > 1e-3]
    return {name: [*arrays, *_base64(arrays[0]), *_base64(arrays[1]), *digits]}


def byte_needles(name: str, raw: bytes) -> dict[str, list[bytes]]:
    """Bytes such as a share, a seed or a key: as they are, hexadecimal and base64."""
    assert len(raw) >= 16
    head = raw[:32]
    return {name: [head, head.hex().encode(), *_base64(head)]}


def _base64(raw: bytes) -> list[bytes]:
    """What the base64 of a longer string holds if ``raw`` is somewhere in it, for the three ways it may fall."""
    found = []
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + raw)
        start = -(-shift * 4 // 3) if shift else 0
        found.append(coded[start + (1 if shift else 0) : len(coded) - 4])
    return [needle for needle in found if len(needle) >= 8]


def in_bytes(chunks: Iterable[bytes], needles: Mapping[str, Sequence[bytes]]) -> set[str]:
    """The secrets found in a stream of chunks; a needle over the border of two is found too."""
    longest = max(len(needle) for group in needles.values() for needle in group)
    found: set[str] = set()
    tail = b""
    for chunk in chunks:
        if not chunk.strip(b"\0"):  # untouched memory
            tail = b""
            continue
        window = tail + chunk
        for secret, group in needles.items():
            if secret not in found and any(needle in window for needle in group):
                found.add(secret)
        tail = window[-longest:]
    return found


def in_files(
    roots: Iterable[Path], needles: Mapping[str, Sequence[bytes]], leave_out: Sequence[Path] = ()
) -> list[Found]:
    """Every regular file below ``roots``, names included; ``leave_out`` are folders of the client's own."""
    found = []
    for root in roots:
        for folder, _, names in os.walk(root):
            if any(Path(folder).is_relative_to(left) for left in leave_out):
                continue
            for name in names:
                path = Path(folder, name)
                if path.is_file() and not path.is_symlink():
                    secrets = in_bytes(_file(path), needles) | in_bytes([os.fsencode(path)], needles)
                    found += [Found(secret, f"file {path}") for secret in secrets]
    return found


def in_process(process: psutil.Process, needles: Mapping[str, Sequence[bytes]]) -> list[Found]:
    """The writable memory of a process, its plasma store and other unlinked files that it holds open."""
    what = f"{process.pid} {_name(process)}"
    found = [Found(secret, f"memory of {what}") for secret in in_bytes(_memory(process.pid), needles)]
    for link in Path(f"/proc/{process.pid}/fd").glob("*"):
        try:
            target = os.readlink(link)
        except OSError:  # closed in the meantime
            continue
        if "plasma" in target or target.endswith("(deleted)"):
            secrets = in_bytes(_file(link), needles)
            found += [Found(secret, f"unlinked file {target} of {what}") for secret in secrets]
    return found


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:4])[:90] or process.name()
    except psutil.Error:
        return "ended"


def _file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError:  # removed in the meantime, or a device
        return


def _memory(pid: int) -> Iterator[bytes]:
    """Writable private memory, mapping by mapping; nothing where the process has ended."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text()
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            for line in maps.splitlines():
                match = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line)
                assert match is not None
                if not match[3].startswith("rw") or match[4].startswith(("/dev", "[v")):
                    continue
                at, end = int(match[1], 16), int(match[2], 16)
                while at < end:
                    try:
                        memory.seek(at)
                        chunk = memory.read(min(CHUNK, end - at))
                    except OSError:  # a guard page
                        break
                    if not chunk:
                        break
                    yield chunk
                    at += len(chunk)
    except OSError:
        return


class Capture:
    """All packets of the loopback while it is open, as one file: TCP payloads as they went by. Needs CAP_NET_RAW."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.packets = 0
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)
        self._socket.close()

    def _run(self) -> None:
        with self.path.open("wb") as file:
            while not self._over.is_set():
                try:
                    packet, address = self._socket.recvfrom(1 << 17)
                except TimeoutError:
                    continue
                if address[2] == socket.PACKET_OUTGOING:  # on the loopback each packet is seen twice
                    continue
                file.write(packet)
                self.packets += 1
