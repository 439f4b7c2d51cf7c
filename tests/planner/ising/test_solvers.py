"""The Ising solvers: optimal where that can be checked, exact in what they report, the same for the same seed."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from mpc_ray.planner import ProblemError
from mpc_ray.planner.ising import PORTFOLIO, SOLVERS, Graph, MaxcutSettings, Point, from_edges, maxcut, warm
from mpc_ray.planner.ising.annealing import merge
from mpc_ray.planner.ising.generate import planar_union, random_graph, torus
from mpc_ray.planner.ising.run import Lanes, Run

GOOD = [name for name in SOLVERS if name != "descent"]


@pytest.fixture(scope="module", autouse=True)
def _loops() -> None:
    warm()


def best_of_all(graph: Graph) -> int:
    every = np.array(list(itertools.product((-1, 1), repeat=graph.vertices - 1)), np.int8)
    spins = np.concatenate([every, np.ones((len(every), 1), np.int8)], axis=1)
    cut = (spins[:, graph.heads] != spins[:, graph.tails]) @ graph.weights
    return int(cut.max())


@pytest.mark.parametrize("name", [*SOLVERS, PORTFOLIO])
@pytest.mark.parametrize("seed", range(3))
def test_small_graphs_are_cut_best(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [(i, j) for i in range(12) for j in range(i) if rng.random() < 0.5]
    weights = rng.integers(-50, 50, len(pairs))
    graph = from_edges(12, [i for i, _ in pairs], [j for _, j in pairs], weights)
    answer = maxcut(graph, moves=2_000_000, seed=seed, solver=name)
    best = best_of_all(graph)
    assert answer.cut == graph.cut(answer.spins)
    # Bifurcation has no noise once it has begun: on a dozen very unequal weights all its replicas may end alike.
    assert answer.cut == best or (
        name in ("ballistic", "discrete", "generalised") and answer.cut > 0.95 * best
    )
    assert set(np.unique(answer.spins)) <= {-1, 1}


@pytest.mark.parametrize("name", [*SOLVERS, PORTFOLIO])
def test_the_same_seed_and_moves_give_the_same_cut(name: str) -> None:
    graph = planar_union(120, 5, signed=True)
    one, two = (maxcut(graph, moves=3_000_000, seed=7, solver=name) for _ in range(2))
    assert (one.spins == two.spins).all() and one.cut == two.cut


@pytest.mark.parametrize("name", GOOD)
def test_every_solver_beats_the_control(name: str) -> None:
    graph = planar_union(400, 3)
    moves = 30_000_000
    control = maxcut(graph, moves=moves, seed=1, solver="descent").cut
    assert maxcut(graph, moves=moves, seed=1, solver=name).cut > control


def test_an_even_torus_of_ones_is_cut_whole() -> None:
    graph = torus(10, 12, 1, signed=False)
    assert maxcut(graph, moves=5_000_000).cut == len(graph.weights)
    flipped = from_edges(120, graph.heads, graph.tails, -graph.weights)
    assert maxcut(flipped, moves=5_000_000).cut == 0, "nothing is gained: all on one side"


def test_wide_weights_use_wide_numbers() -> None:
    graph = random_graph(40, 200, 2)
    heavy = from_edges(40, graph.heads, graph.tails, graph.weights * 100_000)
    assert Run(graph, "x", 0).whole is np.int16 and Run(heavy, "x", 0).whole is np.int32
    assert maxcut(heavy, moves=4_000_000).cut == 100_000 * maxcut(graph, moves=4_000_000).cut
    with pytest.raises(ProblemError, match=r"2\^30 or more"):
        maxcut(from_edges(40, graph.heads, graph.tails, graph.weights * (1 << 23)), moves=1)


def test_fields_and_energies_stay_exact() -> None:
    from mpc_ray.planner.ising.loops.lanes import fields, sweep

    for scale in (1, 1 << 12):
        graph = random_graph(60, 300, 4, signed=True)
        run = Run(from_edges(60, graph.heads, graph.tails, graph.weights * scale), "x", 3)
        lanes = Lanes.scattered(run.rows, run.rng)
        half = np.geomspace(0.1, 2.0, 32).astype(np.float32) * np.float32(run.graph.scale)
        for _ in range(50):
            sweep(*run.rows, lanes.h, lanes.s, half, lanes.table, lanes.energy, lanes.state)
        h, energy = lanes.h.copy(), lanes.energy.copy()
        fields(*run.rows, lanes.s, lanes.h, lanes.energy)
        assert (h == lanes.h).all() and (energy == lanes.energy).all()
        assert all(run.energy_of(lanes.s[:, r]) == energy[r] for r in range(32))


def test_sweeps_draw_from_boltzmanns_distribution() -> None:
    """Two spins that like to agree: they do with probability 1/(1 + e^(-2/T))."""
    from mpc_ray.planner.ising.loops.lanes import fill, sweep

    run = Run(from_edges(2, [0], [1], [-1]), "x", 5)
    lanes = Lanes.scattered(run.rows, run.rng)
    temperature = 1.5
    half = np.full(32, temperature / 2, np.float32)
    agree = 0
    for m in range(4000):
        if m % 50 == 0:
            fill(lanes.table, lanes.state)
        sweep(*run.rows, lanes.h, lanes.s, half, lanes.table, lanes.energy, lanes.state)
        agree += int((lanes.s[0] == lanes.s[1]).sum())
    assert abs(agree / (4000 * 32) - 1 / (1 + np.exp(-2 / temperature))) < 0.01


def test_merged_solutions_are_never_worse() -> None:
    graph = planar_union(200, 8, signed=True)
    rng = np.random.default_rng(1)
    for seed in range(5):
        run = Run(graph, "x", seed, moves=10**9)
        several = rng.choice(np.array([-1, 1], np.int8), (4, 200))
        merged = merge(run, MaxcutSettings(), several, 50)
        assert run.energy_of(merged) <= min(run.energy_of(one) for one in several)
    same = np.array([several[0], -several[0]])
    assert (merge(run, MaxcutSettings(), same, 5) == several[0] * several[0, 0]).all()


def test_the_clock_is_kept_and_the_way_is_told() -> None:
    graph = planar_union(3500, 2)
    told: list[Point] = []
    began = time.perf_counter()
    answer = maxcut(graph, seconds=0.5, seed=1, progress=told.append)
    assert time.perf_counter() - began < 5, "generous: machines of CI are shared"
    assert answer.history[-1].seconds <= answer.seconds and max(p.cut for p in told) == answer.cut
    assert len(told) == len(answer.history) > 1


def test_graphs_without_anything_to_decide() -> None:
    for graph in (from_edges(1, [], [], []), from_edges(7, [], [], [])):
        for name in (*SOLVERS, PORTFOLIO):
            assert maxcut(graph, moves=1000, solver=name).cut == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seconds": 1, "moves": 1}, "not both"),
        ({"moves": 0}, "moves is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": -1.0}, "seconds is -1"),
        ({"solver": "magic", "moves": 1}, "there is no solver magic"),
    ],
)
def test_what_is_no_budget(options: dict[str, object], said: str) -> None:
    with pytest.raises(ProblemError, match=said):
        maxcut(from_edges(2, [0], [1], [1]), **options)  # type: ignore[arg-type]


def test_an_error_in_one_thread_ends_the_run() -> None:
    def no(point: Point) -> None:
        raise KeyError(point.solver)

    with pytest.raises(KeyError):
        maxcut(planar_union(50, 1), moves=100_000, progress=no)
