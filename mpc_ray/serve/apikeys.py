"""API keys of a gateway: ``mpck_<id>_<secret>``, of which only a keyed hash is stored.

The secret has 256 random bits, so it cannot be guessed however fast the hash is; HMAC-SHA-256 under a server
key that lies in another file makes a stolen database useless alone. A slow hash would cost every request 49 ms and
protect nothing here.

``KeyStore`` is the administrator's side and the only writer of the file (``mpc-ray keys``); ``KeyRing`` is the
gateway's side: it holds all keys in memory and looks at most once a second whether the file has changed, so
a revoked key is refused a second later.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpc_ray.errors import ConfigError, InputError, NotNow
from mpc_ray.trust.folder import open_gateway

DATABASE, SERVER_KEY = "keys.sqlite", "keys.hmac"
BEARER = re.compile(r"mpck_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,62}")
LOOK_AGAIN_S = 1.0
_NOBODY = bytes(32)  # compared with where there is no such key: both ways cost the same
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, mac BLOB NOT NULL, name TEXT NOT NULL, tenant TEXT NOT NULL,
    created_ms INTEGER NOT NULL, expires_ms INTEGER, revoked_ms INTEGER,
    per_minute INTEGER NOT NULL, tokens_per_day INTEGER NOT NULL, models TEXT NOT NULL, purposes TEXT NOT NULL
) STRICT
"""
_COLUMNS = (
    "id, name, tenant, created_ms, expires_ms, revoked_ms, per_minute, tokens_per_day, models, purposes"
)


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key. Times in ms since 1970. ``models``, ``purposes``: none means any; 0 tokens: no limit."""

    id: str
    name: str
    tenant: str
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None
    per_minute: int
    tokens_per_day: int
    models: tuple[str, ...]
    purposes: tuple[str, ...]

    def valid(self, now_ms: int) -> bool:
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


@dataclass(frozen=True)
class NewKey:
    """A key just made. ``bearer`` is shown once and stored nowhere."""

    key: ApiKey
    bearer: str = field(repr=False)


@dataclass(frozen=True)
class Claim:
    """What a bearer text says, without its secret: this may be told to another process.

    ``digest`` is SHA-256 of the secret. Whoever sees it cannot use the key.
    """

    id: str
    digest: bytes = field(repr=False)

    @staticmethod
    def of(bearer: str) -> Claim | None:
        """The claim of a text, None where it has not the form of a key."""
        match = BEARER.fullmatch(bearer)
        return Claim(match[1], hashlib.sha256(match[2].encode()).digest()) if match else None


class KeyStore:
    """The key database of a gateway's folder, for its administrator. Makes what is missing, mode 0600.

    Raises ConfigError for any other folder, a party's among them, and for one that others may enter.
    """

    def __init__(self, folder: Path) -> None:
        open_gateway(folder)
        self._server_key = _server_key(folder)
        self._path = folder / DATABASE
        with self._open() as database:
            database.execute(_SCHEMA)

    def create(
        self,
        name: str,
        *,
        tenant: str = "default",
        per_minute: int = 600,
        tokens_per_day: int = 0,
        models: tuple[str, ...] = (),
        purposes: tuple[str, ...] = (),
        expires_ms: int | None = None,
    ) -> NewKey:
        """Make a key. Raises InputError for a malformed name, quota or date."""
        for what, text in (("name", name), ("tenant", tenant)):
            if not NAME.fullmatch(text):
                raise InputError(
                    f"a key's {what} has 1 to 63 letters, digits, spaces and ._@-",
                    remedy=f"choose another {what}",
                )
        if not 1 <= per_minute <= 1_000_000 or not 0 <= tokens_per_day < 1 << 53:
            raise InputError(
                "requests per minute go from 1 to 1,000,000, tokens per day from 0 (no limit)",
                remedy="choose another quota",
            )
        now = _now_ms()
        if expires_ms is not None and expires_ms <= now:
            raise InputError("the key would have expired already", remedy="name a later date")
        key = ApiKey(
            secrets.token_hex(8),
            name,
            tenant,
            now,
            expires_ms,
            None,
            per_minute,
            tokens_per_day,
            models,
            purposes,
        )
        secret = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        bearer = f"mpck_{key.id}_{secret}"
        claim = Claim.of(bearer)
        assert claim is not None
        row = (
            key.id, _mac(self._server_key, claim), name, tenant, now, expires_ms, None,
            per_minute, tokens_per_day, json.dumps(models), json.dumps(purposes),
        )  # fmt: skip
        with self._open() as database:
            database.execute(f"INSERT INTO keys VALUES ({','.join('?' * len(row))})", row)
        return NewKey(key, bearer)

    def list(self) -> tuple[ApiKey, ...]:
        """All keys ever made, oldest first, revoked ones too."""
        with self._open() as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_ms, id").fetchall()
        return tuple(map(_key, rows))

    def revoke(self, id: str) -> ApiKey:
        """Refuse a key from now on. Raises InputError if there is none of that id; again is harmless."""
        with self._open() as database:
            changed = database.execute(
                "UPDATE keys SET revoked_ms = COALESCE(revoked_ms, ?) WHERE id = ?", (_now_ms(), id)
            ).rowcount
            row = database.execute(f"SELECT {_COLUMNS} FROM keys WHERE id = ?", (id,)).fetchone()
        if not changed:
            raise InputError("no API key has this id", remedy="mpc-ray keys list-api shows the ids")
        return _key(row)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with _database(self._path) as database, database:
            yield database


class KeyRing:
    """The gateway's view of its keys. One thread at a time; ``clock`` counts seconds, ``now_ms`` tells the time."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        KeyStore(folder)  # makes what is missing
        self._server_key = _server_key(folder)
        self._database = _connect(folder / DATABASE)
        self._clock = clock
        self._now_ms = now_ms or _now_ms
        self._keys: dict[str, tuple[ApiKey, bytes]] = {}
        self._version = -1
        self._looked = float("-inf")

    def find(self, claim: Claim) -> ApiKey | None:
        """The valid key that is claimed, or None. Compares in constant time."""
        self._refresh()
        if claim.id not in self._keys:  # made a moment ago?
            self._refresh(at_once=True)
        known = self._keys.get(claim.id)
        mac = _mac(self._server_key, claim)
        same = hmac.compare_digest(mac, known[1] if known else _NOBODY)
        return known[0] if known and same and known[0].valid(self._now_ms()) else None

    def close(self) -> None:
        self._database.close()

    def _refresh(self, *, at_once: bool = False) -> None:
        now = self._clock()
        if now - self._looked < LOOK_AGAIN_S and not at_once:
            return
        self._looked = now
        # data_version changes when another connection has written, which costs microseconds to ask.
        version = self._database.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return
        rows = self._database.execute(f"SELECT {_COLUMNS}, mac FROM keys").fetchall()
        self._keys = {row[0]: (_key(row[:-1]), bytes(row[-1])) for row in rows}
        self._version = version


