"""What is written for its owner alone is so, whoever made the file and how."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from mpc_ray.telemetry import logs
from mpc_ray.telemetry.exporters import FileExporter
from mpc_ray.telemetry.private import narrow, open_private
from mpc_ray.trust.replay import ReplayJournal


def wide(path: Path, content: bytes = b"") -> Path:
    path.write_bytes(content)
    path.chmod(0o644)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_that_was_there_is_narrowed_and_keeps_its_content(tmp_path: Path) -> None:
    path = wide(tmp_path / "old", b"before")
    os.close(open_private(path, os.O_WRONLY | os.O_APPEND))
    assert mode(path) == 0o600 and path.read_bytes() == b"before"
    narrow(wide(tmp_path / "other"))
    assert mode(tmp_path / "other") == 0o600
    narrow(tmp_path / "missing")
    (tmp_path / "link").symlink_to(wide(tmp_path / "elsewhere"))
    narrow(tmp_path / "link")
    assert mode(tmp_path / "elsewhere") == 0o644, "what a link points to is not ours to change"


def test_what_is_no_file_is_opened_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    pipe.chmod(0o622)
    os.close(open_private(pipe, os.O_RDWR))
    assert mode(pipe) == 0o622


def test_logs_traces_and_the_journal(tmp_path: Path) -> None:
    handler = logs._open(wide(tmp_path / "log"))
    assert isinstance(handler, logging.FileHandler)
    handler.close()
    exporter = FileExporter(wide(tmp_path / "spans"), "party")
    exporter.shutdown()
    for name in ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm"):
        wide(tmp_path / name)
    journal = ReplayJournal(tmp_path / "journal.sqlite")
    try:
        for path in tmp_path.iterdir():
            assert mode(path) == 0o600, path.name
    finally:
        journal.close()
