"""``mpc-ray bench``: what a pass, a function or a kernel costs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_ray.cli import options
from mpc_ray.cli.bench_predict import predict
from mpc_ray.cli.output import check_writable, opened

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

app = typer.Typer(
    help="Measure time, bytes, rounds and error on this machine.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(predict)

ShapeName = Annotated[
    str,
    typer.Option("--shape", metavar="NAME", help="bert-tiny, minilm, bert-base, or LAYERSxHIDDENxHEADSxFFN"),
]
Seq = Annotated[int, typer.Option("--seq", min=1, help="tokens in each sequence")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="sequences in one pass")]
Runs = Annotated[int, typer.Option("--runs", min=1, help="measured runs, after one to warm up")]
Weights = Annotated[
    str | None,
    typer.Option(
        "--weights", metavar="real|random", help="default: real for minilm where its package is installed"
    ),
]
Dump = Annotated[
    Path | None,
    typer.Option(
        "--dump", metavar="FILE.npz", help="write input, weights and output, to recompute the error"
    ),
]
Profile = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        metavar="FILE.json",
        help="write when each party computed, dealt, sent and waited in one pass more, for ui.perfetto.dev",
    ),
]
RangeCheck = Annotated[
    bool | None,
    typer.Option(
        "--range-check/--no-range-check", help="check that no value leaves its window", show_default=False
    ),
]
OpName = Annotated[
    str, typer.Option("--op", metavar="NAME", help="a function, `all` of them, or `kernels`: this core alone")
]
OpSize = Annotated[
    str | None,
    typer.Option("--size", metavar="AxBxC", help="such as 128x768x768; default: the function's own"),
]


@app.command()
@options.with_settings
def encoder(
    flags: options.Settings,
    shape: ShapeName = "minilm",
    seq: Seq = 128,
    batch: Batch = 1,
    runs: Runs = 3,
    weights: Weights = None,
    public_weights: options.PublicWeights = False,
    dump: Dump = None,
    profile: Profile = None,
    range_check: RangeCheck = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """One pass of an encoder, from shared embedded input to shares of the last hidden state."""
    if dump is not None:
        check_writable(dump, (".npz",))
    if profile is not None:
        check_writable(profile, (".json",))
    settings = flags.load(range_check=range_check)
    with opened(as_json) as out:
        from mpc_ray.bench.encoder import measure
        from mpc_ray.bench.shapes import shape_of
        from mpc_ray.cli.steps import Steps

        chosen = shape_of(shape)
        with Steps(out.notes) as steps:
            steps.expect(runs + 1, chosen.layers)
            found = measure(
                chosen,
                seq=seq,
                batch=batch,
                runs=runs,
                weights=weights,
                visibility=options.visibility(public_weights),
                config=settings,
                dump=dump,
                profile=profile,
                progress=steps,
                debug=debug,
            )
        if as_json:
            out.emit(found)
        else:
            _show_encoder(out.console, found)


@app.command()
@options.with_settings
def ops(
    flags: options.Settings,
    op: OpName = "all",
    size: OpSize = None,
    runs: Runs = 3,
    range_check: RangeCheck = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Single functions and matrix products over three parties, and the kernels' own speeds."""
    settings = flags.load(range_check=range_check)
    with opened(as_json) as out:
        from mpc_ray.bench.cases import OPS
        from mpc_ray.bench.local import kernel_speeds
        from mpc_ray.bench.machine import machine
        from mpc_ray.bench.ops import measure_ops
        from mpc_ray.cli.steps import Steps
        from mpc_ray.errors import InputError

        wanted = [(name, None) for name in OPS] if op == "all" else [(op, size)]
        if size is not None and op in ("all", "kernels"):
            raise InputError(f"{op} takes no --size", remedy="name one function with --op")
        found: list[dict[str, Any]] = []
        if op != "kernels":
            with Steps(out.notes) as steps:
                found = list(measure_ops(wanted, runs=runs, config=settings, progress=steps, debug=debug))
        if op not in ("all", "kernels"):
            said = found[0]
        else:
            said = {"ops": found} if found else {}
            said |= {"kernels": kernel_speeds(), "machine": machine(settings.device)}
        if as_json:
            out.emit(said)
        else:
            _show_ops(out.console, found, said.get("kernels", {}))


