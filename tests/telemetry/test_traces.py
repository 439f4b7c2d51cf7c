"""Traces: one a request over several processes' spans, and no exception text or unknown attribute in any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_ray.errors import AuthorisationError, ConfigError
from mpc_ray.telemetry import allowed, traces
from mpc_ray.trust.secret import Secret

CANARY = "canary7391"
OUTSIDE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.fixture
def spans(tmp_path: Path) -> Any:
    """Sets tracing up; calling it gives what was recorded, by name."""
    file = tmp_path / "spans"
    assert traces.setup("gateway", file=file)
    return lambda: {(s := json.loads(line))["name"]: s for line in file.read_text().splitlines()}


def test_one_trace_from_the_outside_to_the_party(spans: Any, tmp_path: Path) -> None:
    with traces.span("infer", OUTSIDE, job="ab12", set="eu", batch=3) as infer:
        with traces.span("queue"):
            pass
        carried = infer.traceparent
        infer.set(rounds=130, seconds=0.5)
    with traces.span("party run", carried, party=0):
        pass
    found = spans()
    assert {span["trace"] for span in found.values()} == {"0af7651916cd43dd8448eb211c80319c"}
    assert found["infer"]["parent"] == "b7ad6b7169203331"
    assert found["queue"]["parent"] == found["party run"]["parent"] == found["infer"]["span"]
    assert found["infer"]["attributes"] == {
        "job": "ab12", "set": "eu", "batch": 3, "rounds": 130, "seconds": 0.5,
    }  # fmt: skip
    assert found["infer"]["service"] == "gateway" and found["infer"]["status"] == "ok"
    assert found["infer"]["start_ns"] <= found["queue"]["start_ns"] <= found["infer"]["end_ns"]
    assert (tmp_path / "spans").stat().st_mode & 0o777 == 0o600


def test_without_an_exporter_a_traceparent_is_still_passed_on() -> None:
    assert not traces.setup("client")
    with traces.span("client embed") as above, traces.span("seal") as below:
        assert below.traceparent == above.traceparent == traces.current()
    assert traces.parse(above.traceparent) == above.traceparent and above.traceparent.endswith("-00")
    with traces.span("run", OUTSIDE) as passed:
        assert passed.traceparent == OUTSIDE
    with traces.span("run") as other:
        assert other.trace_id != above.trace_id
    assert traces.current() == ""


def test_an_exception_gives_its_class_and_code_alone(spans: Any) -> None:
    def failing(name: str, error: BaseException) -> None:
        with pytest.raises(type(error)), traces.span(name):
            raise error

    failing("first", ValueError(CANARY))
    failing("second", AuthorisationError(CANARY, remedy=CANARY, code="expired"))
    failing("third", SystemExit(CANARY))
    found = spans()
    assert CANARY not in json.dumps(found)
    assert [found[n]["status"] for n in ("first", "second", "third")] == ["error"] * 3
    assert found["first"]["attributes"] == {"error.type": "ValueError"}
    assert found["second"]["attributes"] == {"error.type": "AuthorisationError", "code": "expired"}
    assert found["third"]["attributes"] == {"error.type": "SystemExit"}


WRONG: list[dict[str, Any]] = [
    {"text": CANARY},
    {"subject": CANARY},
    {"set": f"two words {CANARY}"},
    {"job": CANARY},
    {"set": Secret(CANARY.encode())},
    {"batch": np.array([1, 2])},
    {"batch": np.int64(73917391)},
    {"set": CANARY.encode()},
    {"set": [CANARY]},
    {"seconds": float("nan")},
    {"party": CANARY},
    {"stage": f"Run {CANARY}"},
    {"model": CANARY * 20},
]


@pytest.mark.parametrize("attributes", WRONG, ids="-".join)
def test_what_is_not_allowed_is_dropped_and_counted(
    spans: Any, monkeypatch: pytest.MonkeyPatch, attributes: dict[str, Any]
) -> None:
    with (
        pytest.raises(ValueError, match="telemetry does not take") as caught,
        traces.span("infer", **attributes),
    ):
        pass
    assert CANARY not in str(caught.value)
    monkeypatch.delenv(allowed.STRICT_VARIABLE)
    before = allowed.dropped()
    with traces.span("infer", **attributes, code="ok") as span:
        span.set(**attributes)
    assert allowed.dropped() == before + 2
    assert spans()["infer"]["attributes"] == {"code": "ok"}


def test_a_name_is_lower_case_words(spans: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="lower-case words"), traces.span(f"About {CANARY}"):
        pass
    monkeypatch.delenv(allowed.STRICT_VARIABLE)
    with traces.span(f"About {CANARY}"):
        pass
    assert "other" in spans() and CANARY not in str(spans())


@given(st.one_of(st.text(max_size=80), st.binary(), st.none(), st.integers(), st.just("00-" + "0" * 32)))
def test_parse_never_raises(text: object) -> None:
    assert traces.parse(text) is None


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (OUTSIDE, True),
        (f" {OUTSIDE} ", True),
        (OUTSIDE.replace("00-0af", "42-0af") + "-more", True),
        (OUTSIDE.upper(), False),
        (OUTSIDE + "-more", False),
        (OUTSIDE.replace("00-0af", "ff-0af"), False),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01", False),
        (OUTSIDE.replace("0af7", "٣af7"), False),
    ],
)
def test_parse(text: str, good: bool) -> None:
    assert traces.parse(text) == (OUTSIDE if good else None)


def test_spans_reach_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over OTLP, by the environment alone; the canary of an exception is in no request, the span's name is."""
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(traces.ENDPOINT, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    assert traces.setup("gateway")
    with pytest.raises(ValueError, match=CANARY), traces.span("infer", job="ab12"):
        raise ValueError(CANARY)
    traces.flush()
    traces.shutdown()
    server.shutdown()
    server.server_close()
    sent = b"".join(bodies)
    assert b"infer" in sent and b"ab12" in sent and b"ValueError" in sent
    assert CANARY.encode() not in sent


def test_a_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        traces.setup("client", file=tmp_path / "none" / "spans")


BASE = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "ray", "numba", "prometheus_client") or name == "opentelemetry.sdk":
            raise ImportError(name)

import importlib.util
sys.meta_path.insert(0, Missing())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "prometheus_client" else real(name, *a)
from mpc_ray.errors import ConfigError
from mpc_ray.telemetry import logs, metrics, traces
with traces.span("client embed", batch=1) as span:
    assert span.traceparent
metrics.job("ok"); metrics.stage("seal", 0.1); metrics.queue(1); metrics.certificate("x", 1.0)
metrics.predict_with(None)
metrics.ran(set="eu", rounds=1, bytes_sent=1, jobs=1, rows=1, length=16, seconds=1.0)
for refused in (metrics.exposition, lambda: traces.setup("client", file="x")):
    try:
        refused()
    except ConfigError as error:
        print(error)
"""


def test_the_base_install_is_enough(tmp_path: Path) -> None:
    """Neither torch nor Ray, neither SDK nor prometheus_client: spans pass on, metrics do nothing, the rest says so."""
    answer = subprocess.run(
        [sys.executable, "-P", "-c", BASE],
        capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path, env={**os.environ},
    )  # fmt: skip
    assert answer.stdout.count("pip install 'mpc-ray[server]'") == 2
