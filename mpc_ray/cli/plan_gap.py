"""``mpc-ray plan gap``: generalised assignment with the planner's solvers, to hold them against public instances."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import opened

if TYPE_CHECKING:
    from mpc_ray.planner.assignment import Answer

File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="OR-Library format: agents, jobs; costs by agent; needs by agent; capacities. Costs are minimised",
    ),
]
Seconds = Annotated[
    float, typer.Option("--seconds", metavar="S", help="time to solve in; compilation is not in it")
]
Moves = Annotated[
    int | None,
    typer.Option(
        "--moves", metavar="N", help="a budget of moves instead of a clock: the same seed, the same answer"
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="of all random numbers")]
SolverName = Annotated[
    str,
    typer.Option(
        "--solver", metavar="NAME", help="annealing, prices-greedy, descent (the control), potts-sb, cp-sat"
    ),
]
Instance = Annotated[
    int | None,
    typer.Option("--instance", metavar="K", help="which problem of a file that holds several, from 1"),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="what plan tune wrote [MPC_PLANNER_SETTINGS]"),
]


def gap(
    file: File,
    seconds: Seconds = 10.0,
    moves: Moves = None,
    seed: Seed = 0,
    solver: SolverName = "annealing",
    instance: Instance = None,
    settings: SettingsFile = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Assign jobs to agents with capacities at the least cost.

    Ends with 0 where an assignment was found, or proved not to exist (status: infeasible); with 1 where neither was.
    """
    del debug  # read by main
    from mpc_ray.cli.plan_errors import as_input_errors

    with opened(as_json, guarded=False) as output:
        with as_input_errors("see mpc-ray plan gap --help, and docs/planner.md for the format"):
            from mpc_ray.planner.assignment import read, solve
            from mpc_ray.planner.settings import section

            problem = read(file, instance)
            answer = solve(
                problem,
                seconds=seconds,
                moves=moves,
                seed=seed,
                solver=solver,
                settings=section("gap", settings),
            )
        if as_json:
            output.emit(as_object(answer))
        else:
            output.console.print("\n".join(lines(answer, problem.agents, problem.jobs)))
    if answer.status == "none found":
        raise typer.Exit(1)


def as_object(answer: Answer) -> dict[str, Any]:
    """The answer as the JSON object that is printed."""
    return {
        "command": "plan gap",
        "solver": answer.solver,
        "status": answer.status,
        "feasible": answer.feasible,
        "cost": _plain(answer.cost),
        "bound": _plain(answer.bound),
        "gap": answer.gap,
        "seconds": answer.seconds,
        "reason": answer.reason,
        "assignment": None if answer.agents is None else list(answer.agents),
    }


def lines(answer: Answer, agents: int, jobs: int) -> list[str]:
    """The answer for people."""
    head = f"{jobs} jobs on {agents} agents, {answer.solver}, {answer.seconds:.2f} s"
    if answer.status == "infeasible":
        return [head, f"no feasible assignment exists: {answer.reason}"]
    if answer.cost is None or answer.agents is None:
        return [head, "no assignment was found, and no proof that there is none: allow more seconds"]
    gap = "" if answer.gap is None else f", {100 * answer.gap:.2f} % above the bound {_plain(answer.bound)}"
    said = f"cost {_plain(answer.cost)}" + (", proved optimal" if answer.status == "optimal" else gap)
    return [head, said, "agent of each job, from 0: " + " ".join(map(str, answer.agents))]


def _plain(value: float | None) -> float | int | None:
    """Whole numbers without a point."""
    return int(value) if value is not None and value == int(value) else value