def _show_encoder(console: Console, r: dict[str, Any]) -> None:
    from mpc_ray.cli.outcome import mb

    seen = "public" if r["public_weights"] else "secret"
    table = _table(
        f"{r['shape']}, {r['batch']} x {r['seq']} tokens, {r['weights']} weights, {seen}, {r['protocol']}"
    )
    table.add_column("")
    table.add_column("", justify="right")
    rows = {
        f"seconds, median of {r['runs']} (slowest party)": f"{r['seconds_median']:.3f}",
        "seconds, fastest": f"{r['seconds_min']:.3f}",
        "seconds, as the client saw it": f"{r['wall_seconds_median']:.3f}",
        "seconds of the client's own part, apart": f"{r['embed_seconds']:.3f}",
        "bytes sent, by party": " · ".join(map(mb, r["bytes_sent"])),
        "rounds": str(r["rounds"]),
        "peak memory, by party": " · ".join(map(mb, r["peak_rss_bytes"])),
        "error against float64, mean and largest": f"{r['mean_abs_error']:.1e} · {r['max_abs_error']:.1e}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    costs = _table("by function, all three parties together")
    costs.add_column("")
    costs.add_column("bytes", justify="right")
    costs.add_column("seconds computing", justify="right")
    for name, count in r["bytes_by_function"].items():
        seconds = r["compute_seconds_by_function"].get(name)
        costs.add_row(name, mb(count), "" if seconds is None else f"{seconds:.2f}")
    console.print(costs)
    if "profile_seconds" in r:
        console.print(_lanes(r["profile_seconds"]))
    console.print(_where(r))


def _lanes(seconds: list[dict[str, float]]) -> Table:
    table = _table("one pass, by lane: seconds of each party")
    for name in ("", "party 0", "party 1", "party 2"):
        table.add_column(name, justify="right" if name else "left")
    for lane in dict.fromkeys(lane for party in seconds for lane in party):
        table.add_row(lane, *(f"{party[lane]:.3f}" if lane in party else "" for party in seconds))
    return table


def _show_ops(console: Console, found: list[dict[str, Any]], kernels: dict[str, float]) -> None:
    from mpc_ray.cli.outcome import mb

    if found:
        table = _table("functions on shares")
        for name in (
            "function",
            "size",
            "seconds",
            "bytes, largest party",
            "rounds",
            "error, mean",
            "largest",
        ):
            table.add_column(name, justify="left" if name in ("function", "size") else "right")
        for r in found:
            table.add_row(
                r["op"],
                r["size"],
                f"{r['seconds_median']:.4f}",
                mb(max(r["bytes_sent"])),
                str(r["rounds"]),
                f"{r['mean_abs_error']:.1e}",
                f"{r['max_abs_error']:.1e}",
            )
        console.print(table)
        console.print(_where(found[0]))
    if kernels:
        table = _table("kernels, one core")
        table.add_column("")
        table.add_column("", justify="right")
        for name, value in kernels.items():
            table.add_row(name, f"{value:.3g}")
        console.print(table)


def _where(r: dict[str, Any]) -> str:
    m = r["machine"]
    tls = "TLS" if r["tls"] else "no TLS"
    checks = "with" if r["range_check"] else "WITHOUT"
    gpu = f", {m['gpu']}" if "gpu" in m else ""
    return (
        f"launcher {r['launcher']}, {tls}, {checks} range checks, {r['threads']} thread a party, "
        f"{m['cores']} cores of {m['cpu']}{gpu}, load {m['load']:g} before, mpc-ray {m['mpc_ray']}"
    )


def _table(title: str) -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left", box=None, show_header=True, pad_edge=False)
