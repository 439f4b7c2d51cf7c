"""The 60-byte header before every payload between two parties, and its checks.

    magic 4 · version 1 · flags 1 · attempt 2 · session 16 · job 16 · step 4 · clock 8 · length 8

(little-endian).

A receiver knows what the header must be, from the schedule, before it arrives. So nothing is ever allocated
from a length that a peer sent, and a frame of another session, job, attempt, step or length is refused by
name before its payload is read. The clock is the only field a receiver learns from the sender: it counts
rounds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from mpc_ray.errors import BadFrame

MAGIC = b"MPCF"
VERSION = 1
_HEADER = struct.Struct("<4sBBH16s16sIQQ")
HEADER_BYTES = _HEADER.size

FAULT = 1
"""Flag: the sender gives up. ``step`` holds the index of the party it holds for the cause, ``length`` is 0.
"""

_REMEDY = "all three parties must run the same job with the same release; start the session again"


@dataclass(frozen=True, slots=True)
class Header:
    """One frame's header. ``session`` and ``job`` have 16 bytes; ``clock`` is the Lamport clock; ``length``
    in bytes.
    """

    session: bytes
    job: bytes
    attempt: int
    step: int
    clock: int
    length: int
    flags: int = 0


def pack(header: Header) -> bytes:
    """The 60 bytes of ``header``. ``BadFrame`` if a field does not fit its place."""
    if len(header.session) != 16 or len(header.job) != 16:
        raise BadFrame("a session and a job are named by 16 bytes each")
    try:
        return _HEADER.pack(
            MAGIC,
            VERSION,
            header.flags,
            header.attempt,
            header.session,
            header.job,
            header.step,
            header.clock,
            header.length,
        )
    except struct.error as error:
        raise BadFrame(f"a frame header's number is out of range: {error}") from None


def unpack(data: bytes | bytearray | memoryview, peer: str) -> Header:
    """Read a header that came from ``peer``. ``BadFrame`` if it is none, or of another version."""
    if len(data) != HEADER_BYTES:
        raise BadFrame(f"{peer}: a frame header has {HEADER_BYTES} bytes, not {len(data)}")
    magic, version, flags, attempt, session, job, step, clock, length = _HEADER.unpack(data)
    if magic != MAGIC:
        raise BadFrame(f"{peer}: not a frame (magic {magic.hex()}, not {MAGIC.hex()})", remedy=_REMEDY)
    if version != VERSION:
        raise BadFrame(
            f"{peer}: frame version {version}, not {VERSION}", remedy="install the same release everywhere"
        )
    if flags not in (0, FAULT):
        raise BadFrame(f"{peer}: unknown frame flags {flags}", remedy="install the same release everywhere")
    return Header(session, job, attempt, step, clock, length, flags)


def compare(got: Header, want: Header, peer: str) -> None:
    """``BadFrame`` naming the first field in which a frame from ``peer`` is not what it must be (clock
    excepted).
    """
    for name in ("session", "job"):
        theirs: bytes = getattr(got, name)
        ours: bytes = getattr(want, name)
        if theirs != ours:
            raise BadFrame(
                f"{peer}, step {want.step}: frame of {name} {theirs.hex()[:12]}…, not {ours.hex()[:12]}…",
                remedy=_REMEDY,
            )
    for name, unit in (("attempt", ""), ("step", ""), ("length", " bytes")):
        number: int = getattr(got, name)
        wanted: int = getattr(want, name)
        if number != wanted:
            raise BadFrame(
                f"{peer}, step {want.step}: frame with {name} {number}{unit}, not {wanted}{unit}",
                remedy=_REMEDY,
            )
