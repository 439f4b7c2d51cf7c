"""``mpc-ray plan tune``: search the planner's settings, and write those that are better on held-out problems."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import check_writable, opened

if TYPE_CHECKING:
    from mpc_ray.tune import Outcome

SweepFile = Annotated[
    Path, typer.Argument(metavar="SWEEP", help="YAML file such as configs/planner/sweep.yaml")
]
Folder = Annotated[
    Path,
    typer.Option(
        "--folder", metavar="DIR", help="where results are kept; the same command goes on from there"
    ),
]
WriteTo = Annotated[
    Path,
    typer.Option(
        "--write", metavar="FILE", help="settings file for what is better; other sections of it stay"
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="NAME", help="gap, jobs or maxcut; default: all in the sweep"),
]


def tune(
    sweep: SweepFile,
    folder: Folder = Path("planner-tune"),
    write: WriteTo = Path("planner-settings.yaml"),
    target: Targets = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Search solver settings, and write those that are better than the defaults by more than chance.

    May be stopped or killed at any time: the same command takes it up again. Point MPC_PLANNER_SETTINGS at the file
    written.
    """
    del debug  # read by main
    from mpc_ray.cli.plan_errors import as_input_errors

    check_writable(write.absolute(), (".yaml", ".yml"))
    with opened(as_json) as output:
        from mpc_ray.planner.tuning import read
        from mpc_ray.tune import tune as run

        with as_input_errors("configs/planner/sweep.yaml shows what a sweep holds"):
            plan = read(sweep)

        def progress(stage: str, done: int, total: int, remark: str) -> None:
            output.notes.print(f"{stage}: {done} of {total}{f', {remark}' if remark else ''}")

        outcomes = run(plan, folder, write, targets=target or (), progress=progress)
        written = any(outcome.written for outcome in outcomes)
        if as_json:
            said = {"settings_file": str(write) if written else None, "folder": str(folder)}
            output.emit({"command": "plan tune", **said, "targets": [as_object(o) for o in outcomes]})
            return
        for outcome in outcomes:
            output.console.print("\n".join(lines(outcome, write)))
        if written:
            output.console.print(f"the planner reads it where MPC_PLANNER_SETTINGS={write}")


def as_object(outcome: Outcome) -> dict[str, Any]:
    """One target of the JSON object that is printed. Figures are natural logarithms: 0.01 is about one per cent."""
    said = asdict(outcome)
    said["held_out"] = said.pop("verdict")
    return said


def lines(outcome: Outcome, write: Path) -> list[str]:
    """One target for people."""
    v = outcome.verdict
    best = ", ".join(f"{name} {value:g}" for name, value in outcome.best.items())
    failed = f", {outcome.failed} failed" if outcome.failed else ""
    return [
        f"{outcome.target}: {outcome.trials} trials, {outcome.stopped_early} stopped early{failed}; best: {best}",
        f"  held out: {100 * v.improvement:+.3f} % better than the defaults (median {100 * v.median:+.3f}, worst "
        f"{100 * v.worst:+.3f}), {100 * v.spread:.3f} % by the seed alone",
        f"  written to {write}"
        if outcome.written
        else "  not written: chance could do as much; the defaults stay",
    ]
