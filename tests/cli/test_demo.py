"""``mpc-ray demo``: what it shows, its JSON object, its report, and when it fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

TEXTS = ("hello world", "hello worlds", "quite another text")


def test_for_people(cli: Any, tiny: Path, fast: Any, tmp_path: Path) -> None:
    ended = cli("demo", *TEXTS, "--model", tiny, *fast)
    assert ended.code == 0, ended.err
    for words in (
        "nearest neighbours",
        "hello worlds",
        "time, bytes and rounds",
        "softmax",
        "total",
        "trust: ",
    ):
        assert words in ended.out
    assert "largest 1 - cosine to the plaintext result" in ended.out
    assert "weights secret" in ended.out
    for step in ("starting three parties", "importing", "sharing", "computing on shares"):
        assert step in ended.err
    report = tmp_path / "mpc-ray-report.html"
    assert str(report) in ended.out
    assert "quite another text" in report.read_text(encoding="utf-8")


def test_json_in_a_process_over_tls_is_one_object(own_process: Any, tiny: Path, tmp_path: Path) -> None:
    ended = own_process(
        "demo", *TEXTS, "--model", tiny, "--launcher", "threads", "--json", "--report", "r.html"
    )
    assert ended.code == 0, ended.err
    said = ended.json
    assert said["report"] == str(tmp_path / "r.html")
    assert said["tls"] is True
    assert said["public_weights"] is False
    assert [text["neighbour"] for text in said["texts"][:2]] == [1, 0]
    assert said["max_one_minus_cosine"] < 1e-5
    assert said["shadow"] is None
    assert sum(f["bytes"] for f in said["functions"]) == sum(said["bytes_sent"])
    assert set(said["seconds"]) == {"start", "load", "embed", "plaintext"}
    assert set(said["bytes_by_layer"]) == {"embeddings", "layer 0", "layer 1", "head"}


def test_our_sentences_are_taken_without_others(cli: Any, fast: Any, tiny: Path) -> None:
    from mpc_ray.cli.texts import SENTENCES

    ended = cli("demo", "--json", "--model", tiny, *fast)
    assert tuple(text["text"] for text in ended.json["texts"]) == SENTENCES


def test_shadow_names_every_layer(cli: Any, tiny: Path, fast: Any, tmp_path: Path) -> None:
    ended = cli("demo", *TEXTS, "--model", tiny, "--shadow", *fast)
    assert ended.code == 0, ended.err
    assert "layer 1/ffn out" in ended.out
    assert "every layer is inside its bound" in ended.out
    assert "Drift by layer" in (tmp_path / "mpc-ray-report.html").read_text()
    shadow = cli("demo", *TEXTS, "--model", tiny, "--shadow", "--json", *fast).json["shadow"]
    assert shadow["ok"] is True
    assert len(shadow["drifts"]) == 5


def test_a_result_that_is_off_fails_and_still_reports(
    cli: Any, tiny: Path, fast: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpc_ray.cli.run import Run

    right = Run.plaintext
    monkeypatch.setattr(Run, "plaintext", lambda run: right(run) + 0.1)
    ended = cli("demo", *TEXTS, "--model", tiny, *fast)
    ended.one_line_error(7, "1 - cosine")
    assert (tmp_path / "mpc-ray-report.html").exists()
    said = cli("demo", *TEXTS, "--model", tiny, "--json", *fast).json  # the one object says both
    assert (said["error"], said["exit_code"], len(said["texts"])) == ("ResultDrift", 7, 3)


@pytest.mark.parametrize(
    ("worst", "fails"), [(0.0, False), (4.9e-6, False), (5.1e-6, True), (float("nan"), True)]
)
def test_the_gate_is_just_above_what_working_models_show(worst: float, fails: bool) -> None:
    from mpc_ray.cli.demo import judge

    fault = judge(SimpleNamespace(worst=worst, shadow=None))  # type: ignore[arg-type]
    assert (fault is not None) == fails
    if fault is not None:
        assert fault.exit_code == 7
        assert "over 5e-06" in fault.cause


def test_a_text_out_of_range_is_one_line_and_shadow_shows_where(
    cli: Any, tiny: Path, fast: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mpc_ray.errors import RangeExceeded

    def strike(*given: object, **named: object) -> None:
        raise RangeExceeded("the input left the calibrated range in layer 0/activation", remedy="calibrate")

    monkeypatch.setattr("mpc_ray.models.query.embeddings", strike)
    ended = cli("demo", *TEXTS, "--model", tiny, "--shadow", *fast)
    ended.one_line_error(4, "layer 0/activation")
    assert "shadow mode" in ended.out
    assert not (tmp_path / "mpc-ray-report.html").exists()


def test_one_sentence_has_no_neighbour(cli: Any, tiny: Path, fast: Any) -> None:
    said = cli("demo", "alone", "--model", tiny, "--json", *fast).json
    assert said["texts"][0]["neighbour"] is None
    assert said["texts"][0]["cosine"] is None
