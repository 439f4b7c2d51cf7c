"""docs/operations.md: every metric is in its table and nothing else is; commands, options and settings exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
if str(ROOT / "tests") not in sys.path:
    sys.path.append(str(ROOT / "tests"))

from test_deployment import check, commands, in_the_text  # noqa: E402
from test_readme import blocks, cli  # noqa: E402

from mpc_ray.telemetry import metrics  # noqa: E402

TEXT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"`([^`\n]+)`", PROSE)


def table() -> dict[str, tuple[str, ...]]:
    """Metrics of the table, with their labels."""
    rows = re.findall(r"^\| `(mpc_ray_\w+)` \| ([\w, ]*?) ?\|", TEXT, re.MULTILINE)
    return {name: tuple(re.findall(r"\w+", labels)) for name, labels in rows}


def registered() -> dict[str, tuple[str, ...]]:
    """Metrics of the code, as they are scraped, with their labels."""
    pytest.importorskip("prometheus_client")
    labels: dict[str, tuple[str, ...]] = {
        **{f"mpc_ray_{name}": of for name, (_, of, _) in metrics.HISTOGRAMS.items()},
        **{f"mpc_ray_{name}_total": of for name, (_, of) in metrics.COUNTERS.items()},
        **{f"mpc_ray_{name}": of for name, (_, of) in metrics.GAUGES.items()},
    }
    scraped = re.findall(r"^# TYPE (mpc_ray_\w+) ", metrics.exposition()[0].decode(), re.MULTILINE)
    at_scrape = {"mpc_ray_certificate_seconds_left": ("certificate",), "mpc_ray_telemetry_dropped_total": ()}
    assert {name for name in scraped if not name.endswith("_created")} == {*labels, *at_scrape}
    return labels | at_scrape


def test_every_metric_is_in_the_table_and_nothing_else() -> None:
    assert table() == registered()


def test_queries_use_what_is_registered() -> None:
    known = registered()
    histograms = {
        f"mpc_ray_{name}{end}": f"mpc_ray_{name}"
        for name in metrics.HISTOGRAMS
        for end in ("_bucket", "_sum", "_count")
    }
    rules = [
        rule
        for block in blocks(TEXT, "yaml")
        for group in yaml.safe_load(block).get("groups", ())
        for rule in group["rules"]
    ]
    assert len(rules) >= 3
    for rule in rules:
        labels = {"job", "instance"}
        for name in re.findall(r"mpc_ray_\w+", rule["expr"]):
            assert name in {*known, *histograms}, name
            labels |= set(known[histograms.get(name, name)])
        asked = re.findall(r"(?:by \(|\{)([^)}]*)[)}]", rule["expr"])
        used = {part.partition("=")[0].strip("~! ") for parts in asked for part in parts.split(",")}
        assert used <= labels, rule["alert"]


def test_the_scrape_reaches_what_the_guide_starts() -> None:
    (scrape,) = [
        made for block in blocks(TEXT, "yaml") if "scrape_configs" in (made := yaml.safe_load(block))
    ]
    parties, gateway = scrape["scrape_configs"]
    ports = [target.rpartition(":")[2] for target in parties["static_configs"][0]["targets"]]
    assert len(ports) == 3 and all(port in PROSE for port in ports)
    assert gateway["scheme"] == "https" and gateway["static_configs"][0]["targets"] == ["127.0.0.1:8443"]


@pytest.mark.parametrize(
    "words", commands("\n".join(blocks(TEXT, "bash"))), ids=lambda words: " ".join(words)[:60]
)
def test_a_command_exists(words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize("code", sorted({code for code in INLINE if code.startswith("mpc-ray ")}))
def test_a_command_in_the_text_exists(code: str) -> None:
    in_the_text(code)


def test_options_exist() -> None:
    options = {
        name
        for command in ("create", "list-api", "revoke-api")
        for p in cli().commands["keys"].commands[command].params
        for name in p.opts
    }
    options |= {
        name for command in ("gateway", "proxy") for p in cli().commands[command].params for name in p.opts
    }
    named = {code for code in INLINE if code.startswith("--")}
    assert named and named <= options


def settings(model: Any) -> set[str]:
    """Dotted names of all settings."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(name)
        inner = field.annotation
        if hasattr(inner, "model_fields"):
            found |= {f"{name}.{under}" for under in settings(inner)}
        for part in getattr(inner, "__args__", ()):
            found |= settings(part) if hasattr(part, "model_fields") else set()
    return found


def test_settings_exist() -> None:
    party = pytest.importorskip("mpc_ray.endpoint.config").PartyConfig
    gateway = pytest.importorskip("mpc_ray.serve.config").GatewayConfig
    known = settings(party) | settings(gateway)
    named = {
        code.partition(":")[0]
        for code in INLINE
        if re.fullmatch(r"(?:limits|batching|policy|regions)\.\w+", code)
    }
    named |= {"metrics_port", "trace_file", "log_file", "metrics_networks", "max_triples"}
    assert len(named) > 8 and named <= known
    assert all(f"`{name}`" in TEXT or f"`{name}: " in TEXT or name in TEXT for name in named)


def test_codes_and_defaults_are_those_of_the_program() -> None:
    """What the text says of a number or a code, the program does."""
    limits = pytest.importorskip("mpc_ray.serve.limits")
    problems = pytest.importorskip("mpc_ray.serve.problems")
    idempotency = pytest.importorskip("mpc_ray.serve.idempotency")
    config = pytest.importorskip("mpc_ray.serve.config")
    codes = {
        limits.RateExceeded.code,
        limits.QuotaExceeded.code,
        idempotency.Conflict.code,
        "overloaded",
        "replayed",
    }
    assert set(re.findall(r"code `(\w+)`", TEXT)) == codes
    assert {"overloaded", "replayed"} <= set(problems._TITLES.values())
    assert config.Limits().idempotency_s == 600.0
    defaults = {p.name: p.default for p in cli().commands["keys"].commands["create"].params}
    assert (defaults["per_minute"], defaults["tokens_per_day"]) == (600, 0)
    assert "`--per-minute`** (600)" in TEXT and "`--tokens-per-day`** (0," in TEXT


def test_files_that_are_named_exist() -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", TEXT):
        assert (ROOT / "docs" / target).exists(), target
