"""``mpc-ray``: the program. Every error ends in one line with its cause, one with what to do, and an exit code."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import mpc_ray
from mpc_ray.cli import api_keys, bench, certs, cluster, keys, model, plan, stop
from mpc_ray.cli.demo import demo
from mpc_ray.cli.doctor import doctor
from mpc_ray.cli.embed import embed
from mpc_ray.cli.gateway import gateway
from mpc_ray.cli.output import begin, fail, stopped
from mpc_ray.cli.party import party
from mpc_ray.cli.proxy import proxy
from mpc_ray.cli.supervise import supervise

EXIT_CODES = " · ".join(
    (
        "Exit codes: 0 done",
        "1 failed, or doctor found a failure",
        "2 wrong usage, setting or text",
        "3 the model does not fit",
        "4 a text left the calibrated range",
        "5 a party was lost, or a connection failed",
        "6 no such device, or no room in the cluster",
        "7 the result differs from plaintext",
        "8 a party cheated",
        "75 what is needed is taken or not up yet: a port, a party's folder, a full disk; try again",
        f"{stop.CTRL_C_EXIT} stopped by Ctrl-C",
        f"{stop.PIPE_EXIT} the reader of the output left",
        f"{stop.TERM_EXIT} stopped by SIGTERM",
    )
)

app = typer.Typer(
    name="mpc-ray",
    help="Run a transformer on text that the servers cannot read, with weights that they cannot read either.",
    epilog=EXIT_CODES,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=EXIT_CODES)(demo)
app.command(epilog=EXIT_CODES)(embed)
app.command(epilog=EXIT_CODES)(doctor)
app.command(epilog=EXIT_CODES)(gateway)
app.command(epilog=EXIT_CODES)(party)
app.command(epilog=EXIT_CODES)(proxy)
app.command(
    epilog=EXIT_CODES, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)(supervise)
app.add_typer(bench.app, name="bench")
app.add_typer(certs.app, name="certs")
api_keys.add_to(keys.app)
app.add_typer(keys.app, name="keys")
app.add_typer(model.app, name="model")
app.add_typer(cluster.app, name="cluster")
app.add_typer(plan.app, name="plan")


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="show the version")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="with --version: one JSON object")] = False,
) -> None:
    """Run a transformer on text that the servers cannot read, with weights that they cannot read either."""
    if version:
        said = json.dumps({"version": mpc_ray.__version__}) if as_json else f"mpc-ray {mpc_ray.__version__}"
        print(said)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


def run(arguments: Sequence[str]) -> int:
    """Run the program; its exit code. Nothing but SystemExit of others gets out."""
    words = list(arguments)
    flags = words[: words.index("--")] if "--" in words else words
    as_json = "--json" in flags
    begin()
    try:
        code = typer.main.get_command(app).main(args=words, prog_name="mpc-ray", standalone_mode=False)
        status = code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        status = stop.CTRL_C_EXIT
    except SystemExit as leaving:
        if isinstance(
            leaving.__context__, BrokenPipeError
        ):  # how rich and typer take it; `| head` has had enough
            return stop.PIPE_EXIT
        if not stop.by_ray(leaving):
            raise
        status = stop.CTRL_C_EXIT
    except Exception as error:  # noqa: BLE001 - this is where errors end
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its help says all
            return 2
        return fail(error, as_json=as_json, debug="--debug" in flags)
    return stopped(*stop.interrupted(), as_json=as_json) if status == stop.CTRL_C_EXIT else status


def main() -> None:
    """Entry point of the command ``mpc-ray``. Ends the process itself, once all is written and cleaned up.

    A call that was given up may still compute in a daemon thread. The interpreter's own way out would end such a thread
    inside native code, which aborts the process after its result was shown.
    """
    stop.watch()
    status = run(sys.argv[1:])
    stop.leave()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = status or stop.PIPE_EXIT
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.flush()
    atexit._run_exitfuncs()
    os._exit(status)


if __name__ == "__main__":
    main()
