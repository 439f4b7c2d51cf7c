"""A plan as one HTML file without scripts: batches by triple, triples by region, F of each solver against time."""

from __future__ import annotations

import math
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from mpc_ray.cli.charts import CHARACTER, WIDTH, drawing, hover, legend, row_label
from mpc_ray.cli.markup import details, section, table
from mpc_ray.cli.plan_show import best, spread, used

if TYPE_CHECKING:
    from mpc_ray.planner.jobs import Point, Schedule, Workload

KINDS = 8  # colours; what is rarer than the first seven groups shares the last
BAR = 16
RADIUS = 150


def page(workload: Workload, schedule: Schedule, ways: dict[str, tuple[Point, ...]], seconds: float) -> str:
    """The whole file. It names jobs and triples, and nothing of what is in a job."""
    m, y = schedule.measures, schedule.yardstick
    tiles = (
        (f"{m.jobs}", f"jobs in {len(schedule.batches)} batches on {len(workload.triples)} triples"),
        (f"{m.makespan_s:.1f} s", f"until the last is done; {y.makespan_s:.1f} by earliest completion"),
        (f"{m.p95_s:.1f} s", f"latency of 95 %; {y.p95_s:.1f} by earliest completion"),
        (f"{m.late}", f"late; {y.late} by earliest completion"),
        (f"{100 * (1 - m.energy / max(y.energy, 1e-12)):.1f} %", "lower F than earliest completion"),
    )
    items = "".join(f"<li><b>{escape(value)}</b><span>{escape(what)}</span></li>" for value, what in tiles)
    body = [
        "<h1>A plan</h1>",
        f'<p class="lead">made by {escape(schedule.solver)} in {schedule.seconds:.3f} s</p>',
        f'<ul class="tiles">{items}</ul>',
        *(f'<div class="note" role="note"><p>{escape(note)}</p></div>' for note in schedule.notes),
        _gantt(schedule),
        _map(workload, schedule),
        _energy(ways, seconds, y.energy),
        _refused(schedule),
        "<footer>Made by mpc-ray plan show. It loads nothing and runs no script.</footer>",
    ]
    style = files("mpc_ray.cli").joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>mpc-ray: a plan</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(part for part in body if part)}\n</main>\n</body>\n</html>\n"
    )


def _gantt(schedule: Schedule) -> str:
    names = used(schedule)
    kinds = {name: f"f{min(i, KINDS - 1)}" for i, name in enumerate(names)}
    begins = schedule.compiled.now_s
    ends = max((batch.end_s for batch in schedule.batches), default=begins)
    left = 12 + CHARACTER * max((min(34, len(name)) for name in schedule.compiled.triple), default=0)
    scale = (WIDTH - left - 8) / max(ends - begins, 1e-9)
    row = {name: 4 + i * (BAR + 4) for i, name in enumerate(schedule.compiled.triple)}
    bottom = 4 + len(row) * (BAR + 4)
    body = []
    for tenth in range(0, 11, 2):
        x = left + (WIDTH - left - 8) * tenth / 10
        body.append(f'<line class="grid" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{bottom}"/>')
        anchor = "end" if tenth == 10 else "middle"
        body.append(
            f'<text class="soft" x="{x:.1f}" y="{bottom + 14}" text-anchor="{anchor}">'
            f"{(ends - begins) * tenth / 10:.1f} s</text>"
        )
    body += [row_label(int(left), y - 3, name) for name, y in row.items()]
    for batch in schedule.batches:
        jobs = ", ".join(batch.jobs[:8])
        text = (
            f"{batch.triple}: {len(batch.jobs)} of {batch.group} ({batch.variant}), "
            f"{batch.start_s - begins:.2f} to {batch.end_s - begins:.2f} s: {jobs}"
        )
        body.append(
            f'<rect class="{kinds[batch.group]} part" x="{left + (batch.start_s - begins) * scale:.1f}" '
            f'y="{row[batch.triple]}" width="{max(1.0, (batch.end_s - batch.start_s) * scale):.1f}" '
            f'height="{BAR}" rx="2">{hover(text)}</rect>'
        )
    many = len(names) > KINDS
    shown = {name: kinds[name] for name in names[: KINDS - 1 if many else KINDS]}
    if many:
        shown[f"{len(names) - KINDS + 1} more"] = f"f{KINDS - 1}"
    rows = [
        [
            b.triple,
            b.group,
            b.variant,
            str(len(b.jobs)),
            f"{b.start_s - begins:.2f}",
            f"{b.end_s - begins:.2f}",
        ]
        for b in schedule.batches
    ]
    return section(
        "<h2>Batches by triple</h2>",
        legend(shown),
        drawing(
            "Batches by triple",
            "A row a triple, a bar a batch, from its start to its end",
            WIDTH,
            bottom + 20,
            body,
        ),
        details(table("Batches", ("triple", "group", "variant", "jobs", "from s", "to s"), rows, (3, 4, 5))),
    )


