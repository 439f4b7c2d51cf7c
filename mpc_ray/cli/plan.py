"""``mpc-ray plan``: the planner and its solvers from the command line. One file a command, ``plan_NAME.py``."""

from __future__ import annotations

import typer

from mpc_ray.cli import plan_gap, plan_maxcut, plan_show, plan_simulate, plan_tune

app = typer.Typer(
    help="Plan jobs over triples, and hold the planner's solvers against public instances.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# One line a command; each function says in its docstring what `--help` shows.
app.command("maxcut")(plan_maxcut.maxcut)
app.command("gap")(plan_gap.gap)
app.command("show")(plan_show.show)
app.command("simulate")(plan_simulate.simulate)
app.command("tune")(plan_tune.tune)
