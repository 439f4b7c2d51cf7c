"""Transcripts: with fixed seeds every party sends exactly these bytes, so that all implementations agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cases import CASES, FORMAT, transcript

VECTORS = json.loads(Path(__file__).with_name("transcripts.json").read_text())


def test_every_case_is_recorded() -> None:
    assert VECTORS["format"] == FORMAT
    assert list(VECTORS["cases"]) == list(CASES)


@pytest.mark.parametrize("k", range(3))
@pytest.mark.parametrize("name", CASES)
def test_transcript(name: str, k: int) -> None:
    found, expected = transcript(name, k), VECTORS["cases"][name][k]
    assert found["rounds"] == expected["rounds"]
    assert found["bytes"] == expected["bytes"]
    assert found["sent"] == expected["sent"]
    assert found["holds"] == expected["holds"]


def test_other_seeds_send_other_bytes() -> None:
    """A hash that ignored the payload would pass the test above."""
    for name in CASES:
        mine, other = transcript(name, 0), transcript(name, 0, b"another seed")
        assert mine["bytes"] == other["bytes"]
        for i in range(3):
            assert (mine["sent"][i] != other["sent"][i]) == (mine["bytes"][i] > 0)
