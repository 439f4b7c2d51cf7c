"""``mpc-ray plan show``: a plan drawn, on the terminal and as one HTML file; and how each solver got there."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import check_writable, opened, write

if TYPE_CHECKING:
    from rich.table import Table

    from mpc_ray.planner.jobs import Point, Schedule, Workload

LETTERS = "abcdefghijklmnopqrstuvwxyz"
COLUMNS = 64  # of a terminal's Gantt chart
ROWS = 30  # of triples on a terminal; HTML has all
MOMENTS = (0.1, 0.25, 0.5, 1.0)  # shares of the time at which F is told

TraceFile = Annotated[
    Path, typer.Argument(metavar="TRACE", help="YAML file such as configs/planner/trace.yaml")
]
Seconds = Annotated[
    float, typer.Option("--seconds", metavar="S", min=0.001, help="each solver's time; loading is not in it")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="of all random numbers")]
SolverName = Annotated[
    str, typer.Option("--solver", metavar="NAME", help="whose plan is drawn: portfolio, earliest, …")
]
Compare = Annotated[
    bool,
    typer.Option("--compare/--no-compare", help="run every solver for the same time, one after the other"),
]
Html = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="the drawing as one file that needs nothing else"),
]


def show(
    trace: TraceFile,
    seconds: Seconds = 0.2,
    seed: Seed = 0,
    solver: SolverName = "portfolio",
    compare: Compare = True,
    html: Html = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Plan all jobs of a trace as if they waited at once, and draw the plan: batches by triple, triples by region.

    And F of each solver against time, with whether its plan was worse than batch-aware earliest completion in nothing.
    """
    del debug  # read by main
    from mpc_ray.cli.plan_errors import as_input_errors

    if html is not None:
        check_writable(html.absolute(), (".html", ".htm"))
    with opened(as_json, guarded=False) as output:
        with as_input_errors("configs/planner/trace.yaml shows what a trace holds"):
            from mpc_ray.planner.jobs import plan_jobs, warm
            from mpc_ray.planner.jobs.trace import read

            workload = read(trace).workload
            warm()
            schedule = plan_jobs(workload, deadline_s=seconds, seed=seed, solver=solver)
            ways = {solver: schedule.history}
            if compare:
                for name in names():
                    if name != solver:
                        found = plan_jobs(workload, deadline_s=seconds, seed=seed, solver=name)
                        ways[name] = tuple(
                            p for p in found.history if p.solver != "earliest" or name == "earliest"
                        )
        if html is not None:
            from mpc_ray.cli.plan_page import page

            write(html, page(workload, schedule, ways, seconds).encode())
        if as_json:
            history = {
                name: [[round(p.seconds, 5), p.energy, p.guarded] for p in best(points)]
                for name, points in ways.items()
            }
            page_at = None if html is None else str(html)
            output.emit({"command": "plan show", **schedule.to_json(), "history": history, "html": page_at})
            return
        letters = {group: LETTERS[i % len(LETTERS)] for i, group in enumerate(used(schedule))}
        for line in gantt(schedule, letters):
            output.console.print(line)
        output.console.print(regions(workload, schedule))
        output.console.print(progress(ways, seconds, schedule.yardstick.energy))
        for name, reason in list(schedule.refused.items())[:5]:
            output.console.print(f"refused: job {name}: {reason}")
        if html is not None:
            output.console.print(f"drawn in {html}")


def names() -> list[str]:
    """Solvers that are compared. CP-SAT minds the makespan alone, and would be out of place."""
    from mpc_ray.planner.jobs.portfolio import SOLVERS

    return ["portfolio", "earliest", *(name for name in SOLVERS if name != "exact")]


def used(schedule: Schedule) -> list[str]:
    """Groups of the plan, the most frequent first."""
    return [name for name, _ in Counter(b.group for b in schedule.batches).most_common()]


def best(points: tuple[Point, ...]) -> list[Point]:
    """Of a solver's points those at which its plan became better: a guarded plan is better than one that is not."""
    found: list[Point] = []
    for point in sorted(points, key=lambda p: p.seconds):
        if not found or (not point.guarded, point.energy) < (not found[-1].guarded, found[-1].energy):
            found.append(point)
    return found


