"""API keys: what is stored, what is compared, what is refused."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest
from gateways import federation

from mpc_ray.errors import ConfigError, InputError
from mpc_ray.serve.apikeys import BEARER, DATABASE, SERVER_KEY, ApiKey, Claim, KeyRing, KeyStore
from mpc_ray.trust.folder import request_gateway


def find(ring: KeyRing, bearer: str) -> ApiKey | None:
    claim = Claim.of(bearer)
    return ring.find(claim) if claim else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    request_gateway(tmp_path / "gw", name="one")
    return tmp_path / "gw"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_key_is_found_by_its_bearer_alone(folder: Path) -> None:
    store = KeyStore(folder)
    made = store.create("search service", tenant="acme", per_minute=7, models=("m",), purposes=("p", "q"))
    assert BEARER.fullmatch(made.bearer)
    ring = KeyRing(folder)
    assert find(ring, made.bearer) == made.key == store.list()[0]
    assert made.key.models == ("m",) and made.key.purposes == ("p", "q") and made.key.per_minute == 7
    other = store.create("other")
    swapped = f"mpck_{made.key.id}_{other.bearer[-43:]}"
    for wrong in (
        "",
        "mpck_",
        made.bearer[:-1],
        made.bearer + "A",
        swapped,
        other.bearer.replace("_", "-"),
        "x" * 300,
    ):
        assert find(ring, wrong) is None
    assert find(ring, other.bearer) == other.key
    ring.close()


def test_the_secret_is_not_stored_and_not_shown(folder: Path) -> None:
    made = KeyStore(folder).create("one")
    secret = made.bearer.rsplit("_", 1)[1] if made.bearer.count("_") == 2 else made.bearer[-43:]
    assert secret not in repr(made)
    kept = b"".join(path.read_bytes() for path in folder.iterdir())
    assert made.key.id.encode() in kept
    assert secret.encode() not in kept
    claim = Claim.of(made.bearer)
    assert claim is not None and claim.digest == hashlib.sha256(secret.encode()).digest()
    assert claim.digest not in kept, "a hash without the server's key"
    assert claim.digest.hex() not in repr(claim) and repr(claim.digest)[2:-1] not in repr(claim)
    for name in (DATABASE, SERVER_KEY):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_the_hash_depends_on_the_servers_key(folder: Path) -> None:
    made = KeyStore(folder).create("one")
    (folder / SERVER_KEY).write_bytes(bytes(32))
    assert find(KeyRing(folder), made.bearer) is None


def test_revocation_and_expiry_reach_a_running_gateway(folder: Path) -> None:
    store, clock, now = KeyStore(folder), Clock(), [1_000_000]
    ring = KeyRing(folder, clock=clock, now_ms=lambda: now[0])
    made = store.create("one")
    assert find(ring, made.bearer), "a key made a moment ago is known at once"
    revoked = store.revoke(made.key.id)
    assert revoked.revoked_ms is not None
    clock.now += 1.1
    assert find(ring, made.bearer) is None
    assert store.revoke(made.key.id) == revoked, "again changes nothing"

    later = store.create("two", expires_ms=1 << 50)
    assert find(ring, later.bearer)
    now[0] = 1 << 50
    assert find(ring, later.bearer) is None
    ring.close()


def test_what_is_refused(folder: Path) -> None:
    store = KeyStore(folder)
    for name in ("", "a" * 64, "line\nbreak", "-x"):
        with pytest.raises(InputError, match="name"):
            store.create(name)
    with pytest.raises(InputError, match="requests per minute"):
        store.create("a", per_minute=0)
    with pytest.raises(InputError, match="expired already"):
        store.create("a", expires_ms=1)
    with pytest.raises(InputError, match="no API key"):
        store.revoke("0" * 16)
    (folder / SERVER_KEY).chmod(0o640)
    with pytest.raises(ConfigError, match="read by others"):
        KeyRing(folder)
    (folder / SERVER_KEY).chmod(0o600)
    (folder / SERVER_KEY).write_bytes(b"short")
    with pytest.raises(ConfigError, match="32 bytes"):
        KeyStore(folder)


def test_only_a_gateways_folder_gets_keys(folder: Path, tmp_path: Path) -> None:
    """Nothing is left in a folder that was named by mistake, and a gateway's must be closed to others."""
    made = federation(tmp_path / "f", ("eu",)).folder.parent
    empty = tmp_path / "empty"
    empty.mkdir(0o700)
    for wrong, match in (
        (made / "eu0", "folder of party eu/0"),
        (empty, "not the folder of a party or gateway"),
        (tmp_path / "none", "none cannot be read"),
    ):
        for make in (KeyStore, KeyRing):
            with pytest.raises(ConfigError, match=match):
                make(wrong)
        assert not list(wrong.glob("keys.*"))
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="mode 0755"):
        KeyStore(folder)
    assert not (folder / DATABASE).exists()


def test_a_damaged_database_is_named(folder: Path) -> None:
    (folder / DATABASE).write_bytes(b"this is no database at all, but long enough to look like one" * 20)
    with pytest.raises(ConfigError, match=r"keys\.sqlite"):
        KeyStore(folder)
