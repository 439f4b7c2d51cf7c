"""Every job once: across reopening, across processes, across a kill, and with a clock that jumps."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mpc_ray.errors import AuthorisationError, ConfigError, NotNow, Unavailable
from mpc_ray.trust.replay import KEEP_MS, ReplayJournal

NOW = 1_800_000_000_000
JOB = "ab" * 16


def journal(path: Path, now: int = NOW) -> ReplayJournal:
    return ReplayJournal(path / "journal.sqlite", lambda: now)


def code_of(attempt: Callable[[], object]) -> str:
    with pytest.raises(AuthorisationError) as caught:
        attempt()
    return caught.value.code


def test_once_and_never_again(tmp_path: Path) -> None:
    first = journal(tmp_path)
    assert stat.S_IMODE((tmp_path / "journal.sqlite").stat().st_mode) == 0o600
    first.accept(JOB, "a", NOW + 60_000, NOW)
    assert code_of(lambda: first.accept(JOB, "a", NOW + 60_000, NOW)) == "replayed"
    assert code_of(lambda: first.accept(JOB, "b", NOW + 9_000, NOW)) == "replayed", "by whichever client"
    first.accept("cd" * 16, "a", NOW + 60_000, NOW)
    assert len(first) == 2


def test_across_reopening(tmp_path: Path) -> None:
    journal(tmp_path).accept(JOB, "a", NOW + 60_000, NOW)  # not closed
    again = journal(tmp_path, NOW + 1000)
    assert code_of(lambda: again.accept(JOB, "a", NOW + 60_000, NOW)) == "replayed"
    again.close()
    assert code_of(lambda: journal(tmp_path).accept(JOB, "a", NOW + 60_000, NOW)) == "replayed"


def test_a_job_is_on_disk_before_it_is_accepted(tmp_path: Path) -> None:
    """A process that is killed right after ``accept`` returned has forgotten nothing."""

    def accept_and_die() -> None:
        journal(tmp_path).accept(JOB, "a", NOW + 60_000, NOW)
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=accept_and_die)
    process.start()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    assert code_of(lambda: journal(tmp_path).accept(JOB, "a", NOW + 60_000, NOW)) == "replayed"


def _many(folder: Path, jobs: list[str], accepted: multiprocessing.Queue[list[str]]) -> None:
    mine, own = [], journal(folder)
    for job in jobs:
        try:
            own.accept(job, "a", NOW + 60_000, NOW)
        except AuthorisationError as error:
            if error.code != "replayed":
                raise
        else:
            mine.append(job)
    accepted.put(mine)


def test_two_processes_share_it(tmp_path: Path) -> None:
    """Both make the journal at the same time, and each job is accepted by exactly one."""
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[list[str]] = context.Queue()
    jobs = [os.urandom(16).hex() for _ in range(60)]
    both = [
        context.Process(target=_many, args=(tmp_path, order, queue)) for order in (jobs, jobs[::-1], jobs)
    ]
    for process in both:
        process.start()
    accepted = [job for _ in both for job in queue.get(timeout=60)]
    for process in both:
        process.join(30)
        assert process.exitcode == 0
    assert sorted(accepted) == sorted(jobs)


def test_threads_share_it(tmp_path: Path) -> None:
    own, accepted = journal(tmp_path), []

    def run() -> None:
        for index in range(30):
            try:
                own.accept(f"{index:032x}", "a", NOW + 60_000, NOW)
                accepted.append(index)
            except AuthorisationError:
                pass

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(accepted) == list(range(30))


def test_sweeping_forgets_only_what_nobody_accepts_any_more(tmp_path: Path) -> None:
    own = journal(tmp_path)
    own.accept(JOB, "a", NOW + 60_000, NOW)
    assert own.sweep(NOW + 60_000) == 0, "a clock that is a little ahead takes nothing away"
    assert own.sweep(NOW + 60_000 + KEEP_MS) == 1 and len(own) == 0
    for reopened in (own, journal(tmp_path)):
        assert code_of(lambda own=reopened: own.accept(JOB, "a", NOW + 60_000, NOW)) == "expired"
    later = NOW + 60_001
    own.accept("cd" * 16, "a", later, NOW + 10)
    own.sweep(NOW)
    assert code_of(lambda: own.accept(JOB, "a", NOW + 60_000, NOW)) == "expired", "it never goes back"


def test_a_journal_that_was_lost(tmp_path: Path) -> None:
    """A party that comes up without its old journal accepts nothing that the old one may have accepted."""
    journal(tmp_path).accept(JOB, "a", NOW + 60_000, NOW)
    for file in tmp_path.iterdir():
        file.unlink()
    new = journal(tmp_path, NOW + 5000)
    assert code_of(lambda: new.accept(JOB, "a", NOW + 60_000, NOW)) == "before_journal"
    new.accept("cd" * 16, "a", NOW + 65_000, NOW + 5000)


def test_a_full_disk_refuses_the_job(tmp_path: Path) -> None:
    own = journal(tmp_path)
    pages = own._db.execute("PRAGMA page_count").fetchone()[0]
    own._db.execute(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        for index in range(10_000):
            own.accept(f"{index:032x}", "a" * 400, NOW + 60_000, NOW)

    with pytest.raises(Unavailable, match="SQLITE_FULL"):
        fill()
    before = len(own)
    with pytest.raises(Unavailable, match="cannot be written"):
        own.accept(JOB, "a" * 400, NOW + 60_000, NOW)
    assert len(own) == before
    own._db.execute("PRAGMA max_page_count = 100000")
    own.accept(JOB, "a", NOW + 60_000, NOW)
    assert code_of(lambda: own.accept(f"{0:032x}", "a", NOW + 60_000, NOW)) == "replayed"


def test_one_that_is_held_by_another_is_an_error_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpc_ray.trust.replay._BUSY_S", 0.1)
    own = journal(tmp_path)
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="SQLITE_BUSY"):
        own.accept(JOB, "a", NOW + 60_000, NOW)
    other.execute("ROLLBACK")
    own.accept(JOB, "a", NOW + 60_000, NOW)


def test_a_journal_that_the_process_before_still_has_may_be_opened_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mpc_ray.trust.replay._BUSY_S", 0.1)
    journal(tmp_path).close()
    other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(NotNow, match="SQLITE_BUSY") as caught:
        journal(tmp_path)
    assert caught.value.exit_code == 75
    other.execute("ROLLBACK")
    journal(tmp_path).close()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "journal.sqlite").write_bytes(b"not a database, " * 300)
    with pytest.raises(ConfigError) as caught:
        journal(tmp_path / "damaged")
    assert caught.value.exit_code == 2


def test_damaged_missing_and_malformed(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database, " * 300)
    with pytest.raises(ConfigError, match="SQLITE_NOTADB"):
        journal(tmp_path)
    with pytest.raises(ConfigError, match="No such file"):
        journal(tmp_path / "nowhere")
    (tmp_path / "b").mkdir()
    for job in ("", "ab", "AB" * 16, "'; --"):
        assert code_of(lambda job=job: journal(tmp_path / "b").accept(job, "a", NOW + 1, NOW)) == "malformed"


def test_a_clock_that_was_far_ahead_at_a_sweep_does_not_close_the_journal(tmp_path: Path) -> None:
    own = journal(tmp_path)
    own.accept(JOB, "a", NOW + 60_000, NOW)
    assert own.sweep(NOW + 10 * 365 * 86_400_000) == 1
    assert code_of(lambda: own.accept(JOB, "a", NOW + 60_000, NOW)) == "expired", (
        "what was swept stays refused"
    )
    own.accept("cd" * 16, "a", NOW + 120_000, NOW + 61_000)
    assert len(own) == 1