def gantt(schedule: Schedule, letters: dict[str, str]) -> list[str]:
    """A line a triple: what it runs when. Every second batch of a triple is in capitals."""
    begins = schedule.compiled.now_s
    ends = max((batch.end_s for batch in schedule.batches), default=begins)
    scale = COLUMNS / max(ends - begins, 1e-9)
    rows: dict[str, list[str]] = {name: ["·"] * COLUMNS for name in schedule.compiled.triple}
    busy = Counter(dict.fromkeys(rows, 0))
    count: Counter[str] = Counter()
    for batch in schedule.batches:
        first = int((batch.start_s - begins) * scale)
        last = max(first + 1, int((batch.end_s - begins) * scale))
        letter = letters[batch.group]
        count[batch.triple] += 1
        sign = letter if count[batch.triple] % 2 else letter.upper()
        rows[batch.triple][first:last] = sign * (min(last, COLUMNS) - first)
        busy[batch.triple] += len(batch.jobs)
    shown = list(rows) if len(rows) <= ROWS else [name for name, _ in busy.most_common(ROWS)]
    width = max(len(name) for name in rows)
    lines = [f"{'':{width}}  0 s{f'{ends - begins:.1f} s':>{COLUMNS - 3}}"]
    lines += [f"{name:>{width}}  {''.join(rows[name])} {busy[name]:4d} jobs" for name in shown]
    if len(shown) < len(rows):
        lines.append(f"{'':{width}}  and {len(rows) - len(shown)} triples with fewer jobs")
    return [*lines, "  ".join(f"{letter} {group}" for group, letter in letters.items())]


def regions(workload: Workload, schedule: Schedule) -> Table:
    """Where triples are, and what of the plan is there."""
    from rich.table import Table

    table = Table(title="triples by region of parties 0, 1 and 2", title_justify="left")
    for name in ("regions", "triples"):
        table.add_column(name)
    for name in ("jobs", "batches", "busy"):
        table.add_column(name, justify="right")
    for place, triples, jobs, batches, share in spread(workload, schedule):
        listed = ", ".join(triples[:4]) + (f" and {len(triples) - 4} more" if len(triples) > 4 else "")
        table.add_row(" – ".join(place), listed, str(jobs), str(batches), f"{100 * share:.0f} %")
    return table


def spread(
    workload: Workload, schedule: Schedule
) -> list[tuple[tuple[str, ...], list[str], int, int, float]]:
    """For each set of regions its triples, jobs, batches, and the share of the makespan in which they compute."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for triple in workload.triples:
        groups.setdefault(tuple(worker.region for worker in triple.workers), []).append(triple.name)
    found = []
    for place, triples in sorted(groups.items(), key=lambda one: -len(one[1])):
        here = [batch for batch in schedule.batches if batch.triple in triples]
        busy = sum(batch.end_s - batch.start_s for batch in here)
        whole = max(schedule.measures.makespan_s, 1e-9) * len(triples)
        found.append((place, triples, sum(len(b.jobs) for b in here), len(here), busy / whole))
    return found


def progress(ways: dict[str, tuple[Point, ...]], seconds: float, yardstick: float) -> Table:
    """F of each solver at some moments, in per cent of the yardstick's; in brackets where a measure is worse."""
    from rich.table import Table

    table = Table(title="F in % of batch-aware earliest completion's", title_justify="left")
    table.add_column("solver", no_wrap=True)
    for moment in MOMENTS:
        table.add_column(f"{moment * seconds:g} s", justify="right")
    for name, points in ways.items():
        cells = []
        for moment in MOMENTS:
            there = [p for p in best(points) if p.seconds <= moment * seconds or moment == MOMENTS[-1]]
            cells.append("–" if not there else _cell(there[-1], yardstick))
        table.add_row(name, *cells)
    return table


def _cell(point: Point, yardstick: float) -> str:
    said: Any = f"{100 * point.energy / max(yardstick, 1e-12):.1f}"
    return said if point.guarded else f"({said})"
