"""``mpc-ray bench predict``, and what it is made of: a watched run, an emulated link, the cache, the table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mpc_ray.bench.encoder import EncoderJob, measure
from mpc_ray.bench.predict import predictions, watched
from mpc_ray.bench.shapes import shape_of
from mpc_ray.bench.workload import workload
from mpc_ray.cli.main import run
from mpc_ray.config import Config
from mpc_ray.cost.links import Link, link_of, predict
from mpc_ray.cost.schedule import Schedule
from mpc_ray.cost.tables import cached_file, read, write
from mpc_ray.errors import MpcError
from mpc_ray.session import Session

SHAPE = shape_of("2x32x2x64")
LAYERS_AND_ENDS = {"bytes": 2 + 2 * 21, "rounds": 2 + 2 * 17 + 2}


def silent(what: str, part: float) -> None:
    """No progress is shown."""


@pytest.fixture(scope="module", params=["bytes", "rounds"])
def found(request: pytest.FixtureRequest) -> tuple[Schedule, dict[str, Any]]:
    """A schedule, and what the same session's parties counted. Threads share a process, so its seconds mean little."""
    config = Config(launcher="threads", tls=False, variant=request.param)
    work = workload(SHAPE, 8, 1, "random", silent)
    with Session(config=config) as session:
        job = EncoderJob(session, work)
        schedule = watched(job, session, 1, silent)
        return schedule, job.passes(1, silent).costs()


def test_a_schedule_has_the_runs_own_rounds_and_bytes(found: tuple[Schedule, dict[str, Any]]) -> None:
    schedule, costs = found
    assert list(schedule.bytes_sent) == costs["bytes_sent"]
    assert schedule.rounds == costs["rounds"] == LAYERS_AND_ENDS[schedule.variant]
    for party in schedule.steps:
        assert len(party) == schedule.rounds - 2 + 1  # without the client's two; and what follows the last
        assert all(step.compute >= 0 and step.transport >= 0 for step in party)
    names = {name for party in schedule.steps for step in party for name in step.functions}
    assert names == {"qkv", "softmax", "attention out", "activation", "ffn out"}


def test_every_round_waits_for_the_one_before(found: tuple[Schedule, dict[str, Any]]) -> None:
    """Far apart, what computing costs does not matter: as many half round trips as rounds."""
    schedule, _ = found
    far = predict(schedule, Link(59.0)).seconds - predict(schedule, Link(29.0)).seconds
    assert far == pytest.approx((schedule.rounds - 2) * 15.0, rel=1e-6)


def test_narrow_links_cost_at_least_the_fullest_direction(found: tuple[Schedule, dict[str, Any]]) -> None:
    schedule, _ = found
    fullest = max(sum(step.sent[i] for step in party) for party in schedule.steps for i in (0, 1))
    seconds = predict(schedule, Link(0.0, 8e3)).seconds
    assert 8 * fullest / 8e3 <= seconds < 8 * sum(schedule.bytes_sent) / 8e3


def test_schedules_survive_their_file(found: tuple[Schedule, dict[str, Any]]) -> None:
    schedule, _ = found
    again = Schedule.from_json(json.loads(json.dumps(schedule.to_json())))
    assert predict(again, Link(0.01)).seconds == pytest.approx(
        predict(schedule, Link(0.01)).seconds, abs=1e-4
    )


def test_an_emulated_link_is_slower_by_what_is_predicted() -> None:
    config = Config(launcher="threads", tls=False, variant="auto", rtt_ms=40.0)
    said = measure(SHAPE, seq=8, runs=1, config=config)
    assert (said["variant"], said["rtt_ms"], said["mbit"]) == ("rounds", 40.0, None)
    assert said["seconds_min"] >= (said["rounds"] - 2) * 0.02


def test_links_of_a_session_can_be_changed_and_not_where_none_is_emulated() -> None:
    work = workload(SHAPE, 8, 1, "random", silent)
    for emulate in ("clock", ""):
        with Session(launcher="threads", tls=False, emulate=emulate) as session:
            job = EncoderJob(session, work)
            job.more = {"link": [100.0, 0.0]}
            seconds = job.passes(0, silent).reports[0].seconds
            assert (seconds >= 42 * 0.05) == bool(emulate)


def test_a_protocol_without_variants_refuses_one() -> None:
    executor = "mpc_ray.bench.ops_party:OpsExecutor"
    with pytest.raises(MpcError, match="variant 'rounds'"):
        Session(launcher="threads", tls=False, variant="rounds", executor=executor)


@pytest.fixture
def kept(
    found: tuple[Schedule, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Schedule]:
    """Both variants in the cache: nothing is measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    schedule, _ = found
    both = [Schedule(**{**vars(schedule), "variant": name}) for name in ("bytes", "rounds")]
    paths = [cached_file("semi_honest_3pc", one.variant, SHAPE.name, 8, 1, "random") for one in both]
    for path, one in zip(paths, both, strict=True):
        write(path, one)
    return [one for path in paths if (one := read(path)) is not None]


def test_the_command_predicts_from_the_cache(
    kept: list[Schedule], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "predict", "--shape", SHAPE.name, "--seq", "8", "--rtt-ms", "50", "--mbit", "100"]
    assert run([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads(json.dumps(predictions(kept, link_of(50.0, 100.0), None)))
    one = said["variants"]["bytes"]
    assert one["seconds"] > 0.025 * 36
    assert sum(one["seconds_by_function"].values()) == pytest.approx(one["seconds"], rel=0.05)
    assert run([*words, "--cores", "2"]) == 0
    shown = capsys.readouterr().out
    for text in ("fewest bytes", "fewest rounds", "seconds, predicted", "softmax", "done first: bytes"):
        assert text in shown


@pytest.mark.parametrize(
    "words",
    [["--rtt-ms", "-1"], ["--mbit", "0"], ["--shape", "nothing"], ["--weights", "some"], ["--variant", "x"]],
)
def test_errors_have_a_code(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "predict", "--seq", "8", *words, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_the_script_compares_and_says_what_was_gained(load_script: Any) -> None:
    script = load_script("predict")
    assert script.links_of("0,50:100") == [(0.0, None), (50.0, 100.0)]
    row = {"rtt_ms": 50.0, "mbit": None, "rounds": 1, "bytes_sent": [1], "starved": 0.0, "error": 0.0}
    rows = [
        {**row, "variant": "bytes", "predicted": 4.0, "measured": 4.5, "measured_min": 4.1},
        {**row, "variant": "rounds", "predicted": 3.5, "measured": 3.9, "measured_min": 3.6},
        {**row, "rtt_ms": 0.0, "variant": "bytes", "predicted": 1.0, "measured": 1.0, "measured_min": 1.0},
    ]
    (gain,) = script.gains(rows)
    assert gain["predicted"] == pytest.approx(0.5)
    assert gain["measured"] == pytest.approx(0.6)
    assert gain["measured_of_fastest"] == pytest.approx(0.5)
    assert "error +0.0%" in script.line(rows[0])
