"""Graphs of the families that cuts are compared on: random, unions of planar ones, toruses, complete ones."""

from __future__ import annotations

import numpy as np

from mpc_ray.planner.ising.problem import Array, Graph, from_edges


def random_graph(vertices: int, edges: int, seed: int, *, signed: bool = False) -> Graph:
    """`edges` different pairs, each as likely as any other. Weights 1, or ±1 where `signed`."""
    rng = np.random.default_rng(seed)
    most = vertices * (vertices - 1) // 2
    chosen = rng.choice(most, min(edges, most), replace=False)
    row = ((1 + np.sqrt(8.0 * chosen + 1)) / 2).astype(np.int64)
    row -= row * (row - 1) // 2 > chosen
    return _weighted(vertices, row, chosen - row * (row - 1) // 2, rng, signed)


def torus(rows: int, columns: int, seed: int, *, signed: bool = True) -> Graph:
    """A grid whose ends are joined: four neighbours each. Sides are from 3."""
    rng = np.random.default_rng(seed)
    number = np.arange(rows * columns).reshape(rows, columns)
    heads = np.concatenate([number.ravel(), number.ravel()])
    tails = np.concatenate([np.roll(number, -1, 0).ravel(), np.roll(number, -1, 1).ravel()])
    return _weighted(rows * columns, heads, tails, rng, signed)


def planar_union(vertices: int, seed: int, *, signed: bool = False) -> Graph:
    """The union of two nearly maximal planar graphs: a new vertex is joined to the corners of a random triangle."""
    rng = np.random.default_rng(seed)
    pairs = np.concatenate([_apollonian(vertices, rng), _apollonian(vertices, rng)])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    return _weighted(vertices, pairs[:, 0], pairs[:, 1], rng, signed)


def _apollonian(vertices: int, rng: np.random.Generator) -> Array:
    order = rng.permutation(vertices)
    faces = [(0, 1, 2), (0, 1, 2)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    for new in range(3, vertices):
        at = int(rng.integers(len(faces)))
        a, b, c = faces[at]
        faces[at] = (a, b, new)
        faces += [(a, c, new), (b, c, new)]
        pairs += [(a, new), (b, new), (c, new)]
    kept = rng.random(len(pairs)) < 0.99
    chosen: Array = order[np.array(pairs)[kept]]
    return chosen


def _weighted(vertices: int, heads: Array, tails: Array, rng: np.random.Generator, signed: bool) -> Graph:
    weights = rng.choice(np.array([-1, 1]), len(heads)) if signed else np.ones(len(heads), np.int64)
    return from_edges(vertices, heads, tails, weights)
