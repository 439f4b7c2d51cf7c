"""HELLO: the first bytes on every connection, both ways. Any difference is an error that says what differs.

    magic 4 · format 1 · kind 1 · index 1 · direction 1 · answer 1 · pad 3 · token 16
    · session 16 · 5 digests of 32

Three of the five are stated: version, PRF, configuration. A connection is made before any model is chosen, so
the fields for model and calibration are ``UNSTATED`` at every party; the digest of a model's public record, with
the windows and scales that calibration chose, is compared in one round at ``load``, and a difference is a
``HelloMismatch`` there.

It travels inside TLS. The name it claims (``party-1``, ``client``, ``gateway``) must be the one in the
certificate; the claim alone is believed nowhere. One listening port may serve several kinds: ``kind`` tells them
apart.

Where one port serves many sessions, a *preamble* goes before TLS, in the clear: it names the session, so that the
connection can be handed to the process that holds it. It only routes; HELLO compares the session again inside TLS.

    magic 4 · version 1 · pad 3 · session 16
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, fields, replace
from enum import IntEnum

from mpc_ray.errors import ChannelError, HelloMismatch

MAGIC = b"MPCH"
FORMAT = 1
_HELLO = struct.Struct("<4sBBBBB3x16s16s160s")
HELLO_BYTES = _HELLO.size
_PREAMBLE = struct.Struct("<4sB3x16s")
_PREAMBLE_MAGIC = b"MPCS"
PREAMBLE_BYTES = _PREAMBLE.size
UNSTATED = bytes(32)
"""A digest that is not stated, as the model's and the calibration's always are. Between parties it must still
be equal.
"""

_REMEDIES = {
    "session": "stop all three parties and start them together",
    "version": "install the same release of mpc-ray at every party and client",
    "prf": "install the same release everywhere and choose the same PRF",
    "configuration": "give every party the same configuration",
    "model": "load the same model at every party",
    "calibration": "calibrate the model once and use that file everywhere",
}


class Kind(IntEnum):
    """Who dials."""

    PARTY = 0
    CLIENT = 1
    GATEWAY = 2


_NAMES = {Kind.CLIENT: "client", Kind.GATEWAY: "gateway"}


class Direction(IntEnum):
    """Which way this connection carries data after HELLO."""

    DIALLER_SENDS = 0
    DIALLER_RECEIVES = 1


class Answer(IntEnum):
    """The acceptor's verdict. The dialler always says WELCOME."""

    WELCOME = 0
    NAME_REFUSED = 1
    TAKEN = 2
    KIND_REFUSED = 3


@dataclass(frozen=True)
class Digests:
    """SHA-256 digests (32 bytes each) of all that must be alike at two ends, apart so that a difference has
    a name.
    """

    version: bytes = UNSTATED
    prf: bytes = UNSTATED
    configuration: bytes = UNSTATED
    model: bytes = UNSTATED
    calibration: bytes = UNSTATED

    def __post_init__(self) -> None:
        for field in fields(self):
            if len(getattr(self, field.name)) != 32:
                raise ChannelError(f"the digest of {field.name} must have 32 bytes")

    def pack(self) -> bytes:
        """160 bytes, in the order of the fields."""
        return b"".join(getattr(self, field.name) for field in fields(self))

    @staticmethod
    def unpack(data: bytes) -> Digests:
        """The reverse of ``pack``."""
        return Digests(*(data[i : i + 32] for i in range(0, 160, 32)))


@dataclass(frozen=True)
class Hello:
    """What this end states about itself: the session's name (16 bytes) and its digests."""

    session: bytes
    digests: Digests = Digests()

    def __post_init__(self) -> None:
        if len(self.session) != 16:
            raise ChannelError("a session is named by 16 bytes")


@dataclass(frozen=True)
class Greeting:
    """A HELLO as it travels. ``token`` (16 random bytes) ties the two connections of one dialler together."""

    hello: Hello
    kind: Kind
    index: int
    direction: Direction
    token: bytes
    answer: Answer = Answer.WELCOME

    @property
    def name(self) -> str:
        """The name that the certificate must carry."""
        return _NAMES.get(self.kind) or f"party-{self.index}"

    @property
    def peer(self) -> str:
        """The same, as people read it in errors."""
        return _NAMES.get(self.kind) or f"party {self.index}"

    def answered(self, answer: Answer) -> Greeting:
        """This greeting with another verdict."""
        return replace(self, answer=answer)


def preamble(session: bytes) -> bytes:
    """The 24 bytes before TLS that say for which session (16 bytes) a connection is."""
    if len(session) != 16:
        raise ChannelError("a session is named by 16 bytes")
    return _PREAMBLE.pack(_PREAMBLE_MAGIC, FORMAT, session)


def session_of(data: bytes | bytearray | memoryview, peer: str) -> bytes:
    """The session that a preamble names. ``HelloMismatch`` if it is none, or of another format."""
    magic, wire_format, session = _PREAMBLE.unpack(data)
    if magic != _PREAMBLE_MAGIC or wire_format != FORMAT:
        raise HelloMismatch(f"{peer}: does not begin with a preamble", remedy=_REMEDIES["version"])
    return bytes(session)


def digest(*parts: bytes) -> bytes:
    """SHA-256 over the parts, each preceded by its length, so that no two lists of parts collide."""
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def pack(greeting: Greeting) -> bytes:
    """The 204 bytes of a HELLO."""
    return _HELLO.pack(
        MAGIC,
        FORMAT,
        greeting.kind,
        greeting.index,
        greeting.direction,
        greeting.answer,
        greeting.token,
        greeting.hello.session,
        greeting.hello.digests.pack(),
    )


def unpack(data: bytes | bytearray | memoryview, peer: str) -> Greeting:
    """Read a HELLO from ``peer``. ``HelloMismatch`` if it is none, or of another format."""
    magic, wire_format, kind, index, direction, answer, token, session, digests = _HELLO.unpack(data)
    if magic != MAGIC:
        raise HelloMismatch(
            f"{peer}: does not begin with a HELLO", remedy="check the address: is that an mpc-ray party?"
        )
    if wire_format != FORMAT:
        raise HelloMismatch(
            f"{peer}: HELLO of format {wire_format}, ours is {FORMAT}", remedy=_REMEDIES["version"]
        )
    try:
        known = Kind(kind), Direction(direction), Answer(answer)
    except ValueError as error:
        raise HelloMismatch(
            f"{peer}: HELLO with an unknown field: {error}", remedy=_REMEDIES["version"]
        ) from None
    return Greeting(Hello(session, Digests.unpack(digests)), known[0], index, known[1], token, known[2])


def compare(ours: Hello, theirs: Hello, peer: str, *, with_client: bool = False) -> None:
    """``HelloMismatch`` naming every field that differs, with the beginnings of both values.

    With ``with_client`` a digest that one side leaves ``UNSTATED`` is not compared: a client need not
    know a party's configuration. Between parties everything must be equal.
    """
    pairs = [("session", ours.session, theirs.session)]
    for field in fields(Digests):
        a, b = getattr(ours.digests, field.name), getattr(theirs.digests, field.name)
        if not (with_client and UNSTATED in (a, b)):
            pairs.append((field.name, a, b))
    differing = [(name, a, b) for name, a, b in pairs if a != b]
    if differing:
        words = ", ".join(f"{name} (ours {_short(a)}, theirs {_short(b)})" for name, a, b in differing)
        raise HelloMismatch(f"{peer}: differs in {words}", remedy=_REMEDIES[differing[0][0]])


def _short(value: bytes) -> str:
    return "unstated" if value == UNSTATED else value.hex()[:12]