def _mac(server_key: bytes, claim: Claim) -> bytes:
    return hmac.digest(server_key, b"mpc-ray api key v1|" + claim.id.encode() + claim.digest, hashlib.sha256)


def _key(row: Any) -> ApiKey:
    """A row of ``_COLUMNS``."""
    *plain, models, purposes = row
    return ApiKey(*plain, tuple(json.loads(models)), tuple(json.loads(purposes)))  # type: ignore[call-arg]


def _server_key(folder: Path) -> bytes:
    """Read the key of the hash, made on first use. Refuses one that others can read."""
    path = folder / SERVER_KEY
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", remedy="check the folder's owner and mode") from None
    else:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"{path} can be read by others", remedy=f"chmod 600 {path}")
    key = path.read_bytes()
    if len(key) != 32:
        raise ConfigError(
            f"{path} does not hold 32 bytes", remedy="restore it; without it no API key is valid"
        )
    return key


def _connect(path: Path) -> sqlite3.Connection:
    try:
        if not path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        database = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA secure_delete = ON")
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        passes = code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
        raise (NotNow if passes else ConfigError)(
            f"{path}: {reason}", remedy="check the folder's owner, mode and free space"
        ) from None
    return database


@contextlib.contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    database = _connect(path)
    try:
        yield database
    except sqlite3.Error as error:
        raise ConfigError(f"{path}: {error}", remedy="check the disk, or restore the file") from None
    finally:
        database.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
