"""``mpc-ray bench predict``: how long a pass would take over links of a given distance and bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import opened

if TYPE_CHECKING:
    from rich.console import Console

Cores = Annotated[
    int | None,
    typer.Option("--cores", min=1, help="of one machine that the parties share; without it each has its own"),
]
Refresh = Annotated[bool, typer.Option("--refresh", help="measure this machine anew")]
Seq = Annotated[int, typer.Option("--seq", min=1, help="tokens in each sequence")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="sequences in one pass")]
ShapeName = Annotated[
    str,
    typer.Option("--shape", metavar="NAME", help="bert-tiny, minilm, bert-base, or LAYERSxHIDDENxHEADSxFFN"),
]
Weights = Annotated[str | None, typer.Option("--weights", metavar="real|random", help="as bench encoder")]


@options.with_settings
def predict(
    flags: options.Settings,
    shape: ShapeName = "minilm",
    seq: Seq = 128,
    batch: Batch = 1,
    weights: Weights = None,
    cores: Cores = None,
    refresh: Refresh = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """A pass over links of --rtt-ms and --mbit: seconds by function, and which variant is done first.

    The first time, or with --refresh, a pass of this shape is run and measured
    on this machine; later predictions take no time.
    """
    settings = flags.load()
    with opened(as_json) as out:
        from mpc_ray.bench.predict import predictions, schedules
        from mpc_ray.bench.shapes import shape_of
        from mpc_ray.cli.steps import Steps
        from mpc_ray.cost.links import link_of

        link, chosen = link_of(settings.rtt_ms, settings.mbit), shape_of(shape)
        with Steps(out.notes) as steps:
            found = schedules(
                chosen,
                config=settings,
                seq=seq,
                batch=batch,
                weights=weights,
                refresh=refresh,
                progress=steps,
                debug=debug,
            )
        said = predictions(found, link, cores)
        if as_json:
            out.emit(said)
        else:
            _show(out.console, said)


def _show(console: Console, r: dict[str, Any]) -> None:
    from rich.table import Table

    from mpc_ray.cli.outcome import mb

    width = "no limit" if r["mbit"] is None else f"{r['mbit']:g} Mbit/s"
    title = f"{r['shape']}, {r['batch']} x {r['seq']} tokens, {r['protocol']}, {r['rtt_ms']:g} ms, {width}"
    table = Table(title=title, title_justify="left", box=None, show_header=True, pad_edge=False)
    table.add_column("")
    for name in r["variants"]:
        table.add_column(f"fewest {name}", justify="right")
    every = r["variants"].values()
    table.add_row("seconds, predicted", *(f"{one['seconds']:.3f}" for one in every))
    table.add_row("rounds", *(str(one["rounds"]) for one in every))
    table.add_row("bytes, largest party", *(mb(max(one["bytes_sent"])) for one in every))
    for name in dict.fromkeys(name for one in every for name in one["seconds_by_function"]):
        table.add_row(f"  {name}", *(f"{one['seconds_by_function'].get(name, 0.0):.3f}" for one in every))
    console.print(table)
    m = r["measured_on"]
    console.print(f"done first: {r['chosen']}; computing as measured on {m['cores']} cores of {m['cpu']}")
