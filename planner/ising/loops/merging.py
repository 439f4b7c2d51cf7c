"""Vertices that always agree, or always disagree, in several solutions, found and joined."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpc_ray.planner.compiled import compiled


@compiled
def _root(parent: Any, i: Any) -> Any:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled
def components(first: Any, others: Any, pattern: Any) -> Any:
    """(component of each vertex, how many): connected vertices with equal `pattern` are one component."""
    n = pattern.shape[0]
    parent = np.arange(n)
    for i in range(n):
        for k in range(first[i], first[i + 1]):
            j = others[k]
            if j > i and pattern[i] == pattern[j]:
                a, b = _root(parent, i), _root(parent, j)
                if a < b:
                    parent[b] = a
                elif b < a:
                    parent[a] = b
    label = np.empty(n, np.int64)
    count = 0
    for i in range(n):
        r = _root(parent, i)
        if r == i:
            label[i] = count
            count += 1
        else:
            label[i] = label[r]
    return label, count
