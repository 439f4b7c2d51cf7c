"""Rows cut into thirds, one for each assignment of roles, so that work and bytes even out over the parties."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from mpc_ray.sharing.replicated import Summand


@dataclass(frozen=True)
class Halves:
    """A 2-of-2 sharing under one assignment of roles: E0 and E1 hold numbers that add up, D holds None.

    It takes a Summand's place wherever a value is opened. Its text form holds no share.
    """

    value: torch.Tensor | None = field(repr=False)
    shape: torch.Size
    scale: int


@dataclass(frozen=True)
class Thirds:
    """A matrix by its thirds: (role, rows, this party's part of them), without empty thirds."""

    parts: tuple[tuple[int, slice, Summand | Halves], ...]
    rows: int

    def __iter__(self) -> Iterator[tuple[int, slice, Summand | Halves]]:
        return iter(self.parts)

    def columns(self, some: slice) -> Thirds:
        """The same rows, some columns."""
        return Thirds(tuple((k, rows, _columns(part, some)) for k, rows, part in self.parts), self.rows)


def thirds_of(n: int) -> list[tuple[int, slice]]:
    """(role, rows) of the three chunks of n rows; empty chunks are left out at all parties alike."""
    cuts = [n * i // 3 for i in range(4)]
    return [(i, slice(cuts[i], cuts[i + 1])) for i in range(3) if cuts[i] < cuts[i + 1]]


def cut(z: Summand) -> Thirds:
    """[z] by thirds of its rows."""
    return Thirds(tuple((k, rows, z[rows]) for k, rows in thirds_of(z.shape[0])), z.shape[0])


def _columns(part: Summand | Halves, some: slice) -> Summand | Halves:
    if isinstance(part, Summand):
        return part[:, some]
    width = len(range(*some.indices(part.shape[1])))
    value = None if part.value is None else part.value[:, some]
    return Halves(value, torch.Size((part.shape[0], width)), part.scale)
