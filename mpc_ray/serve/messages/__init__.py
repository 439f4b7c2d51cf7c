"""Titles of problems in six languages: one JSON file each, ``code: title``, chosen by ``Accept-Language``."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path

LANGUAGES = ("en", "es", "fr", "de", "ja", "zh")
MAX_HEADER = 1000  # characters of Accept-Language that are read
_RANGE = re.compile(r"\s*([A-Za-z]{1,8}|\*)(?:-[A-Za-z0-9]{1,8})*\s*(?:;\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*)?")


@functools.cache
def catalogue(language: str) -> Mapping[str, str]:
    """All titles of one of ``LANGUAGES``."""
    text = (Path(__file__).parent / f"{language}.json").read_text(encoding="utf-8")
    return {str(code): str(title) for code, title in json.loads(text).items()}


@functools.lru_cache(maxsize=256)
def language_of(accept: str) -> str:
    """The language that ``Accept-Language`` likes best of ours (RFC 9110 12.5.4, basic filtering); else English."""
    best, chosen = 0.0, "en"
    for part in accept[:MAX_HEADER].split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            continue
        name, quality = match[1].lower(), min(float(match[2] or 1), 1.0)
        if quality > best and (name in LANGUAGES or name == "*"):
            best, chosen = quality, "en" if name == "*" else name
    return chosen


def title(code: str, fallback: str, language: str) -> str:
    """The title of a code, or of the more general ``fallback``."""
    known = catalogue(language)
    return known.get(code) or known[fallback]
