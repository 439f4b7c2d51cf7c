"""Graphs: read, refused, and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.planner import ProblemError
from mpc_ray.planner.ising import from_edges, read
from mpc_ray.planner.ising.generate import planar_union, random_graph, torus

GOOD = "4 4\n1 2 1\n2 3 -2\n3 4\n1 4 5\n"


def test_the_g_sets_format(tmp_path: Path) -> None:
    path = tmp_path / "g.txt"
    path.write_text(GOOD.replace("4 4", "4 4 J", 1) + "\n\n")
    graph = read(path)
    assert graph.vertices == 4 and graph.total == 5
    assert graph.cut(np.array([1, -1, 1, 1])) == -1
    assert graph.cut(np.array([1, 1, 1, 1])) == 0
    assert graph.cut(np.array([1, 1, 1, -1])) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("4\n", "line 1: it begins with the numbers"),
        ("x 4\n", "line 1: the number of vertices is 'x'"),
        ("4 nan\n", "the number of edges is 'nan'"),
        ("4 3\n1 2 1\n", "announces 3 edges and has 1"),
        ("4 1\n1 2 1\n2 3 1\n", "announces 1 edges and has 2"),
        ("4 1\n1 2 1 1\n", "line 2: an edge is two vertices and a weight"),
        ("4 1\n1 2 inf\n", "line 2: a weight is 'inf'"),
        ("4 1\n1 2 0.5\n", "line 2: a weight is '0.5'"),
        ("4 1\n1 2 1e12\n", "which is too large"),
        ("4 1\n0 2 1\n", "edge 1 ends at vertex 0, of 4"),
        ("4 1\n1 5 1\n", "edge 1 ends at vertex 5, of 4"),
        ("4 1\n2 2 1\n", "edge 1 joins vertex 2 with itself"),
        ("0 0\n", "a graph of 0 vertices"),
    ],
)
def test_what_is_no_graph_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(ProblemError, match=said):
        read(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="cannot be read: No such file"):
        read(tmp_path / "none")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    with pytest.raises(ProblemError, match="no text of numbers"):
        read(tmp_path / "binary")


def test_edges_given_twice_add_up() -> None:
    graph = from_edges(3, [0, 1, 0], [1, 0, 2], [2, 3, 1])
    assert sorted(zip(graph.heads, graph.tails, graph.weights, strict=True)) == [(0, 1, 5), (0, 2, 1)]


@given(st.integers(2, 9), st.randoms(use_true_random=False))
def test_the_cut_and_the_energy_are_one_thing(n: int, random: object) -> None:
    rng = np.random.default_rng(random.randrange(1 << 32))  # type: ignore[attr-defined]
    pairs = [(i, j) for i in range(n) for j in range(i) if rng.random() < 0.6]
    weights = rng.integers(-9, 9, len(pairs))
    graph = from_edges(n, [i for i, _ in pairs], [j for _, j in pairs], weights)
    spins = rng.choice(np.array([-1, 1]), n)
    first, others, couplings = graph.rows
    energy = 0
    for i in range(n):
        for k in range(first[i], first[i + 1]):
            energy -= int(couplings[k]) * int(spins[i]) * int(spins[others[k]])
    assert graph.cut(spins) == (graph.total - energy // 2) // 2


def test_families() -> None:
    plain = random_graph(50, 200, 1)
    assert len(plain.weights) == 200 and set(plain.weights) == {1}
    assert set(random_graph(50, 200, 1, signed=True).weights) == {-1, 1}
    grid = torus(5, 7, 1)
    assert grid.vertices == 35 and len(grid.weights) == 70
    assert (np.bincount(np.concatenate([grid.heads, grid.tails])) == 4).all()
    union = planar_union(100, 1)
    assert union.vertices == 100 and 294 < len(union.weights) <= 2 * 294
    assert len(random_graph(5, 99, 1).weights) == 10
