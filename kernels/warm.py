"""Compiles, or loads from the cache, every body."""

from __future__ import annotations


def warm() -> None:
    """Compile or load every body."""
