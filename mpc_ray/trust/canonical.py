"""One byte string for one value: the JSON that is signed, and lists of byte strings that are bound.

``encode`` gives sorted keys, no spaces, ASCII, whole numbers only. ``parse`` reads JSON from elsewhere and refuses what
another reader could understand differently: a key twice, fractions, NaN, deep nesting, or more than a stated size,
checked before any work. ``take`` and the patterns below check the shape; nothing is converted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
"""Names of federations, sets, operators, regions, purposes, retention classes and clients."""
MODEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
JURISDICTION = re.compile(r"[A-Z]{2}(?:-[A-Z0-9]{1,3})?")
"""A country of ISO 3166-1, with a subdivision of 3166-2 where one is meant: ``IE``, ``US-CA``."""
ADDRESS = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]):([1-9][0-9]{0,4})"
)
_DEPTH = 16


class Malformed(ValueError):
    """A value that is not of the form it must have. The text names the field, never its content."""


def encode(value: Any) -> bytes:
    """Canonical JSON of dicts with text keys, lists, texts, whole numbers, booleans and None. ``Malformed`` else."""
    _check(value, _DEPTH)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def parse(data: bytes | str, max_bytes: int) -> Any:
    """What ``data`` says, of at most ``max_bytes``. ``Malformed`` if two readers could understand it differently."""
    if len(data) > max_bytes:
        raise Malformed(f"has more than {max_bytes} bytes")
    try:
        value = json.loads(
            data, object_pairs_hook=_unique, parse_float=_no_fraction, parse_constant=_no_fraction
        )
    except Malformed:
        raise
    except (ValueError, RecursionError):
        raise Malformed("is not JSON") from None
    _check(value, _DEPTH)
    return value


def take(value: Any, kinds: Mapping[str, type]) -> dict[str, Any]:
    """``value`` as a dict with exactly the keys of ``kinds``, each of exactly that type. ``Malformed`` else."""
    if type(value) is not dict:
        raise Malformed("is not an object")
    missing = sorted(kinds.keys() - value.keys())
    if missing:
        raise Malformed(f"lacks {', '.join(missing)}")
    if len(value) != len(kinds):
        raise Malformed(f"has {len(value) - len(kinds)} unknown fields")
    for key, kind in kinds.items():
        if type(value[key]) is not kind:  # bool is an int to isinstance
            raise Malformed(f"{key} is not a {kind.__name__}")
    return value


def matching(value: Any, pattern: re.Pattern[str], field: str) -> str:
    """``value`` if it is a text that the whole pattern matches. ``Malformed`` else."""
    if type(value) is not str or pattern.fullmatch(value) is None:
        raise Malformed(f"{field} is not of the form it must have")
    return value


def within(value: Any, least: int, most: int, field: str) -> int:
    """``value`` if it is a whole number from ``least`` to ``most``. ``Malformed`` else."""
    if type(value) is not int or not least <= value <= most:
        raise Malformed(f"{field} is not a whole number from {least} to {most}")
    return value


def unhex(value: Any, size: int, field: str) -> bytes:
    """The ``size`` bytes that a text of lower-case hexadecimal digits means. ``Malformed`` else."""
    if type(value) is not str or len(value) != 2 * size or re.fullmatch("[0-9a-f]*", value) is None:
        raise Malformed(f"{field} is not {2 * size} lower-case hexadecimal digits")
    return bytes.fromhex(value)


def address(value: Any, field: str) -> str:
    """``value`` if it is ``host:port``. ``Malformed`` else."""
    matching(value, ADDRESS, field)
    if int(value.rpartition(":")[2]) > 65535:
        raise Malformed(f"{field} has no such port")
    return str(value)


def bind(purpose: str, *parts: bytes) -> bytes:
    """``purpose`` and parts, each preceded by its length (8 bytes, little endian): no two lists give the same bytes.

    Every signature, digest and sealing of this package is over such a string, and each use has a purpose of its own,
    so that what was made for one can never be shown as another.
    """
    pieces = (purpose.encode(), *parts)
    return b"".join(len(piece).to_bytes(8, "little") + piece for piece in pieces)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise Malformed("has a key twice")
    return value


def _no_fraction(text: str) -> Any:
    raise Malformed("has a number that is not whole")


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise Malformed("is nested too deeply")
    if type(value) is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise Malformed("has a key that is no text")
            _check(item, depth - 1)
    elif type(value) is list:
        for item in value:
            _check(item, depth - 1)
    elif value is not None and type(value) not in (str, int, bool):
        raise Malformed("has a value that is neither text, whole number, boolean nor null")
