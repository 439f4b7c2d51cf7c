"""The planner's Ising solvers on the same graphs, with the same time, in one table; peers beside them where installed.

    python benchmarks/maxcut.py --seconds 10 --seeds 5                     # graphs of this project's own generator
    python benchmarks/maxcut.py --folder GSET --best GSET/best_known.csv   # files in the G-set's format
    python benchmarks/maxcut.py --solvers portfolio,descent --peers dwave-samplers,openjij,simulated-bifurcation

A peer gets the same seconds, repeated to the clock; its best cut counts. Peers that are not installed are named and
left
out. `--json` prints one object and nothing else.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mpc_ray.bench.machine import machine
from mpc_ray.planner.ising import PORTFOLIO, SOLVERS, Graph, maxcut, read, warm
from mpc_ray.planner.ising.generate import planar_union, random_graph, torus

OWN: Mapping[str, Callable[[], Graph]] = {
    "random 800": lambda: random_graph(800, 19176, 11),
    "random 800 ±1": lambda: random_graph(800, 19176, 12, signed=True),
    "planar 800": lambda: planar_union(800, 13),
    "torus 800 ±1": lambda: torus(25, 32, 14),
    "random 2000": lambda: random_graph(2000, 19990, 15),
    "random 2000 ±1": lambda: random_graph(2000, 19990, 16, signed=True),
    "planar 2000": lambda: planar_union(2000, 17),
    "planar 2000 ±1": lambda: planar_union(2000, 18, signed=True),
    "torus 2000 ±1": lambda: torus(40, 50, 19),
    "torus 20000 ±1": lambda: torus(100, 200, 20),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="*.txt in the G-set's format, instead of generated graphs"
    )
    parser.add_argument("--best", type=Path, help="CSV with columns Instance and Value: best known cuts")
    parser.add_argument("--graphs", default="", help="only these, by commas")
    parser.add_argument(
        "--solvers", default=f"{PORTFOLIO},descent", help=f"of {PORTFOLIO},{','.join(SOLVERS)}"
    )
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    graphs = load(given.folder)
    if given.graphs:
        graphs = {name: graphs[name] for name in given.graphs.split(",")}
    known = best_known(given.best)
    peers = [name for name in given.peers.split(",") if name and installed(name)]
    missing = [name for name in given.peers.split(",") if name and name not in peers]
    if missing:
        print(f"not installed, left out: {', '.join(missing)}", file=sys.stderr)
    warm()
    rows: dict[str, dict[str, list[int]]] = {}
    for name, graph in graphs.items():
        rows[name] = {}
        for solver in [*given.solvers.split(","), *peers]:
            cuts = []
            for seed in range(given.seeds):
                if solver in peers:
                    cuts.append(repeated(PEERS[solver][1], graph, given.seconds, seed))
                else:
                    cuts.append(maxcut(graph, seconds=given.seconds, seed=seed, solver=solver).cut)
            rows[name][solver] = cuts
            print(f"{name}: {solver} {cuts}", file=sys.stderr)
    result = {
        "benchmark": "maxcut",
        "seconds": given.seconds,
        "cuts": rows,
        "best_known": {name: known.get(name) for name in rows},
        "machine": machine(),
    }
    if given.json:
        print(json.dumps(result))
        return
    for name, cuts in rows.items():
        best = known.get(name) or max(max(found) for found in cuts.values())
        parts = [
            f"{solver} {statistics.median(found):g} ({min(found)}–{max(found)}, "
            f"{100 * statistics.median(found) / best:.2f} %)"
            for solver, found in cuts.items()
        ]
        print(f"{name} [{'best known' if name in known else 'best here'} {best}]: " + "; ".join(parts))


def load(folder: Path | None) -> dict[str, Graph]:
    if folder is None:
        return {name: make() for name, make in OWN.items()}
    return {path.stem: read(path) for path in sorted(folder.glob("*.txt"))}


def best_known(path: Path | None) -> dict[str, int]:
    if path is None:
        return {}
    with path.open(encoding="ascii") as file:
        return {row["Instance"]: int(row["Value"]) for row in csv.DictReader(file)}


def installed(peer: str) -> bool:
    if peer not in PEERS:
        raise SystemExit(f"there is no peer {peer}; there are {', '.join(PEERS)}")
    return importlib.util.find_spec(PEERS[peer][0]) is not None


def repeated(once: Callable[[Graph, int], Any], graph: Graph, seconds: float, seed: int) -> int:
    """The best cut of calls that begin before the clock runs out."""
    end = time.perf_counter() + seconds
    best, call = -(1 << 62), 0
    while time.perf_counter() < end:
        best = max(best, graph.cut(once(graph, seed * 1000 + call)))
        call += 1
    return best


def dwave(graph: Graph, seed: int) -> Any:
    from dwave.samplers import SimulatedAnnealingSampler

    couplings = {
        (int(i), int(j)): float(w) for i, j, w in zip(graph.heads, graph.tails, graph.weights, strict=True)
    }
    found = SimulatedAnnealingSampler().sample_ising({}, couplings, num_reads=4, num_sweeps=2000, seed=seed)
    return _spins(graph, found.first.sample)


def openjij(graph: Graph, seed: int) -> Any:
    import openjij

    couplings = {
        (int(i), int(j)): float(w) for i, j, w in zip(graph.heads, graph.tails, graph.weights, strict=True)
    }
    found = openjij.SASampler().sample_ising({}, couplings, num_reads=4, num_sweeps=2000, seed=seed)
    return _spins(graph, found.first.sample)


def bifurcation(graph: Graph, seed: int) -> Any:
    import simulated_bifurcation as sb
    import torch

    torch.manual_seed(seed)
    matrix = torch.zeros(graph.vertices, graph.vertices)
    matrix[graph.heads, graph.tails] = torch.tensor(graph.weights, dtype=torch.float32)
    vector, _ = sb.minimize(matrix, domain="spin", agents=64, max_steps=2000, mode="discrete", verbose=False)
    return np.sign(vector.numpy())


def _spins(graph: Graph, sample: Mapping[int, int]) -> Any:
    return np.array([sample.get(i, 1) for i in range(graph.vertices)])


PEERS: Mapping[str, tuple[str, Callable[[Graph, int], Any]]] = {
    "dwave-samplers": ("dwave", dwave),
    "openjij": ("openjij", openjij),
    "simulated-bifurcation": ("simulated_bifurcation", bifurcation),
}


if __name__ == "__main__":
    main()
