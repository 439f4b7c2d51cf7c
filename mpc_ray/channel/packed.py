"""A message as bytes: a JSON header and named tensors. Links send this form, envelopes and files hold it.

    magic 4 · version 1 · pad 3 · header bytes 4 · pad 4 · tensor bytes 8
    · JSON {"header", "tensors": [[name, dtype, shape]]} · raw data

(little-endian). All sizes are checked against the limits before memory is taken. Shares travel here, so nothing of
a message is ever put into an error.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mpc_ray.channel.interface import byte_view
from mpc_ray.errors import BadFrame, InputError
from mpc_ray.kernels.memory import empty

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Tensor: TypeAlias = npt.NDArray[Any]
Fill: TypeAlias = Callable[[memoryview], None]
"""Fills a "B" view with the next bytes of a source, all of it, or raises."""
Shapes: TypeAlias = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]

MAGIC = b"MPCM"
VERSION = 1
_HEAD = struct.Struct("<4sB3xI4xQ")
HEAD_BYTES = _HEAD.size
DEFAULT_MAX_BYTES = 4 << 30
MAX_HEADER = 1 << 20
MAX_TENSORS = 4096
MAX_DIMENSIONS = 8
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in "bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64".split()
}


@dataclass(frozen=True)
class Message:
    """``header``: what JSON can say. ``tensors``: by name, dtypes of ``DTYPES``, any shape up to 8
    dimensions. Its text form has neither: a message carries shares and the seeds of shares.
    """

    header: dict[str, JSON] = field(repr=False)
    tensors: dict[str, Tensor] = field(default_factory=dict, repr=False)


def pack(message: Message, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    """The whole message in one piece. ``InputError`` if it breaks a limit (``max_bytes`` bounds its tensors)."""
    return b"".join(parts(message, max_bytes))


def unpack(data: bytes | bytearray | memoryview, max_bytes: int, source: str = "a packed message") -> Message:
    """The inverse of ``pack``: ``data`` is one message and nothing more. Its tensors are copies, writeable.

    Raises ``BadFrame``, which names ``source``, for a message that breaks a limit, is malformed, cut or too long.
    """
    view = memoryview(data).cast("B")
    if len(view) < HEAD_BYTES:
        raise BadFrame(f"{source}: {len(view)} bytes are no message")
    text_bytes, nbytes = sizes(view[:HEAD_BYTES], source, max_bytes)
    if len(view) != HEAD_BYTES + text_bytes + nbytes:
        raise BadFrame(
            f"{source}: {len(view):,} bytes, but the message announces {HEAD_BYTES + text_bytes + nbytes:,}"
        )
    start = HEAD_BYTES

    def fill(into: memoryview) -> None:
        nonlocal start
        into[:] = view[start : start + len(into)]
        start += len(into)

    return contents(text_bytes, nbytes, fill, source)


def unpack_from(fill: Fill, max_bytes: int, source: str) -> Message:
    """As ``unpack``, from a source of bytes that may be long: each tensor is filled in place. What follows is not read.

    Raises ``BadFrame``, and what ``fill`` raises.
    """
    head = memoryview(bytearray(HEAD_BYTES))
    fill(head)
    text_bytes, nbytes = sizes(head, source, max_bytes)
    return contents(text_bytes, nbytes, fill, source)


def finite(value: object, otherwise: float = 0.0) -> float:
    """A number in somebody else's header as a float; ``otherwise`` for what is none, or none that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return otherwise
    try:
        number = float(value)
    except OverflowError:  # JSON's whole numbers have no bound
        return otherwise
    return number if math.isfinite(number) else otherwise


