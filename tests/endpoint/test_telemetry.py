"""What endpoints tell of their work: one trace through all three, counts, a log with jobs in it; and nothing secret."""

from __future__ import annotations

import os
import urllib.request
from typing import Any

import pytest
from cluster import (  # type: ignore[import-not-found]
    Job,
    Three,
    agreed,
    at_all,
    events,
    open_triple,
    wait_until,
)

from mpc_ray.channel import Message
from mpc_ray.errors import MpcError

TEXT = "zebra quartz hello"


def scrape(three: Three, index: int) -> dict[str, float]:
    """The metrics of one endpoint, by name and labels."""
    url = f"http://127.0.0.1:{three.metrics_port('eu', index)}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


@pytest.fixture(scope="module")
def ran(endpoints: Three) -> tuple[Job, str]:
    """A job that ran, and the id of the trace that it ran in."""
    trace = os.urandom(16).hex()
    parent: dict[str, Any] = {"traceparent": f"00-{trace}-{os.urandom(8).hex()}-01"}
    links = endpoints.links()
    triple = open_triple(links)
    job = endpoints.job([TEXT])
    agreed(at_all(links, lambda i: job.submit(i, **parent)))
    head: dict[str, Any] = {"cmd": "run", "triple": triple, "jobs": [job.id], "attempt": 0, **parent}
    agreed(at_all(links, lambda i: Message(dict(head))))
    with pytest.raises(MpcError):
        agreed(at_all(links, lambda i: job.submit(i, traceparent="<script>")))
    agreed(at_all(links, lambda i: Message({"cmd": "close", "triple": triple})))
    for link in links:
        link.close()
    return job, trace


def test_one_trace_through_three_fronts_and_slots(endpoints: Three, ran: tuple[Job, str]) -> None:
    _, trace = ran

    def mine() -> list[dict[str, Any]]:
        return [span for span in events(endpoints.trace_file) if span["trace"] == trace]

    assert wait_until(lambda: len(mine()) == 9, 5), [span["name"] for span in mine()]
    spans = mine()
    for name in ("submit", "run", "party run"):
        assert sorted(s["attributes"]["party"] for s in spans if s["name"] == name) == [0, 1, 2]
    ids = {span["span"]: span["name"] for span in spans}
    assert {ids[s["parent"]] for s in spans if s["name"] == "party run"} == {"run"}
    assert all(span["status"] == "ok" for span in spans)


def test_refusals_are_traced_by_code_alone(endpoints: Three, ran: tuple[Job, str]) -> None:
    failed = [span for span in events(endpoints.trace_file) if span["status"] == "error"]
    assert {"replayed"} <= {span["attributes"].get("code") for span in failed}
    assert "<script>" not in endpoints.trace_file.read_text()


def test_metrics_count_it(endpoints: Three, ran: tuple[Job, str]) -> None:
    found = scrape(endpoints, 1)
    assert found['mpc_ray_jobs_total{code="ok",set="eu"}'] >= 1
    assert found['mpc_ray_jobs_total{code="replayed",set="eu"}'] >= 1
    assert found['mpc_ray_rounds_total{set="eu"}'] > 10 and found['mpc_ray_bytes_sent_total{set="eu"}'] > 1000
    assert found['mpc_ray_certificate_seconds_left{certificate="eu/1"}'] > 80 * 86_400
    assert found['mpc_ray_certificate_seconds_left{certificate="eu/1/directory"}'] > 80 * 86_400
    assert wait_until(lambda: scrape(endpoints, 1)['mpc_ray_held_bytes{kind="envelopes"}'] == 0, 3)
    assert found["mpc_ray_telemetry_dropped_total"] == 0


def test_nothing_of_the_job_is_in_a_log(endpoints: Three, ran: tuple[Job, str]) -> None:
    job, _ = ran
    texts = [endpoints.log("eu", index).read_text() for index in range(3)] + [
        endpoints.trace_file.read_text()
    ]
    secrets = [TEXT, *(key.reveal().hex() for key in job.reply_keys), job.envelopes[0][:16].hex()]
    for text in texts:
        assert not [secret for secret in secrets if secret in text]
    assert any('"logger": "mpc_ray.endpoint' in text for text in texts)
