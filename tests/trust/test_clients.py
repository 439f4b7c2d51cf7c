"""Enrolled keys: signed by the party, seen at once, and never taken from a file that somebody else wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from mpc_ray.errors import AuthorisationError, ConfigError, InputError
from mpc_ray.trust import certs
from mpc_ray.trust.authorisation import SigningKey
from mpc_ray.trust.clients import ClientKeys, parse_public

OWN: ec.EllipticCurvePrivateKey = certs.new_key()
APP = SigningKey.generate()


def opened(folder: Path, key: ec.EllipticCurvePrivateKey = OWN) -> ClientKeys:
    return ClientKeys(folder / "clients.json", lambda: (key, ()))


def code_of(attempt: Callable[[], object]) -> str:
    with pytest.raises(AuthorisationError) as caught:
        attempt()
    return caught.value.code


def test_enrol_find_revoke(tmp_path: Path) -> None:
    keys = opened(tmp_path)
    assert keys.list() == () and code_of(lambda: keys.find(APP.id)) == "unknown_key"
    made = keys.enrol("app", APP.public, now=5)
    assert (made.id, made.name, made.enrolled, made.revoked) == (APP.id, "app", 5, 0)
    assert keys.find(APP.id) == APP.public == opened(tmp_path).find(APP.id)
    keys.enrol("zoo", SigningKey.generate().public)
    assert [client.name for client in opened(tmp_path).list()] == ["app", "zoo"]
    assert keys.revoke(APP.id).revoked
    assert code_of(lambda: opened(tmp_path).find(APP.id)) == "revoked_key"
    with pytest.raises(InputError, match="was revoked"):
        keys.enrol("again", APP.public)
    keys.enrol("app", SigningKey.generate().public)


def test_a_running_party_sees_a_change_at_once(tmp_path: Path) -> None:
    running, other = opened(tmp_path), opened(tmp_path)
    assert code_of(lambda: running.find(APP.id)) == "unknown_key"
    other.enrol("app", APP.public)
    assert running.find(APP.id) == APP.public
    other.revoke("app")
    assert code_of(lambda: running.find(APP.id)) == "revoked_key"


def test_what_cannot_be_enrolled(tmp_path: Path) -> None:
    keys = opened(tmp_path)
    keys.enrol("app", APP.public)
    for name, public in (
        ("app", os.urandom(32)),
        ("b", APP.public),
        ("A b", os.urandom(32)),
        ("b", b"short"),
    ):
        with pytest.raises(InputError):
            keys.enrol(name, public)
    for name in ("nobody", ""):
        with pytest.raises(InputError):
            keys.revoke(name)
    assert len(keys.list()) == 1
    assert parse_public(f" {APP.public.hex()}\n") == APP.public
    for text in ("", "ab", APP.public.hex().upper() + "g", APP.id):
        with pytest.raises(InputError):
            parse_public(text)


def _add(value: dict[str, Any]) -> None:
    mallory = SigningKey.generate()
    value["clients"].append(
        {"id": mallory.id, "name": "m", "public": mallory.public.hex(), "enrolled": 1, "revoked": 0}
    )


def _unrevoke(value: dict[str, Any]) -> None:
    value["clients"][0]["revoked"] = 0


def _swap(value: dict[str, Any]) -> None:
    value["clients"][0]["public"] = SigningKey.generate().public.hex()


@pytest.mark.parametrize(
    "change",
    [
        _add, _unrevoke, _swap, lambda v: v.update(serial=9), lambda v: v.update(signature=""), lambda v: v.update(x=1),
        lambda v: v.pop("signature"), lambda v: v["clients"].clear(),
    ],
)  # fmt: skip
def test_a_file_that_somebody_changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    keys, path = opened(tmp_path), tmp_path / "clients.json"
    keys.enrol("app", APP.public)
    keys.revoke("app")
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    for attempt in (
        lambda: keys.find(APP.id),
        lambda: opened(tmp_path),
        lambda: keys.enrol("b", os.urandom(32)),
    ):
        with pytest.raises(ConfigError, match=r"clients\.json"):
            attempt()


def test_another_party_s_file(tmp_path: Path) -> None:
    opened(tmp_path).enrol("app", APP.public)
    with pytest.raises(ConfigError, match="not signed by this party's key"):
        opened(tmp_path, certs.new_key())


def test_an_older_file_does_not_bring_a_revoked_key_back(tmp_path: Path) -> None:
    keys, path = opened(tmp_path), tmp_path / "clients.json"
    keys.enrol("app", APP.public)
    old = path.read_bytes()
    keys.revoke("app")
    path.write_bytes(old)
    with pytest.raises(ConfigError, match="older"):
        keys.find(APP.id)
    path.unlink()
    with pytest.raises(ConfigError, match="gone"):
        keys.find(APP.id)


def test_damaged_files(tmp_path: Path) -> None:
    for content in (b"", b"{}", b"[" * 100_000, b"\xff", b"[" * ((1 << 20) + 1)):
        (tmp_path / "clients.json").write_bytes(content)
        with pytest.raises(ConfigError):
            opened(tmp_path)
