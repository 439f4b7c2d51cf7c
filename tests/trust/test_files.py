"""Files of keys: modes, whole or not at all, and one writer at a time."""

from __future__ import annotations

import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from mpc_ray.errors import ConfigError
from mpc_ray.trust import files


def test_modes(tmp_path: Path) -> None:
    folder = files.make_folder(tmp_path / "a" / "b")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files.write_private(folder / "key", b"k")
    files.write_public(folder / "pem", b"p")
    assert stat.S_IMODE((folder / "key").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "pem").stat().st_mode) == 0o644
    assert files.read_private(folder / "key") == b"k" and files.read_public(folder / "pem") == b"p"
    assert sorted(path.name for path in folder.iterdir()) == ["key", "pem"], "no temporary file stays"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    files.write_private(tmp_path / "key", b"canary")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(ConfigError, match=f"{mode:04o}") as caught:
        files.read_private(tmp_path / "key")
    assert "chmod 0600" in caught.value.remedy and "canary" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o711])
def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "a").mkdir(mode=0o700)
    files.check_folder(tmp_path / "a")
    (tmp_path / "a").chmod(mode)
    for check in (files.check_folder, files.make_folder):
        with pytest.raises(ConfigError, match=f"{mode:04o}"):
            check(tmp_path / "a")


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "open").write_bytes(b"k")
    (tmp_path / "open").chmod(0o644)
    (tmp_path / "key").symlink_to(tmp_path / "open")
    with pytest.raises(ConfigError, match="0644"):
        files.read_private(tmp_path / "key")


def test_missing_long_and_unwritable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        files.read_private(tmp_path / "key")
    with pytest.raises(ConfigError, match="cannot be written"):
        files.write_private(tmp_path / "no" / "key", b"k")
    files.write_private(tmp_path / "key", b"x" * 11)
    with pytest.raises(ConfigError, match="more than 10 bytes"):
        files.read_private(tmp_path / "key", 10)
    with pytest.raises(ConfigError, match="not a folder"):
        files.check_folder(tmp_path / "key")


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_private(tmp_path / "key", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        files.write_private(tmp_path / "key", b"new")
    assert (tmp_path / "key").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def _add(folder: Path, times: int) -> None:
    for _ in range(times):
        with files.locked(folder):
            count = int((folder / "n").read_text())
            (folder / "n").write_text(str(count + 1))


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "n").write_text("0")
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=_add, args=(tmp_path, 50)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(30)
    assert (tmp_path / "n").read_text() == "150"
