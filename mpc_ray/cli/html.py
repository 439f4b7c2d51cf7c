"""The report of a demo: one HTML file that needs nothing else, no script, no font, no network."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from mpc_ray.cli.charts import Bar, Dots, bars, dots, heat, legend, stacked
from mpc_ray.cli.markup import details, section, table
from mpc_ray.cli.outcome import (
    DRIFT_BOUND,
    FunctionCost,
    Outcome,
    duration,
    function_costs,
    layer_table,
    mb,
    remainder,
    shown,
    waiting,
)
from mpc_ray.models.shadow import ShadowReport

# Colours by function, the same in every chart.
FUNCTIONS = (
    "activation",
    "softmax",
    "qkv",
    "attention out",
    "ffn out",
    "norm",
    "l2 norm",
    "pool",
    "frame headers",
)
REST = "f8"
MANY = 200  # rows of the table of sentences
MATRIX = 24  # sentences that still fit a matrix
UNITS = {"bytes": mb, "seconds": duration, "rounds": lambda value: f"{value:.0f}"}


def page(found: Outcome) -> str:
    """The whole file. It quotes the texts: it is as private as they are."""
    s = found.setting
    body = [
        "<h1>Private sentence embeddings</h1>",
        f'<p class="lead">{escape(s.model)}, computed on secret shares by three parties, {_now()}</p>',
        _trust(found),
        _tiles(found),
        _neighbours(found),
        _errors(found),
        "" if found.shadow is None else _shadow(found.shadow),
        _functions(found),
        _layers(found),
        _how(found),
        f"<footer>Made by mpc-ray {escape(s.version)}. This file quotes your texts: it is as private as they are. "
        "It loads nothing and runs no script.</footer>",
    ]
    style = files("mpc_ray.cli").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>mpc-ray report: {escape(s.model)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(part for part in body if part)}\n</main>\n</body>\n</html>\n"
    )


def _trust(found: Outcome) -> str:
    return (
        '<div class="note" role="note"><p><strong>Trust mode of this run:</strong> '
        f"{escape(found.setting.trust)}.</p>"
        "<p>What one party is sent tells it nothing of a word, a weight, or anything computed from them. Any two "
        "together could read all, so in earnest they belong to three operators who do not work together.</p></div>"
    )


def _tiles(found: Outcome) -> str:
    report = found.report
    tiles = [
        (str(len(found.texts)), "sentence" if len(found.texts) == 1 else "sentences"),
        (duration(report.seconds), f"on shares; {duration(found.seconds['plaintext'])} in the clear"),
        (mb(max(report.bytes_sent)), "sent by the largest party, all phases"),
        (
            str(report.rounds),
            f"rounds, in {len(report.jobs)} {'batch' if len(report.jobs) == 1 else 'batches'}",
        ),
        (f"{found.worst:.1e}", "largest 1 − cosine to the plaintext result"),
    ]
    items = "".join(f"<li><b>{escape(value)}</b><span>{escape(what)}</span></li>" for value, what in tiles)
    return f'<ul class="tiles">{items}</ul>'


def _neighbours(found: Outcome) -> str:
    near = found.near()
    rows = [
        [
            str(i + 1),
            shown(found.texts, i, 300),
            shown(found.texts, one.neighbour, 300),
            "–" if one.cosine is None else f"{one.cosine:.3f}",
            f"{one.drift:.1e}",
        ]
        for i, one in enumerate(near[:MANY])
    ]
    heads = ["#", "sentence", "nearest other sentence", "cosine", "1 − cosine to plaintext"]
    parts = ["<h2>Who is near whom</h2>", "<p>From the embeddings that were computed on shares.</p>"]
    if 1 < len(near) <= MATRIX:
        parts.append(
            heat(
                "Cosine of each pair of sentences",
                "A matrix of the cosines of all pairs; the stronger the colour, the nearer the two. "
                "The table below names each sentence's nearest.",
                [shown(found.texts, i, 300) for i in range(len(near))],
                found.cosines().tolist(),
            )
        )
    parts.append(table("Nearest neighbours", heads, rows, numbers=(0, 3, 4)))
    if len(near) > MANY:
        parts.append(f"<p>The first {MANY} of {len(near)} sentences; --json gives all.</p>")
    return section(*parts)


def _errors(found: Outcome) -> str:
    drifts = [one.drift for one in found.near()][:MANY]
    labels = [f"{i + 1}  {shown(found.texts, i, 30)}" for i in range(len(drifts))]
    return section(
        "<h2>How far from plaintext</h2>",
        "<p>1 − cosine between each embedding on shares and the same by the plaintext model. 1e-6 is the sixth "
        "decimal place: no ranking notices it. "
        f"Beyond the dashed line, {DRIFT_BOUND:.0e}, the demo counts as failed.</p>",
        dots(
            "1 − cosine to the plaintext result",
            f"One dot for each sentence on a logarithmic axis; the largest is {found.worst:.1e}.",
            labels,
            [Dots("1 − cosine", drifts, DRIFT_BOUND, "f0")],
        ),
    )


def _shadow(report: ShadowReport) -> str:
    places = [d.place for d in report.drifts]
    first = report.first_outside
    verdict = (
        '<span class="good">Every layer is inside its bound.</span>'
        if first is None
        else f'<span class="bad">First outside its bound: {escape(first.place)}.</span>'
    )
    series = [
        Dots("mean", [d.mean for d in report.drifts], report.drifts[0].mean_bound, "f0"),
        Dots("largest", [d.largest for d in report.drifts], report.drifts[0].largest_bound, "f1"),
    ]
    rows = [
        [d.place, f"{d.mean:.1e}", f"{d.mean_bound:.0e}", f"{d.largest:.1e}", f"{d.largest_bound:.0e}"]
        for d in report.drifts
    ]
    return section(
        "<h2>Shadow mode: drift by layer</h2>",
        f"<p>Difference between shares and float of every normalised row. {verdict}</p>",
        legend({s.name: s.kind for s in series}),
        dots(
            "Drift by layer", f"Mean and largest drift of {len(places)} places, with bounds.", places, series
        ),
        details(
            table(
                "Drift by place", ["place", "mean", "bound", "largest", "bound"], rows, numbers=(1, 2, 3, 4)
            )
        ),
    )


def _functions(found: Outcome) -> str:
    report, costs = found.report, function_costs(found.report)
    kinds = _kinds(cost.name for cost in costs)
    rest, wait = remainder(report), waiting(report)
    by_bytes = [Bar(c.name, c.nbytes, mb(c.nbytes), kinds[c.name]) for c in costs]
    times = [
        Bar(c.name, c.seconds, duration(c.seconds), kinds[c.name]) for c in costs if c.seconds is not None
    ]
    times.append(Bar("products, the rest", rest, duration(rest), REST))
    times.append(Bar("waiting for peers", wait, duration(wait), REST))
    rounds = [Bar(c.name, c.rounds, str(c.rounds), kinds[c.name]) for c in costs if c.rounds]
    charts = [
        f"<div><h3>Bytes sent, all three parties</h3>{bars('Bytes by function', _list(by_bytes), by_bytes)}</div>",
        f"<div><h3>Seconds of a party, mean</h3>{bars('Time by function', _list(times), times)}</div>",
    ]
    if rounds:
        charts.append(f"<div><h3>Rounds</h3>{bars('Rounds by function', _list(rounds), rounds)}</div>")
    total = [
        "total",
        f"{report.seconds:.2f}",
        mb(sum(report.bytes_sent)),
        str(report.rounds),
    ]
    rows = [_row(c) for c in costs]
    rows += [
        ["matrix products and the rest", f"{rest:.2f}", "", ""],
        ["waiting for peers", f"{wait:.2f}", "", ""],
    ]
    return section(
        "<h2>What it cost, by function</h2>",
        "<p>Bytes are counted where they are sent: all phases, frame headers included, before TLS.</p>",
        f'<div class="side">{"".join(charts)}</div>',
        details(
            table("Costs by function", ["function", "seconds", "bytes", "rounds"], rows, (1, 2, 3), total)
        ),
    )


def _layers(found: Outcome) -> str:
    report = found.report
    tables = {what: layer_table(report, what) for what in ("bytes", "seconds", "rounds")}
    names = {
        "bytes": "Bytes sent, all three parties",
        "seconds": "Seconds of a party, mean",
        "rounds": "Rounds",
    }
    present = [n for n in FUNCTIONS if any(n in row for rows in tables.values() for row in rows.values())]
    others = sorted({n for rows in tables.values() for row in rows.values() for n in row} - set(present))
    kinds = _kinds([*present, *others])
    parts = ["<h2>What it cost, by layer</h2>", legend(kinds)]
    for what, layers in tables.items():
        if not layers:
            continue
        title, text = names[what], UNITS[what]
        summary = "; ".join(f"{layer} {text(sum(row.values()))}" for layer, row in layers.items())
        lines = [
            [layer, *(text(row[n]) if n in row else "" for n in kinds), text(sum(row.values()))]
            for layer, row in layers.items()
        ]
        heads = ["layer", *kinds, "total"]
        parts += [
            f"<h3>{title}</h3>",
            stacked(f"{title}, by layer and function", summary, layers, kinds, text),
            details(table(f"{title} by layer", heads, lines, tuple(range(1, len(heads))))),
        ]
    return section(*parts)


def _how(found: Outcome) -> str:
    s, seconds = found.setting, found.seconds
    lengths = ", ".join(f"{job.batch} × {job.length} tokens" for job in found.report.jobs[:20])
    sent = ", ".join(mb(n) for n in found.report.bytes_sent)
    facts = {
        "model": f"{s.model}: {s.layers} layers, {s.hidden} wide, {s.heads} heads, {s.parameters:,} weights",
        "weights": "public: every party sees them" if s.public_weights else "secret: the parties hold shares",
        "model digest": s.digest,
        "protocol": s.protocol,
        "parties": f"launcher {s.launcher}, device {s.device}, TLS {'on' if s.tls else 'off'}",
        "range checks": "on" if s.range_check else "off",
        "what each party learned": "the model's architecture and public scales, and these padded lengths: "
        + lengths,
        "bytes sent by party 0, 1, 2": sent,
        "the client waited": ", ".join(f"{what} {duration(value)}" for what, value in seconds.items()),
    }
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return section("<h2>How it was computed</h2>", f"<dl>{items}</dl>")


def _row(cost: FunctionCost) -> list[str]:
    seconds = "" if cost.seconds is None else f"{cost.seconds:.2f}"
    return [cost.name, seconds, mb(cost.nbytes), "" if cost.rounds is None else str(cost.rounds)]


def _kinds(names: Iterable[str]) -> dict[str, str]:
    """The colour of each function; those without a place of their own share the last."""
    return {name: f"f{FUNCTIONS.index(name)}" if name in FUNCTIONS else REST for name in names}


def _list(rows: Sequence[Bar]) -> str:
    return "; ".join(f"{row.label} {row.text}" for row in rows)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