def _map(workload: Workload, schedule: Schedule) -> str:
    """Regions on a circle; a line for each set of regions that triples span, as wide as it has jobs."""
    regions = sorted({worker.region for triple in workload.triples for worker in triple.workers})
    middle, height = WIDTH / 2, 2 * RADIUS + 90
    at = {
        name: (
            middle + (RADIUS * math.sin(2 * math.pi * i / len(regions)) if len(regions) > 1 else 0.0),
            height / 2 - (RADIUS * math.cos(2 * math.pi * i / len(regions)) if len(regions) > 1 else 0.0),
        )
        for i, name in enumerate(regions)
    }
    found = spread(workload, schedule)
    most = max((jobs for _, _, jobs, _, _ in found), default=1) or 1
    home = dict.fromkeys(regions, 0)
    lines, body = [], []
    for place, triples, jobs, _, _ in found:
        inside = sorted(set(place))
        if len(inside) == 1:
            home[inside[0]] += jobs
            continue
        text = f"{' – '.join(place)}: {len(triples)} triples, {jobs} jobs"
        for i, one in enumerate(inside):
            for two in inside[i + 1 :]:
                (x, y), (u, v) = at[one], at[two]
                lines.append(
                    f'<line class="f1" x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" '
                    f'stroke-width="{1 + 11 * jobs / most:.1f}">{hover(text)}</line>'
                )
    for name, (x, y) in at.items():
        size = 18 + 22 * math.sqrt(home[name] / most)
        text = f"{name}: {home[name]} jobs on triples that are here alone"
        body.append(f'<circle class="f0" cx="{x:.1f}" cy="{y:.1f}" r="{size:.1f}">{hover(text)}</circle>')
        body.append(
            f'<text x="{x:.1f}" y="{y + size + 15:.1f}" text-anchor="middle">{escape(name)}: {home[name]}</text>'
        )
    rows = [
        [" – ".join(place), ", ".join(triples), str(jobs), str(batches), f"{100 * share:.0f} %"]
        for place, triples, jobs, batches, share in found
    ]
    return section(
        "<h2>Triples by region</h2>",
        drawing(
            "Triples by region",
            "Regions with their jobs; lines for triples that span several",
            WIDTH,
            height,
            [*lines, *body],
        ),
        details(
            table("Triples", ("regions", "triples", "jobs", "batches", "busy"), rows, (2, 3, 4)),
        ),
    )


def _energy(ways: dict[str, tuple[Point, ...]], seconds: float, yardstick: float) -> str:
    """Steps of F against time, dashed while a measure is worse than the yardstick's."""
    curves = {name: best(points) for name, points in ways.items() if points}
    values = [p.energy / max(yardstick, 1e-12) for points in curves.values() for p in points]
    low, high = min([*values, 1.0]), min(max([*values, 1.0]), 1.5)
    pad = 0.05 * max(high - low, 0.02)
    low, high = low - pad, high + pad
    first = min((p.seconds for points in curves.values() for p in points), default=1e-3)
    first = max(1e-4, min(first, seconds / 2))
    left, height = 56.0, 320.0

    def x_of(at: float) -> float:
        share = math.log(min(max(at, first), seconds) / first) / math.log(seconds / first)
        return left + (WIDTH - left - 8) * share

    def y_of(value: float) -> float:
        return 6 + (height - 12) * (high - min(max(value, low), high)) / (high - low)

    body = []
    for k in range(5):
        value = low + (high - low) * k / 4
        y = y_of(value)
        body.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{WIDTH}" y2="{y:.1f}"/>')
        body.append(
            f'<text class="soft" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>'
        )
        at = first * (seconds / first) ** (k / 4)
        anchor = "end" if k == 4 else "middle"
        body.append(
            f'<text class="soft" x="{x_of(at):.1f}" y="{height + 14}" text-anchor="{anchor}">{1e3 * at:.0f} ms</text>'
        )
    kinds: dict[str, str] = {}
    for i, (name, points) in enumerate(curves.items()):
        kinds[name] = f"f{i % 9}"
        for j, point in enumerate(points):
            until = points[j + 1].seconds if j + 1 < len(points) else seconds
            value = point.energy / max(yardstick, 1e-12)
            dash = "" if point.guarded else ' stroke-dasharray="3 4"'
            worse = "" if point.guarded else ", a measure is worse"
            text = f"{name}, {1e3 * point.seconds:.1f} ms: {100 * value:.2f} %{worse}"
            colour = f"stroke: var(--{kinds[name]})"
            steps = f"M{x_of(point.seconds):.1f} {y_of(value):.1f}H{x_of(until):.1f}"
            if j + 1 < len(points):
                steps += f"V{y_of(points[j + 1].energy / max(yardstick, 1e-12)):.1f}"
            body.append(
                f'<path d="{steps}" fill="none" stroke-width="2" style="{colour}"{dash}>{hover(text)}</path>'
            )
    rows = []
    for name, points in curves.items():
        end = points[-1]
        share = f"{100 * end.energy / max(yardstick, 1e-12):.2f}"
        rows.append(
            [name, str(len(points)), f"{1e3 * end.seconds:.1f}", share, "yes" if end.guarded else "no"]
        )
    heads = ("solver", "improvements", "last at ms", "F in %", "worse in nothing")
    return section(
        "<h2>F against time</h2>",
        "<p>In per cent of batch-aware earliest completion's; dashed while makespan, mean, p95 or late jobs are worse. "
        "Hard limits are never broken.</p>",
        legend(kinds),
        drawing(
            "F of each solver against time",
            "Steps downwards on a logarithmic axis of time",
            WIDTH,
            height + 20,
            body,
        ),
        details(table("Solvers", heads, rows, (1, 2, 3))),
    )


def _refused(schedule: Schedule) -> str:
    if not schedule.refused:
        return ""
    rows = [[name, reason] for name, reason in schedule.refused.items()]
    return section("<h2>Refused</h2>", table("Jobs that fit nowhere", ("job", "why"), rows))
