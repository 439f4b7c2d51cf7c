"""``bench encoder --profile``: a trace that viewers take, whose lanes add up to each party's time."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from mpc_ray.bench.encoder import measure
from mpc_ray.bench.shapes import shape_of
from mpc_ray.bench.trace import chrome_trace, lane_seconds, write_trace
from mpc_ray.config import Config
from mpc_ray.errors import ConfigError
from mpc_ray.protocols.timeline import LANES, REST, WRITING, Timeline

ROUNDS = 21  # a layer's


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the benchmark found, and the file that it wrote: over TLS, where other threads send."""
    path = tmp_path_factory.mktemp("profile") / "trace.json"
    config = Config(launcher="threads")
    found = measure(shape_of("1x32x2x64"), seq=12, batch=1, runs=1, config=config, profile=path)
    return found, json.loads(path.read_text())


def spans(trace: dict[str, Any], party: int) -> dict[str, list[dict[str, Any]]]:
    """Its complete events by lane."""
    named = {
        e["tid"]: e["args"]["name"]
        for e in trace["traceEvents"]
        if e["pid"] == party and e["name"] == "thread_name"
    }
    lanes: dict[str, list[dict[str, Any]]] = {name: [] for name in named.values()}
    for event in trace["traceEvents"]:
        if event["ph"] == "X" and event["pid"] == party:
            lanes[named[event["tid"]]].append(event)
            assert event["cat"] == named[event["tid"]]
    return lanes


def test_it_is_a_trace(profiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, trace = profiled
    assert set(trace) == {"traceEvents", "displayTimeUnit", "otherData"}
    for event in trace["traceEvents"]:
        assert event["ph"] in ("M", "X") and event["pid"] in range(3) and type(event["tid"]) is int
        if event["ph"] == "X":
            assert type(event["ts"]) is int and type(event["dur"]) is int
            assert event["ts"] >= 0 and event["dur"] >= 0 and event["name"]
    for party in range(3):
        lanes = spans(trace, party)
        assert list(lanes) == [*LANES, *(f"{WRITING}{peer}" for peer in range(3) if peer != party)]
        assert all(lanes.values())
    assert trace["otherData"]["shape"] == "1x32x2x64"


def test_lanes_add_up(profiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """The computing thread is in one lane at a time, and always in one."""
    found, trace = profiled
    for party in range(3):
        lanes = spans(trace, party)
        own = sorted((e["ts"], e["ts"] + e["dur"]) for lane in LANES for e in lanes[lane])
        assert all(one[1] == other[0] for one, other in itertools.pairwise(own))
        total = sum(found["profile_seconds"][party][lane] for lane in LANES)
        assert total == pytest.approx((own[-1][1] - own[0][0]) / 1e6, abs=1e-9)
        for name, seconds in found["profile_seconds"][party].items():
            assert seconds == pytest.approx(sum(e["dur"] for e in lanes[name]) / 1e6, abs=1e-9)


def test_what_the_lanes_hold(profiled: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, trace = profiled
    for party in range(3):
        lanes = spans(trace, party)
        functions = {"qkv", "softmax", "attention out", "activation", "ffn out"}
        assert functions <= {e["name"] for e in lanes["compute"] if e["args"].get("layer") == "layer 0"}
        assert functions == {e["name"] for e in lanes["dealer"]}  # each party deals a third
        assert {e["name"] for e in lanes["wait"]} == {f"for party {p}" for p in range(3) if p != party}
        assert len(lanes["wait"]) <= 2 * ROUNDS


def test_without_a_profile_nothing_is_noted(measured: dict[str, Any]) -> None:
    assert "profile_seconds" not in measured


def test_a_timeline_fills_its_gaps_and_forgets_writes_that_end_later() -> None:
    timeline = Timeline(began=0.0, epoch=7.0)
    with timeline.span("send", "to party 1"):
        pass
    _, _, _, begin, end = timeline.spans[0]
    timeline.add("wait", "for party 1", "", end, end + 0.5)
    timeline.written(1, begin, end)
    timeline.written(2, begin, end + 1e9)
    said = timeline.close()
    assert said["epoch"] == 7.0
    first, second, third, *others = said["spans"]
    assert (first[:2], first[3]) == (["compute", REST], 0)
    assert second[0] == "send" and third[0] == "wait" and third[4] - third[3] == pytest.approx(5e5, abs=1)
    assert [span[0] for span in others] == [f"{WRITING}1"]


def test_parties_begin_where_their_clocks_say() -> None:
    profiles = [
        {"epoch": 10.0 + i, "microseconds": 5, "spans": [["compute", REST, "", 0, 5]]} for i in range(3)
    ]
    trace = chrome_trace(profiles, {})
    assert [e["ts"] for e in trace["traceEvents"] if e["ph"] == "X"] == [0, 1_000_000, 2_000_000]
    assert [party["compute"] for party in lane_seconds(profiles)] == [5e-6] * 3


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_trace(tmp_path, {})
