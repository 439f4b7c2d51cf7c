"""``mpc-ray plan show``: a plan drawn on the terminal and as one file; ``plan simulate`` as a table."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from mpc_ray.cli import main as program
from mpc_ray.cli.plan_show import best, gantt, spread
from mpc_ray.planner.jobs import Point, Recipe, generate, plan_jobs

TRACE = str(Path(__file__).parents[2] / "configs" / "planner" / "trace.yaml")


def run(*arguments: str) -> str:
    found = CliRunner().invoke(program.app, ["plan", *arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.mark.timeout(600)
def test_the_page_needs_nothing_and_every_batch_is_in_it(tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    said = json.loads(run("show", TRACE, "--seconds", "0.05", "--no-compare", "--html", str(page), "--json"))
    assert said["html"] == str(page) and list(said["history"]) == ["portfolio"]
    text = page.read_text()
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text
    body = text[text.index("<main>") : text.index("</main>") + len("</main>")]
    drawn = [
        element
        for element in ElementTree.fromstring(body).iter("rect")
        if "part" in (element.get("class") or "")
    ]
    assert len(drawn) == len(said["batches"])
    assert all(float(rect.get("width") or 0) > 0 for rect in drawn)


def test_the_terminal_shows_triples_regions_and_solvers() -> None:
    said = run("show", TRACE, "--seconds", "0.03")
    for word in ("eu-0", "eu-small", "ap – ap – ap", "a minilm", "eu – us – us", "tempering", "random"):
        assert word in said


def test_a_line_a_triple_and_every_job_in_it() -> None:
    workload = generate(Recipe(jobs=60, triples=40, seed=1))
    schedule = plan_jobs(workload, solver="earliest")
    lines = gantt(schedule, {batch.group: "x" for batch in schedule.batches})
    assert "and 10 triples with fewer jobs" in lines[-2]
    assert sum(jobs for _, _, jobs, _, _ in spread(workload, schedule)) == 60
    assert all(0 <= share <= 1 for *_, share in spread(workload, schedule))


def test_a_guarded_plan_is_better_than_one_that_is_not() -> None:
    points = [
        Point(0.1, "a", 5.0, False),
        Point(0.2, "a", 6.0, True),
        Point(0.3, "a", 5.5, False),
        Point(0.4, "a", 5.8, True),
    ]
    assert [p.seconds for p in best(tuple(points))] == [0.1, 0.2, 0.4]


def test_simulate_prints_one_object_and_a_table() -> None:
    said = json.loads(run("simulate", TRACE, "--policy", "earliest", "--policy", "fewest", "--json"))
    assert [row["policy"] for row in said["rows"]] == ["earliest", "fewest"] and said["refused"] == {}
    assert all(row["done"] == 330 and row["broken"] == [] for row in said["rows"])
    table = run("simulate", TRACE, "--policy", "round-robin")
    assert "round-robin" in table and "330" in table


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("links: 3")
    for command in ("show", "simulate"):
        found = CliRunner().invoke(program.app, ["plan", command, str(bad)])
        assert found.exit_code != 0
