"""Graphs to cut, and the Ising problem that it is: maximum cut ↔ least E = -½ Σ J_ij s_i s_j with J = -w.

A cut weighs (Σ w - Σ w_ij s_i s_j) / 2 over the edges, so it is (Σ w - E) / 2 with E counted once for each edge.
Weights are whole numbers, so energies are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mpc_ray.planner.problem import ProblemError

Array = np.ndarray[Any, np.dtype[Any]]

MOST_WEIGHT = 1 << 24  # of an edge; sums over a vertex stay below 2^31
MOST_VERTICES = 1 << 24


@dataclass(frozen=True)
class Graph:
    """A weighted graph: edge e joins `heads[e]` and `tails[e]` (from 0) with the whole number `weights[e]`."""

    vertices: int
    heads: Array
    tails: Array
    weights: Array

    @cached_property
    def rows(self) -> tuple[Array, Array, Array]:
        """(first neighbour of each vertex, neighbours, J = -w): compressed rows, each edge in both."""
        ends = np.concatenate([self.heads, self.tails])
        others = np.concatenate([self.tails, self.heads])
        order = np.lexsort((others, ends))
        first = np.zeros(self.vertices + 1, np.int64)
        np.cumsum(np.bincount(ends, minlength=self.vertices), out=first[1:])
        couplings = -np.concatenate([self.weights, self.weights])[order]
        return first, others[order].astype(np.int32), couplings.astype(np.int32)

    @cached_property
    def total(self) -> int:
        """The weight of all edges."""
        return int(self.weights.sum())

    @cached_property
    def scale(self) -> float:
        """σ, the root mean square of a vertex's couplings taken together: temperatures are in it. 1 without edges."""
        squares = float((self.weights.astype(float) ** 2).sum())
        return float(np.sqrt(2 * squares / self.vertices)) if squares else 1.0

    @cached_property
    def largest_field(self) -> int:
        """The largest sum of |J| over the neighbours of a vertex."""
        ends = np.concatenate([self.heads, self.tails])
        sizes = np.abs(np.concatenate([self.weights, self.weights])).astype(float)
        return int(np.bincount(ends, sizes, self.vertices).max()) if len(ends) else 0

    def cut(self, spins: Array) -> int:
        """The weight between the halves, counted edge by edge. `spins` are ±1 by vertex."""
        return int(self.weights[spins[self.heads] != spins[self.tails]].sum())


def from_edges(vertices: int, heads: Any, tails: Any, weights: Any) -> Graph:
    """A graph, checked; edges given several times add up. Raises ProblemError naming the edge that is wrong."""
    u, v, w = (np.asarray(part) for part in (heads, tails, weights))
    if not 1 <= vertices <= MOST_VERTICES:
        raise ProblemError(f"a graph of {vertices} vertices: it has from 1 to {MOST_VERTICES}")
    if not u.shape == v.shape == w.shape or u.ndim != 1:
        raise ProblemError("an edge has two ends and a weight")
    if not np.isfinite(w.astype(float)).all() or (w != np.round(w.astype(float))).any():
        bad = int(np.flatnonzero(~np.isfinite(w.astype(float)) | (w != np.round(w.astype(float))))[0])
        raise ProblemError(f"edge {bad + 1} weighs {w[bad]}: weights are whole numbers")
    for ends in (u, v):
        outside = np.flatnonzero((ends < 0) | (ends >= vertices))
        if len(outside):
            raise ProblemError(
                f"edge {outside[0] + 1} ends at vertex {ends[outside[0]] + 1}, of {vertices} counted from 1"
            )
    if (loops := np.flatnonzero(u == v)).size:
        raise ProblemError(f"edge {loops[0] + 1} joins vertex {u[loops[0]] + 1} with itself")
    low, high = np.minimum(u, v).astype(np.int64), np.maximum(u, v).astype(np.int64)
    keys, inverse = np.unique(low * vertices + high, return_inverse=True)
    sums = np.bincount(inverse, w.astype(float), len(keys)) if len(keys) else np.zeros(0)
    graph = Graph(vertices, keys // vertices, keys % vertices, sums.astype(np.int64))
    if np.abs(sums).max(initial=0) > MOST_WEIGHT or graph.largest_field >= 1 << 30:
        raise ProblemError(f"weights are too large: at most {MOST_WEIGHT} an edge, 2^30 at a vertex")
    return graph


def read(path: Path) -> Graph:
    """A graph in the G-set's format: "vertices edges", then "i j weight" (the weight may be left out: 1) a line.

    Raises ProblemError with the line that is wrong.
    """
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except OSError as error:
        raise ProblemError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ProblemError(f"{path} is no text of numbers") from error
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ProblemError(f"{path} is empty")
    number, head = rows[0]
    vertices, edges = (_whole(path, number, part, what) for part, what in _pairs(path, number, head))
    if len(rows) - 1 != edges:
        raise ProblemError(f"{path} announces {edges} edges and has {len(rows) - 1}")
    table = np.empty((edges, 3), np.int64)
    for place, (number, parts) in enumerate(rows[1:]):
        if len(parts) not in (2, 3):
            raise ProblemError(f"{path}, line {number}: an edge is two vertices and a weight")
        table[place, 0] = _whole(path, number, parts[0], "a vertex")
        table[place, 1] = _whole(path, number, parts[1], "a vertex")
        table[place, 2] = _whole(path, number, parts[2], "a weight") if len(parts) == 3 else 1
    try:
        return from_edges(vertices, table[:, 0] - 1, table[:, 1] - 1, table[:, 2])
    except ProblemError as error:
        raise ProblemError(f"{path}: {error}") from error


def _pairs(path: Path, number: int, head: list[str]) -> list[tuple[str, str]]:
    if len(head) < 2:  # what follows the two is somebody's remark
        raise ProblemError(f"{path}, line {number}: it begins with the numbers of vertices and edges")
    return [(head[0], "the number of vertices"), (head[1], "the number of edges")]


def _whole(path: Path, number: int, text: str, what: str) -> int:
    try:
        value = float(text)
        if value != int(value):
            raise ValueError
    except (ValueError, OverflowError):
        raise ProblemError(
            f"{path}, line {number}: {what} is {text[:20]!r}, must be a whole number"
        ) from None
    if abs(value) > 1 << 31:
        raise ProblemError(f"{path}, line {number}: {what} is {text[:20]}, which is too large")
    return int(value)
