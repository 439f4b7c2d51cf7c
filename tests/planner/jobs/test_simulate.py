"""Traces: what a file says, what an emulated cluster does with it, and how policies compare on it."""

from __future__ import annotations

import copy
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc_ray.planner import ProblemError
from mpc_ray.planner.jobs.arrays import compile_workload
from mpc_ray.planner.jobs.emulate import Change, emulate
from mpc_ray.planner.jobs.policies import Earliest, fewest, round_robin
from mpc_ray.planner.jobs.simulate import POLICIES, simulate
from mpc_ray.planner.jobs.trace import parse, read

ROOT = Path(__file__).parents[3]

GOOD: dict[str, Any] = {
    "links": [{"between": ["eu", "eu"], "rtt_ms": 1, "bandwidth_mb_s": 100}],
    "triples": [{"name": "t", "count": 2, "regions": ["eu"] * 3, "trust": ["a", "b", "c"]}],
    "groups": [
        {
            "name": "g",
            "model": "m",
            "work_s": 0.9,
            "variants": [{"name": "v", "rounds": 100, "megabytes": 0}],
        }
    ],
    "jobs": [{"group": "g", "count": 2, "due_in_s": 3}],
    "batch": 1,
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """`GOOD` with another value at a path such as jobs.0.count."""
    content = copy.deepcopy(GOOD)
    part: Any = content
    *way, last = path.split(".")
    for name in way:
        part = part[int(name) if isinstance(part, list) else name]
    part[last] = value
    return content


def test_two_jobs_on_two_triples_take_a_second() -> None:
    found = simulate(parse(GOOD))
    assert [row.policy for row in found.rows] == list(POLICIES)
    for row in found.rows:
        if row.policy != "fewest":  # of two triples at random, both are drawn
            assert row.outcome.makespan_s == pytest.approx(1.0)
            assert row.outcome.mean_s == pytest.approx(1.0)
        assert row.outcome.done == 2 and row.outcome.late == 0 and not row.broken


def test_what_a_dead_triple_ran_runs_again_elsewhere() -> None:
    content = GOOD | {"events": [{"at_s": 0.5, "worker": "t-0/1", "what": "dies"}]}
    trace = parse(content)
    for make in (Earliest, fewest, round_robin):
        outcome = emulate(compile_workload(trace.workload), trace.changes, make)
        assert outcome.done == 2 and outcome.makespan_s == pytest.approx(2.0)
    (planned,) = simulate(trace, ["planner"]).rows
    assert planned.outcome.makespan_s == pytest.approx(2.0)
    assert [ran.done for ran in planned.outcome.ran].count(False) == 1


def test_jobs_wait_for_a_region_to_come_back_or_are_stranded() -> None:
    dark = {"at_s": 0.5, "region": "eu", "what": "dies"}
    for name in POLICIES:
        (row,) = simulate(parse(GOOD | {"events": [dark]}), [name]).rows
        assert row.outcome.done == 0 and len(row.outcome.stranded) == 2
        back = {"at_s": 5.0, "region": "eu", "what": "back"}
        (row,) = simulate(parse(GOOD | {"events": [dark, back]}), [name]).rows
        assert row.outcome.done == 2 and row.outcome.makespan_s >= 6.0 - 1e-9 and row.outcome.late == 2


def test_a_slow_triple_takes_longer_and_a_dead_one_is_not_woken_by_it() -> None:
    (row,) = simulate(
        parse(GOOD | {"events": [{"at_s": 0.0, "triple": "t-0", "slower": 3}]}), ["earliest"]
    ).rows
    assert row.outcome.makespan_s == pytest.approx(3.0)
    dead = (Change(0.1, 0, inf), Change(0.2, 0, 3.0))
    outcome = emulate(compile_workload(parse(GOOD).workload), dead, Earliest)
    assert {ran.triple for ran in outcome.ran if ran.done} == {1}


def test_batches_that_share_a_link_slow_each_other_down() -> None:
    content = changed(
        "links", [{"between": ["eu", "eu"], "rtt_ms": 1, "bandwidth_mb_s": 100, "capacity_mb_s": 300}]
    )
    content["groups"][0]["variants"][0]["megabytes"] = 90
    content["groups"][0]["work_s"] = 0.0
    content["groups"][0]["variants"][0]["rounds"] = 100
    (row,) = simulate(parse(content), ["earliest"]).rows
    alone = 0.1 + 0.9
    wanted = 2 * 3 * 90 / alone  # MB a second of two batches, three pairs each
    assert row.outcome.makespan_s == pytest.approx(alone * wanted / 300)


def test_the_shipped_trace_keeps_every_limit_and_the_planner_beats_what_is_blind() -> None:
    found = simulate(read(ROOT / "configs" / "planner" / "trace.yaml"))
    rows = {row.policy: row for row in found.rows}
    assert not found.refused and not any(row.broken for row in found.rows)
    assert {row.outcome.done for row in found.rows} == {len(found.compiled.job)}
    planner, earliest, blind = (rows[name].outcome for name in ("planner", "earliest", "round-robin"))
    assert planner.late <= earliest.late and planner.p95_s <= earliest.p95_s * 1.02
    assert planner.mean_s < blind.mean_s and planner.makespan_s < blind.makespan_s


def test_what_fits_nowhere_is_refused_and_the_rest_runs() -> None:
    content = changed("jobs", [{"group": "g"}, {"group": "g", "regions": ["mars"]}])
    found = simulate(parse(content), ["planner"])
    assert list(found.refused) == ["g#1.0"] and "mars" in found.refused["g#1.0"]
    assert found.rows[0].outcome.done == 1


def test_the_same_seed_gives_the_same_stream() -> None:
    content = changed("jobs", [{"group": "g", "count": 50, "per_s": 2.0}])
    one, two, other = parse(content), parse(content), parse(content | {"seed": 1})
    assert one == two and one.workload.jobs != other.workload.jobs
    gaps = np.diff([job.arrival_s for job in one.workload.jobs])
    assert 0.2 < gaps.mean() < 1.2


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("jobs", [], "jobs must be a list"),
        ("jobs.0.count", 0, "count is 0"),
        ("jobs.0.cuont", 1, "'count' is meant"),
        ("jobs.0.count", 10**6, "more than 100000 jobs"),
        ("jobs.0.per_s", 0, "per_s is 0, must be a number above 0"),
        ("jobs.0.due_in_s", float("nan"), "due_in_s is nan"),
        ("jobs.0.regions", "eu", "must be a list of names"),
        ("triples.0.trust", ["a", "b"], "must be three names"),
        ("triples.0.rate", -1, "rate is -1"),
        ("links.0.between", ["eu"], "must be two regions"),
        ("links.0.rtt_ms", float("nan"), "rtt_ms is nan"),
        ("groups.0.work_s", -1, "work_s is -1"),
        ("groups.0.variants", [], "variants must be a list"),
        ("batch", 0, "batch is 0"),
        ("distinct_trust", "no", "must be true or false"),
        ("weights", {"mean": -1}, "mean is -1"),
        ("events", [{"at_s": 1, "triple": "x", "what": "dies"}], "there is no triple 'x'"),
        ("events", [{"at_s": 1, "triple": "t-0"}], "what must be dies or back"),
        ("events", [{"at_s": 1, "triple": "t-0", "region": "eu", "what": "dies"}], "name one triple"),
    ],
)
def test_what_makes_no_sense_is_refused(path: str, value: Any, words: str) -> None:
    with pytest.raises(ProblemError, match=words):
        parse(changed(path, value))


def test_there_is_no_such_policy() -> None:
    with pytest.raises(ProblemError, match="no policy magic"):
        simulate(parse(GOOD), ["magic"])
