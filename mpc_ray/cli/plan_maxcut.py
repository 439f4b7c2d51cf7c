"""``mpc-ray plan maxcut``: a graph cut in two by the planner's Ising solvers, to hold against public instances."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import opened

if TYPE_CHECKING:
    from mpc_ray.planner.ising import Cut, Point

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help='the G-set\'s format: "vertices edges", then "i j weight" a line, from 1'
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option("--seconds", metavar="S", help="time to solve in [10]; compilation is not in it"),
]
Moves = Annotated[
    int | None,
    typer.Option(
        "--moves",
        metavar="N",
        help="a budget of proposals of single spins instead of a clock: the same seed, the same cut",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="of all random numbers")]
SolverName = Annotated[
    str,
    typer.Option(
        "--solver",
        metavar="NAME",
        help="portfolio, tempering, annealing, merging, ballistic, discrete, generalised, quantum-annealing, or "
        "descent (the control)",
    ),
]
Threads = Annotated[int, typer.Option("--threads", metavar="N", min=1, max=64, help="solvers side by side")]
Progress = Annotated[bool, typer.Option("--progress", help="say each improvement, on standard error")]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="what plan tune wrote [MPC_PLANNER_SETTINGS]"),
]


def maxcut(
    file: File,
    seconds: Seconds = None,
    moves: Moves = None,
    seed: Seed = 0,
    solver: SolverName = "portfolio",
    threads: Threads = 2,
    progress: Progress = False,
    settings: SettingsFile = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Cut a graph in two so that the edges between the halves weigh most. Weights are whole numbers, of either sign."""
    del debug  # read by main
    from mpc_ray.cli.plan_errors import as_input_errors

    with opened(as_json, guarded=False) as output:
        with as_input_errors("see mpc-ray plan maxcut --help, and docs/planner.md for the format"):
            from mpc_ray.planner.ising import maxcut as solve
            from mpc_ray.planner.ising import read
            from mpc_ray.planner.settings import section

            graph = read(file)
            answer = solve(
                graph,
                seconds=seconds,
                moves=moves,
                seed=seed,
                solver=solver,
                threads=threads,
                settings=section("maxcut", settings),
                progress=_said() if progress else None,
            )
        if as_json:
            output.emit(as_object(answer))
        else:
            halves = int((answer.spins > 0).sum())
            output.console.print(
                f"cut {answer.cut} of {graph.vertices} vertices and {len(graph.weights)} edges "
                f"({halves} and {graph.vertices - halves} vertices), by {answer.solver} in {answer.seconds:.2f} s"
            )


def as_object(answer: Cut) -> dict[str, Any]:
    """The answer as the JSON object that is printed."""
    return {
        "command": "plan maxcut",
        "cut": answer.cut,
        "spins": answer.spins.tolist(),
        "seconds": answer.seconds,
        "solver": answer.solver,
        "history": [[round(p.seconds, 4), p.solver, p.cut] for p in answer.history],
    }


def _said() -> Any:
    """Says a new best of all threads together."""
    lock, best = threading.Lock(), [-(1 << 62)]

    def say(point: Point) -> None:
        with lock:
            if point.cut > best[0]:
                best[0] = point.cut
                typer.echo(f"{point.seconds:8.2f} s  {point.cut}  {point.solver}", err=True)

    return say
