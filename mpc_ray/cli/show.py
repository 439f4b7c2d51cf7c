"""Results on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpc_ray.cli.outcome import count, duration, function_costs, mb, remainder, shown, waiting

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from mpc_ray.cli.outcome import Outcome
    from mpc_ray.models.shadow import ShadowReport
    from mpc_ray.models.weights import Array
    from mpc_ray.report import Report

MANY = 40  # rows of a table on a terminal


def trust(line: str) -> str:
    """The trust mode, as it is announced."""
    return line if line.startswith("trust: ") else f"trust: {line}"


def outcome(console: Console, found: Outcome) -> None:
    """Neighbours, then costs, then drift by layer if it was asked for."""
    _neighbours(console, found)
    costs(console, found.report)
    if found.shadow is not None:
        shadow(console, found.shadow)
    s = found.setting
    console.print(
        f"\n{count(len(found.texts), 'sentence')} in {found.report.seconds:.1f} s on shares "
        f"({duration(found.seconds['plaintext'])} in the clear), under {s.protocol}, "
        f"{'with' if s.range_check else 'WITHOUT'} range checks, weights {'public' if s.public_weights else 'secret'}."
    )
    console.print(f"largest 1 - cosine to the plaintext result: {found.worst:.1e}")
    console.print(trust(s.trust))


def _neighbours(console: Console, found: Outcome) -> None:
    table = _table("nearest neighbours, by embeddings computed on shares")
    table.add_column("", justify="right", style="dim")
    table.add_column("sentence", ratio=1, no_wrap=True)
    table.add_column("nearest", ratio=1, no_wrap=True)
    table.add_column("cosine", justify="right")
    table.add_column("1-cos to plaintext", justify="right")
    near = found.near()
    for index, (text, one) in enumerate(zip(found.texts[:MANY], near, strict=False), 1):
        cosine = "–" if one.cosine is None else f"{one.cosine:.3f}"
        table.add_row(
            str(index),
            shown((text,), 0, 200),
            shown(found.texts, one.neighbour, 200),
            cosine,
            f"{one.drift:.1e}",
        )
    console.print(table)
    if len(near) > MANY:
        console.print(f"… and {len(near) - MANY} more: all of them with --json")


def costs(console: Console, report: Report) -> None:
    """Time, bytes and rounds by function. Seconds are a party's mean, bytes those of all three."""
    table = _table("time, bytes and rounds by function")
    for name in ("function", "seconds", "bytes sent", "", "rounds"):
        table.add_column(name, justify="left" if name in ("function", "") else "right")
    rows = function_costs(report)
    most = max((row.nbytes for row in rows), default=0) or 1
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.2f}"
        bar = "█" * round(16 * row.nbytes / most)
        table.add_row(row.name, seconds, mb(row.nbytes), bar, "" if row.rounds is None else str(row.rounds))
    table.add_row("matrix products and the rest", f"{remainder(report):.2f}", "", "", "")
    table.add_row("waiting for peers", f"{waiting(report):.2f}", "", "", "", end_section=True)
    total = sum(report.bytes_sent)
    table.add_row(
        "total",
        f"{report.seconds:.2f}",
        mb(total),
        f"largest party {mb(max(report.bytes_sent))}",
        str(report.rounds),
    )
    console.print(table)


def shadow(console: Console, report: ShadowReport) -> None:
    """Drift against float, place by place."""
    table = _table("shadow mode: drift of normalised rows against float")
    for name in ("place", "mean", "bound", "largest", "bound", ""):
        table.add_column(name, justify="left" if name in ("place", "") else "right")
    for d in report.drifts:
        table.add_row(
            d.place,
            f"{d.mean:.1e}",
            f"{d.mean_bound:.0e}",
            f"{d.largest:.1e}",
            f"{d.largest_bound:.0e}",
            "" if d.ok else "OUTSIDE",
        )
    console.print(table)
    first = report.first_outside
    console.print(
        "every layer is inside its bound" if first is None else f"first outside its bound: {first.place}"
    )
    if report.outside:
        console.print(f"left the calibrated range: {', '.join(report.outside)}")


def vectors(console: Console, texts: Sequence[str], rows: Array, report: Report) -> None:
    """The first numbers of each vector, and what they cost."""
    table = _table(f"{len(rows)} × {rows.shape[1]} embeddings, computed on shares")
    table.add_column("text", ratio=1, no_wrap=True)
    table.add_column("first numbers", justify="right", no_wrap=True)
    for text, row in zip(texts[:MANY], rows, strict=False):
        table.add_row(shown((text,), 0, 200), " ".join(f"{x:+.4f}" for x in row[:4]) + " …")
    console.print(table)
    if len(rows) > MANY:
        console.print(f"… and {len(rows) - MANY} more")
    console.print(
        f"{report.seconds:.1f} s, {report.rounds} rounds, {mb(max(report.bytes_sent))} sent by the largest party"
    )


def _table(title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(
        title=f"\n{title}", title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False
    )
