"""``mpc-ray plan simulate``: a trace of jobs over emulated regions under several policies, also on real Ray."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import opened

if TYPE_CHECKING:
    from mpc_ray.planner.jobs.simulate import Comparison

TraceFile = Annotated[
    Path, typer.Argument(metavar="TRACE", help="YAML file such as configs/planner/trace.yaml")
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy", metavar="NAME", help="planner, earliest, round-robin or fewest; default: all of them"
    ),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", min=0, help="of the policies [the trace's own]")
]
OnRay = Annotated[
    bool,
    typer.Option("--ray", help="also on a Ray cluster of this machine: a node for each region and operator"),
]
Speed = Annotated[
    float,
    typer.Option("--speed", metavar="X", min=0.1, max=100.0, help="seconds of the trace in one, with --ray"),
]


def simulate(
    trace: TraceFile,
    policy: Policies = None,
    seed: Seed = None,
    ray: OnRay = False,
    speed: Speed = 1.0,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Run a trace of jobs, links, failures and residency under the planner and the policies it is held against.

    With --ray the same trace runs on real processes too, placed by labels; they wait as long as the model says.
    """
    del debug  # read by main
    from mpc_ray.cli.plan_errors import as_input_errors

    with opened(as_json) as output:
        with as_input_errors("configs/planner/trace.yaml shows what a trace holds"):
            from mpc_ray.planner.jobs.simulate import POLICIES
            from mpc_ray.planner.jobs.simulate import simulate as run
            from mpc_ray.planner.jobs.trace import read

            found = read(trace)
            names = policy or list(POLICIES)
            emulated = run(found, names, seed)
        rows = [{"cluster": "emulated", **row.to_json()} for row in emulated.rows]
        if ray:
            from mpc_ray.dispatch.emulated import on_ray

            def say(text: str) -> None:
                output.notes.print(text)

            with as_input_errors("configs/planner/trace.yaml shows what a trace holds"):
                real = on_ray(found, names, seed=seed, speed=speed, progress=say)
            rows += [{"cluster": "ray", **row.to_json()} for row in real]
        if as_json:
            output.emit({"command": "plan simulate", "rows": rows, "refused": emulated.refused})
            return
        _show(output.console, rows)
        for line in refusals(emulated):
            output.console.print(line)


def refusals(found: Comparison) -> list[str]:
    """One line for each reason: its first job, and how many more there are."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in found.refused.items():
        by_reason.setdefault(reason, []).append(name)
    return [
        f"refused: job {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}"
        for reason, names in by_reason.items()
    ]


def _show(console: Any, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table()
    for name in ("policy", "cluster"):
        table.add_column(name, no_wrap=True)
    columns = ("ends at s", "p95 s", "mean s", "worst 5 %", "late", "$", "done", "lost", "plan ms")
    for name in columns:
        table.add_column(name, justify="right")
    for row in rows:
        seconds = [f"{row[name]:.2f}" for name in ("makespan_s", "p95_s", "mean_s", "tail_s")]
        table.add_row(
            str(row["policy"]),
            str(row["cluster"]),
            *seconds,
            str(row["late"]),
            f"{row['dollars']:.2f}",
            str(row["done"]),
            str(row["stranded"]),
            f"{1e3 * row['planning_s']:.1f}",
        )
    console.print(table)
    for row in rows:
        for broken in row["broken"]:
            console.print(f"{row['policy']}: {broken}")
