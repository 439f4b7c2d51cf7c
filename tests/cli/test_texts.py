"""Where texts come from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from mpc_ray.cli import texts
from mpc_ray.errors import InputError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_our_sentences_come_in_pairs() -> None:
    assert len(texts.SENTENCES) % 2 == 0
    assert 10 <= len(set(texts.SENTENCES)) == len(texts.SENTENCES)


def test_arguments_then_file(tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text("  from the file \n\nthe second\n", encoding="utf-8")
    assert texts.read(["given"], file) == ["given", "from the file", "the second"]


def test_standard_input_where_nothing_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\ntwo\n"))
    assert texts.read(None, None) == []
    assert texts.read(["given"], None, piped=True) == ["given"]
    assert texts.read(None, None, piped=True) == ["one", "two"]
    monkeypatch.setattr("sys.stdin", io.StringIO("three\n"))
    assert texts.read(None, Path("-")) == ["three"]
    monkeypatch.setattr("sys.stdin", Terminal("never read"))
    assert texts.read(None, None, piped=True) == []


def test_typed_in_until_an_empty_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("one\ntwo\n\nthree\n"))
    assert texts.read(None, None, typed=True) == ["one", "two"]
    monkeypatch.setattr("sys.stdin", Terminal("the end of file ends it too"))
    assert len(texts.read(None, None, typed=True)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 > " in captured.err


def test_bad_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blank").write_text("\n \n")
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    for name, word in (("nowhere", "cannot be read"), ("blank", "holds no text"), ("latin", "UTF-8")):
        with pytest.raises(InputError, match=word):
            texts.read(None, tmp_path / name)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    with pytest.raises(InputError, match="UTF-8"):
        texts.read(None, None, piped=True)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    with pytest.raises(InputError, match="holds no text"):
        texts.read(None, None, piped=True)
    monkeypatch.setattr("sys.stdin", Terminal("\n"))
    with pytest.raises(InputError, match="nothing was typed"):
        texts.read(None, None, typed=True)
    with pytest.raises(InputError, match="text 1 is empty"):
        texts.read(["a", " \t"], None)
