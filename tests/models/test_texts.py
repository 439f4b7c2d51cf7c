"""Calibration texts: enough of them, of the promised lengths, the same on every call."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpc_ray.errors import InputError
from mpc_ray.models.texts import calibration_texts, file_texts, random_sequences


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return calibration_texts(1000)


def test_a_thousand_different_texts(texts: list[str]) -> None:
    assert len(texts) == 1000
    assert len(set(texts)) > 900
    assert all(text == " ".join(text.split()) and text for text in texts)


def test_lengths(texts: list[str]) -> None:
    words = sorted(len(text.split()) for text in texts)
    assert words[0] >= 3
    assert words[-1] <= 290
    assert 10 <= words[500] <= 30
    assert sum(n >= 60 for n in words) >= 100  # about 128 tokens and more
    assert sum(n >= 170 for n in words) >= 3


def test_mostly_prose(texts: list[str]) -> None:
    prose = [text for i, text in enumerate(texts) if i % 10 != 9]
    letters = [sum(c.isalpha() or c == " " for c in text) / len(text) for text in prose]
    assert sum(share > 0.75 for share in letters) > 0.95 * len(prose)


def test_seed_decides(texts: list[str]) -> None:
    assert calibration_texts(50, seed=3) == calibration_texts(50, seed=3)
    assert calibration_texts(50, seed=3) != calibration_texts(50, seed=4)


def test_no_texts_asked() -> None:
    with pytest.raises(InputError, match="count"):
        calibration_texts(0)


def test_random_sequences() -> None:
    rows = random_sequences(60, 1000, longest=50, prefix=[1], suffix=[2])
    assert rows == random_sequences(60, 1000, longest=50, prefix=[1], suffix=[2])
    assert all(row[0] == 1 and row[-1] == 2 and 3 <= len(row) <= 52 for row in rows)
    assert all(0 <= token < 1000 for row in rows for token in row)
    assert all(len(set(row[1:-1])) == 1 for row in rows[1::3])  # one id, repeated
    assert max(len(set(row)) for row in rows[0::3]) > 20
    assert max(len(row) for row in rows) > 40


def test_file_texts(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("first line\n\n  second  \n", encoding="utf-8")
    assert file_texts(path) == ["first line", "second"]


@pytest.mark.parametrize("data", [None, b"", b"\n \n", b"\xff\xfe"])
def test_bad_file(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "mine.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match="text"):
        file_texts(path)
