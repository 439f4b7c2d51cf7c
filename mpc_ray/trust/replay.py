"""Every job once: a journal of accepted job ids, on disk before a job is accepted.

One SQLite file a party. Two processes on one file exclude each other; a restart forgets nothing. Entries are kept
until their authorisation has expired, and what ``sweep`` has let go is refused by its expiry, whatever the clock says
later. A journal that begins empty refuses authorisations issued before it was made: a party that came up elsewhere
without its old journal accepts nothing that the old one may have accepted.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mpc_ray.errors import AuthorisationError, ConfigError, NotNow, Unavailable
from mpc_ray.telemetry.private import narrow, open_private
from mpc_ray.trust import canonical
from mpc_ray.trust.canonical import Malformed

KEEP_MS = 600_000
"""How long after its expiry an entry is kept: longer than clocks differ."""
_BUSY_S = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS accepted (job BLOB PRIMARY KEY, client TEXT NOT NULL, expires_ms INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_expiry ON accepted (expires_ms);
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


def time_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class ReplayJournal:
    """The journal in ``path`` (made with mode 0600). Any thread may use it.

    An acceptance waits for the disk: 0.3 to 3 ms.
    """

    def __init__(self, path: Path, clock: Callable[[], int] = time_ms) -> None:
        self._path, self._clock, self._lock = path, clock, threading.Lock()
        try:
            os.close(open_private(path, os.O_RDWR))
            for ending in ("-wal", "-shm"):  # SQLite makes them as the journal is, and keeps what is there
                narrow(path.with_name(path.name + ending))
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"the replay journal {path} cannot be opened: {_reason(error)}",
                remedy="check the path, its owner, and that the disk is there",
            ) from None
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            with self._writing():
                self._db.execute("INSERT OR IGNORE INTO state VALUES ('began_ms', ?)", (clock(),))
                self._db.execute("INSERT OR IGNORE INTO state VALUES ('swept_ms', 0)")
        except sqlite3.Error as error:
            self._db.close()
            passes = getattr(error, "sqlite_errorcode", 0) & 0xFF in (
                sqlite3.SQLITE_BUSY,
                sqlite3.SQLITE_LOCKED,
                sqlite3.SQLITE_FULL,
            )
            raise (NotNow if passes else ConfigError)(
                f"the replay journal {path} is unusable: {_reason(error)}",
                remedy="make room on its disk; if the file is damaged, move it away: jobs signed before are refused",
            ) from None

    def accept(self, job: str, client: str, expires_ms: int, issued_ms: int) -> None:
        """Remember ``job`` (32 hexadecimal digits), durably, before returning.

        ``AuthorisationError``: ``replayed`` if it was accepted before by whichever client, ``expired`` if it is older
        than what the journal remembers, ``before_journal`` if it was issued before the journal began. ``Unavailable``
        if it cannot be written (a full disk): then the job must not run.
        """
        try:
            key = canonical.unhex(job, 16, "job")
        except Malformed as error:
            raise AuthorisationError(f"the authorisation is malformed: {error}", code="malformed") from None
        try:
            with self._lock, self._writing():
                state = dict(self._db.execute("SELECT name, value FROM state"))
                if self._db.execute("SELECT 1 FROM accepted WHERE job = ?", (key,)).fetchone():
                    raise AuthorisationError(
                        "this job was accepted before", remedy="sign a new authorisation", code="replayed"
                    )
                if expires_ms <= state["swept_ms"]:
                    raise AuthorisationError(
                        "the authorisation has expired",
                        remedy="sign a new one; set the clock",
                        code="expired",
                    )
                if issued_ms < state["began_ms"]:
                    raise AuthorisationError(
                        "the authorisation was issued before this party's replay journal began",
                        remedy="sign a new one; set the clock",
                        code="before_journal",
                    )
                self._db.execute("INSERT INTO accepted VALUES (?, ?, ?)", (key, client, expires_ms))
        except sqlite3.Error as error:
            raise self._unwritable(error) from None

    def sweep(self, now_ms: int | None = None) -> int:
        """Forget what expired more than ``KEEP_MS`` ago; how many. ``Unavailable`` if it cannot be written.

        What is remembered is the newest expiry among them, not the clock's word: one that was far ahead at a sweep must
        not refuse every job from then on.
        """
        until = (self._clock() if now_ms is None else now_ms) - KEEP_MS
        try:
            with self._lock, self._writing():
                (newest,) = self._db.execute(
                    "SELECT max(expires_ms) FROM accepted WHERE expires_ms <= ?", (until,)
                ).fetchone()
                gone = self._db.execute("DELETE FROM accepted WHERE expires_ms <= ?", (until,)).rowcount
                if newest is not None:
                    self._db.execute(
                        "UPDATE state SET value = max(value, ?) WHERE name = 'swept_ms'", (newest,)
                    )
        except sqlite3.Error as error:
            raise self._unwritable(error) from None
        return gone

    def __len__(self) -> int:
        with self._lock:
            return int(self._db.execute("SELECT count(*) FROM accepted").fetchone()[0])

    def close(self) -> None:
        """Let the file go. Nothing is lost if this is never called."""
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction: all of it on disk, or none."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _unwritable(self, error: sqlite3.Error) -> Unavailable:
        return Unavailable(
            f"the replay journal {self._path} cannot be written: {_reason(error)}",
            remedy="make room on its disk: without it no job is accepted",
            retry_after_s=30.0,
        )


def _reason(error: Exception) -> str:
    return (
        getattr(error, "strerror", None) or getattr(error, "sqlite_errorname", None) or type(error).__name__
    )
