"""The encoder shapes that are measured: three by name, any other by its four numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mpc_ray.errors import InputError


@dataclass(frozen=True)
class Shape:
    """``layers`` of ``hidden`` columns, ``heads`` that divide them, and ``ffn`` columns between."""

    name: str
    layers: int
    hidden: int
    heads: int
    ffn: int


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("bert-tiny", 2, 128, 2, 512),
        Shape("minilm", 6, 384, 12, 1536),
        Shape("bert-base", 12, 768, 12, 3072),
    )
}


def shape_of(name: str) -> Shape:
    """A shape by name, or by "LAYERSxHIDDENxHEADSxFFN". Raises InputError if it is neither, or heads do not divide."""
    if name in SHAPES:
        return SHAPES[name]
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){3}", name):
        raise InputError(f"unknown shape {name!r}", remedy=f"one of {', '.join(SHAPES)}, or 2x128x2x512")
    layers, hidden, heads, ffn = (int(n) for n in name.split("x"))
    if hidden % heads:
        raise InputError(f"{heads} heads do not divide hidden size {hidden}", remedy="choose other sizes")
    return Shape(name, layers, hidden, heads, ffn)
