"""Counts add up, by label, phase and layer."""

from __future__ import annotations

import json

import pytest

from mpc_ray.channel.meter import HEADERS, Meter


def test_split_adds_up() -> None:
    meter = Meter()
    meter.frame(1, 60, 100, 3)
    meter.frame(2, 60, 50, 2)
    assert meter.snapshot()["unattributed"] == 150
    meter.attribute("gelu", "offline", 90, layer="layer 0")
    meter.attribute("gelu", "online", 60, layer="layer 1")
    meter.received(500, 7)
    counts = meter.snapshot()
    assert counts["bytes_sent"] == meter.bytes_sent == 270
    assert counts["bytes_sent_offline"] == 90
    assert counts["bytes_sent_online"] == 180
    assert counts["bytes_sent_to"] == {1: 160, 2: 110}
    assert counts["bytes_received"] == 500
    assert counts["frames_sent"] == 2
    assert counts["rounds"] == 7
    assert counts["unattributed"] == 0
    assert {"label": HEADERS, "phase": "online", "layer": "", "bytes": 120} in counts["split"]
    assert {"label": "gelu", "phase": "online", "layer": "layer 1", "bytes": 60} in counts["split"]
    assert sum(entry["bytes"] for entry in counts["split"]) == 270
    json.dumps(counts)


def test_count_and_reset() -> None:
    meter = Meter()
    meter.count(1, 32, "seeds", "offline")
    before = meter.snapshot()
    assert (before["bytes_sent"], before["unattributed"]) == (32, 0)
    meter.reset()
    after = meter.snapshot()
    assert after["bytes_sent"] == 0
    assert after["split"] == []
    assert before["bytes_sent"] == 32, "a snapshot is a copy"


def test_unknown_phase() -> None:
    with pytest.raises(ValueError, match="phase"):
        Meter().attribute("gelu", "sometimes", 1)
