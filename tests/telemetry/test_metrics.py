"""Metrics: what a scrape says, and that its labels stay few."""

from __future__ import annotations

import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mpc_ray.telemetry import allowed, metrics

CANARY = "canary7391"


def scraped() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.exposition()[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(name: str, **labels: str) -> float:
    return scraped()[name, tuple(sorted(labels.items()))]


def test_what_a_scrape_says() -> None:
    metrics.stage("queue", 0.2, set="eu")
    with pytest.raises(KeyError), metrics.timed("open", set="eu"):
        raise KeyError
    metrics.job("ok", set="eu")
    metrics.job("ok", set="eu")
    metrics.job("expired", set="eu")
    metrics.queue(3, set="eu")
    metrics.held("envelopes", 4096)
    metrics.abort("peer_lost", set="eu")
    metrics.http("/v2/models/{name}", 429, 0.004)
    metrics.certificate("eu/party 0", time.time() + 100)
    assert value("mpc_ray_stage_seconds_sum", stage="queue", set="eu") == pytest.approx(0.2)
    assert value("mpc_ray_stage_seconds_count", stage="open", set="eu") == 1
    assert value("mpc_ray_jobs_total", code="ok", set="eu") == 2
    assert value("mpc_ray_jobs_total", code="expired", set="eu") == 1
    assert value("mpc_ray_queue_depth", set="eu") == 3
    assert value("mpc_ray_held_bytes", kind="envelopes") == 4096
    assert value("mpc_ray_aborts_total", reason="peer_lost", set="eu") == 1
    assert value("mpc_ray_http_seconds_count", route="/v2/models/{name}", status="429") == 1
    assert 98 < value("mpc_ray_certificate_seconds_left", certificate="eu/party 0") < 100
    assert value("process_resident_memory_bytes") > 10 << 20
    assert metrics.exposition()[1].startswith("text/plain")


def run(seconds: float = 2.0) -> None:
    metrics.ran(
        set="eu", rounds=130, bytes_sent=1000, jobs=4, rows=8, length=32, seconds=seconds, model="minilm"
    )


def test_a_computation_and_its_forecast() -> None:
    asked: list[Any] = []
    run()
    metrics.predict_with(lambda *what: asked.append(what) or 3.0)  # type: ignore[func-returns-value]
    run()
    metrics.predict_with(lambda *what: None)
    run()
    assert asked == [("eu", "minilm", 8, 32)]
    assert value("mpc_ray_rounds_total", set="eu") == 390
    assert value("mpc_ray_bytes_sent_total", set="eu") == 3000
    assert value("mpc_ray_texts_total", set="eu") == 24
    assert value("mpc_ray_run_jobs_sum", set="eu") == 12
    assert value("mpc_ray_run_seconds_count", set="eu", model="minilm") == 3
    assert value("mpc_ray_prediction_error_ratio_sum", set="eu") == pytest.approx(0.5)
    assert value("mpc_ray_prediction_error_ratio_count", set="eu") == 1


def test_a_predictor_that_fails_ends_no_job() -> None:
    def predictor(*what: Any) -> float:
        raise RuntimeError(CANARY)

    metrics.predict_with(predictor)
    run()
    assert value("mpc_ray_prediction_failures_total", set="eu") == 1
    assert CANARY not in str(scraped())


@pytest.mark.parametrize(
    "wrong", [f"who is {CANARY}?", CANARY * 10, CANARY.encode(), None, 7, f"a\n{CANARY}"]
)
def test_a_label_of_another_form_is_other(monkeypatch: pytest.MonkeyPatch, wrong: Any) -> None:
    with pytest.raises(ValueError, match="label code"):
        metrics.job(wrong)
    monkeypatch.delenv(allowed.STRICT_VARIABLE)
    metrics.job(wrong)
    assert value("mpc_ray_jobs_total", code="other", set="") == 1
    assert value("mpc_ray_telemetry_dropped_total") >= 1
    assert CANARY not in str(scraped())


def test_labels_stay_few() -> None:
    for i in range(metrics.MOST_VALUES + 50):
        metrics.job(f"code{i}")
    assert value("mpc_ray_jobs_total", code="other", set="") == 50
    metrics.job("code7")
    assert value("mpc_ray_jobs_total", code="code7", set="") == 2


def test_no_metric_can_name_a_person() -> None:
    """The names of all labels there are."""
    named = [
        labels
        for _, labels, *_ in [
            *metrics.HISTOGRAMS.values(),
            *metrics.COUNTERS.values(),
            *metrics.GAUGES.values(),
        ]
    ]
    assert {label for labels in named for label in labels} <= set(metrics.LABELS)
    assert set(metrics.LABELS) == {
        "stage",
        "set",
        "code",
        "reason",
        "certificate",
        "kind",
        "route",
        "status",
        "model",
    }
