"""``mpc-ray demo``: embed sentences without any party seeing them, compare with plaintext, and show what it cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpc_ray.cli import options, texts
from mpc_ray.cli.output import check_writable, error_json, opened, write
from mpc_ray.errors import MpcError, RangeExceeded

if TYPE_CHECKING:
    from mpc_ray.cli.outcome import Outcome

REPORT = Path("mpc-ray-report.html")


class ResultDrift(MpcError):
    """The result on shares is further from the plaintext one than it should be."""

    exit_code = 7


Typed = Annotated[bool, typer.Option("--type", "-i", help="type the sentences in")]
Shadow = Annotated[
    bool,
    typer.Option("--shadow", help="compare every layer with float, and name the first one outside its bound"),
]
ReportFile = Annotated[
    Path, typer.Option("--report", metavar="FILE", help="where the HTML report goes", show_default=True)
]


@options.with_settings
def demo(
    flags: options.Settings,
    text: options.Texts = None,
    file: options.TextFile = None,
    typed: Typed = False,
    model: options.ModelPath = options.DEFAULT_MODEL,
    truncate: options.Truncate = False,
    calibrate: options.CalibrateFile = None,
    shadow: Shadow = False,
    report: ReportFile = REPORT,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Embed sentences on shares, compare with plaintext, and write a report.

    Without texts of your own it takes a dozen of ours.
    Shows each sentence's nearest neighbour, how far each result is from the
    plaintext one, and time, bytes and rounds by function.
    """
    chosen = texts.read(text, file, typed=typed) or list(texts.SENTENCES)
    settings = flags.load(shadow=shadow or None)
    check_writable(report, (".html", ".htm"))
    with opened(as_json) as out:
        from mpc_ray.cli import show
        from mpc_ray.cli.html import page
        from mpc_ray.cli.outcome import Outcome, setting_of
        from mpc_ray.cli.run import prepare, running
        from mpc_ray.cli.steps import Steps

        work = prepare(model, chosen, truncate, calibrate, settings)
        with Steps(out.notes) as steps, running(work, settings, steps, debug=debug) as run:
            steps.note(show.trust(run.session.trust))
            try:
                private = run.embed()
            except RangeExceeded:
                if run.model.drift is not None and not as_json:
                    show.shadow(out.console, run.model.drift)
                raise
            outcome = Outcome(
                setting_of(model, settings, run.session.trust, run.model),
                work.texts,
                private,
                run.plaintext(),
                run.model.report,
                run.seconds,
                run.model.drift,
            )
        write(report, page(outcome).encode())
        fault = judge(outcome)
        if as_json:
            said = outcome.as_json() | {"report": str(report.resolve())}
            out.emit(said if fault is None else said | error_json(fault))
        else:
            show.outcome(out.console, outcome)
            out.console.print(f"\nreport: {report.resolve()}")
    if fault is not None:
        raise fault


def judge(outcome: Outcome) -> ResultDrift | None:
    """What is wrong if the result is too far from plaintext, or a layer is outside its bound."""
    from mpc_ray.cli.outcome import DRIFT_BOUND

    if not outcome.worst <= DRIFT_BOUND:
        return ResultDrift(
            f"a result on shares is off plaintext by 1 - cosine = {outcome.worst:.1e}, over {DRIFT_BOUND:.0e}",
            remedy="run with --shadow to see in which layer it begins",
        )
    if outcome.shadow is not None and (first := outcome.shadow.first_outside) is not None:
        return ResultDrift(
            f"{first.place} is the first outside its bound: mean drift {first.mean:.1e}, largest {first.largest:.1e}",
            remedy="calibrate with texts like these: --calibrate FILE",
        )
    return None