def parts(message: Message, max_bytes: int = DEFAULT_MAX_BYTES) -> list[memoryview]:
    """The bytes of a message as flat views: head, text, one for each tensor; C-contiguous tensors are not copied.

    ``InputError`` if it breaks a limit, or for a dtype that is none of ``DTYPES``.
    """
    tensors = {name: np.asarray(value, order="C") for name, value in message.tensors.items()}
    described = [[name, _dtype_name(name, value), list(value.shape)] for name, value in tensors.items()]
    text = json.dumps({"header": message.header, "tensors": described}, separators=(",", ":")).encode()
    data = [byte_view(value) for value in tensors.values()]
    nbytes = sum(map(len, data))
    if nbytes > max_bytes:
        raise InputError(
            f"a message of {nbytes:,} bytes is above the limit of {max_bytes:,}",
            remedy="send less at once, or raise it",
        )
    if len(text) > MAX_HEADER or len(tensors) > MAX_TENSORS:
        raise InputError(
            f"a message's header may have {MAX_HEADER:,} bytes and {MAX_TENSORS:,} tensors",
            remedy="send less at once",
        )
    return [memoryview(_HEAD.pack(MAGIC, VERSION, len(text), nbytes)), memoryview(text), *data]


def sizes(head: memoryview, source: str, max_bytes: int) -> tuple[int, int]:
    """(bytes of the JSON text, bytes of all tensors) from the first ``HEAD_BYTES``. ``BadFrame`` above a limit."""
    magic, version, text_bytes, nbytes = _HEAD.unpack(head)
    if magic != MAGIC or version != VERSION:
        raise BadFrame(
            f"{source}: not a message of version {VERSION}", remedy="install the same release at both ends"
        )
    if nbytes > max_bytes or text_bytes > MAX_HEADER:
        raise BadFrame(
            f"{source}: announces a message of {text_bytes:,} + {nbytes:,} bytes, above the limit of "
            f"{MAX_HEADER:,} + {max_bytes:,}",
            remedy="send less at once, or raise the limit at both ends",
        )
    return text_bytes, nbytes


def contents(text_bytes: int, nbytes: int, fill: Fill, source: str) -> Message:
    """What follows the head: the text, then every tensor, whose memory is taken only once the text fits."""
    text = bytearray(text_bytes)
    fill(memoryview(text))
    header, shapes = described(text, nbytes, source)
    tensors = {}
    for name, (dtype, shape) in shapes.items():
        tensors[name] = empty(shape, dtype)
        fill(byte_view(tensors[name]))
        if dtype.kind == "b" and (tensors[name].view(np.uint8) > 1).any():
            raise BadFrame(f"{source}: a bool tensor holds bytes other than 0 and 1")
    return Message(header, tensors)


def described(text: bytes | bytearray, nbytes: int, source: str) -> tuple[dict[str, JSON], Shapes]:
    """The header, and dtype and shape of each tensor in its order. ``BadFrame`` unless they take ``nbytes``."""
    try:
        parsed = json.loads(text)
        header, tensors = parsed["header"], parsed["tensors"]
        if not isinstance(header, dict) or not isinstance(tensors, list) or len(tensors) > MAX_TENSORS:
            raise TypeError
        shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        for name, dtype, shape in tensors:
            if not isinstance(name, str) or name in shapes or dtype not in DTYPES or not _is_shape(shape):
                raise TypeError
            shapes[name] = (DTYPES[dtype], tuple(shape))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadFrame(f"{source}: a message whose header is malformed, or names an unknown dtype") from None
    described_bytes = sum(dtype.itemsize * math.prod(shape) for dtype, shape in shapes.values())
    if described_bytes != nbytes:
        raise BadFrame(f"{source}: a message describes {described_bytes:,} bytes and announces {nbytes:,}")
    return header, shapes


def _dtype_name(name: str, value: Tensor) -> str:
    for known, dtype in DTYPES.items():
        if value.dtype == dtype:
            return known
    raise InputError(
        f"tensor {name!r} has dtype {value.dtype}, which a message cannot carry",
        remedy=f"use {', '.join(DTYPES)}",
    )


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(size) is int and size >= 0 for size in shape)
        and math.prod(max(size, 1) for size in shape) < 1 << 48
    )
