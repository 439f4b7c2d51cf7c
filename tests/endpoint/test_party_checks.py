"""``mpc-ray doctor --party``: what is wrong with a folder or between parties has a name and a remedy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from cluster import (  # type: ignore[import-not-found]
    FederationFolders,
    Three,
    free_ports,
    make_federation,
)

from mpc_ray.channel.hello import Digests, Hello, digest
from mpc_ray.cli import party_checks
from mpc_ray.cli.checks import Check
from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.endpoint.peers import FRONTS, Peers
from mpc_ray.endpoint.slots import Slots
from mpc_ray.endpoint.standing import read

Start = Callable[..., Peers]


class NoSlots:
    def of(self, session: bytes) -> None:
        return None


@pytest.fixture
def ports() -> dict[tuple[str, int], tuple[int, int, int]]:
    return dict(free_ports(("eu",)))


@pytest.fixture
def known(tmp_path: Path, ports: Any) -> FederationFolders:
    return make_federation(tmp_path / "f", ("eu",), ports)


@pytest.fixture
def start(known: FederationFolders, ports: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """The peers' part of party ``index``'s front, by itself."""
    monkeypatch.setattr(party_checks, "REACH_S", 0.5)
    made: list[Peers] = []

    def start(index: int, folder: Path | None = None, said: Callable[[], dict[str, Any]] = dict) -> Peers:
        standing = read(folder or known.folders["eu"][index])
        agreed = PartyConfig(folder=Path("x")).agreed()
        port = ports["eu", index][0]
        peers = Peers(
            "127.0.0.1", port, standing, agreed, os.urandom(16), cast(Slots, NoSlots()), said, lambda e: None
        )
        peers.start()
        made.append(peers)
        return peers

    yield start
    for peers in made:
        peers.close()


def checks(folder: Path, **settings: Any) -> dict[str, Check]:
    path = folder.parent / "party.yaml"
    path.write_text(yaml.safe_dump({"folder": str(folder), "host": "process", **settings}))
    return {check.name: check for check in party_checks.looked_at(path)}


def test_all_is_well_with_three_running_parties(endpoints: Three) -> None:
    found = {c.name: c for c in party_checks.looked_at(endpoints.config("eu", 1))}
    assert {name: check.status for name, check in found.items() if name != "memory"} == {
        "settings": "ok",
        "certificate": "ok",
        "folder": "ok",
        "directory": "ok",
        "clients": "ok",
        "models": "ok",
        "GPU": "ok",
        "party 0": "ok",
        "party 1, here": "ok",
        "party 2": "ok",
        "gateways": "ok",
    }
    assert "release" in found["party 0"].detail
    assert endpoints.status("eu", 0)["ready"]  # asking took nobody's place


def test_nobody_is_there(known: FederationFolders, start: Start) -> None:
    found = checks(known.folders["eu"][0])
    assert [found[name].status for name in ("party 0, here", "party 1", "gateways")] == ["warn"] * 3
    assert "not reached" in found["party 1"].detail and "firewall" in found["party 1"].remedy
    assert found["models"].status == "fail" and "model import" in found["models"].remedy


def test_a_device_that_is_not_here(known: FederationFolders, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(party_checks, "REACH_S", 0.1)
    found = checks(known.folders["eu"][0], device="cuda")["GPU"]
    assert found.status == "fail" and "device cuda" in found.detail and "device: cpu" in found.remedy
    assert checks(known.folders["eu"][0])["GPU"].status == "ok"


def test_another_authority(known: FederationFolders, start: Start, tmp_path: Path, ports: Any) -> None:
    other = make_federation(tmp_path / "other", ("eu",), ports)
    start(1, other.folders["eu"][1])
    found = checks(known.folders["eu"][0])["party 1"]
    assert found.status == "fail" and "another authority" in found.detail


def test_another_release(known: FederationFolders, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    start(1)
    other = Hello(FRONTS, Digests(version=digest(b"0.0.9"), configuration=bytes(32)))
    monkeypatch.setattr(party_checks, "fronts_hello", lambda configuration: other)
    found = checks(known.folders["eu"][0])["party 1"]
    assert found.status == "fail" and "version" in found.detail and "same release" in found.remedy


@pytest.mark.parametrize(("seconds", "status"), [(7200, "fail"), (-7200, "fail"), (10, "warn"), (0, "ok")])
def test_a_clock(known: FederationFolders, start: Start, seconds: int, status: str) -> None:
    start(1, said=lambda: {"time_ms": time.time_ns() // 1_000_000 + seconds * 1000})
    found = checks(known.folders["eu"][0])["party 1"]
    assert found.status == status, found
    assert ("clock" in found.detail) is (status != "ok")


def test_a_model_of_another_run_of_share(endpoints: Three, monkeypatch: pytest.MonkeyPatch) -> None:
    real = party_checks.ModelStore.list

    def other(store: Any) -> list[Any]:
        return [replace(m, digest="ab" * 32) for m in real(store)]

    monkeypatch.setattr(party_checks.ModelStore, "list", other)
    found = {c.name: c for c in party_checks.looked_at(endpoints.config("eu", 1))}["party 2"]
    assert found.status == "warn" and "another version of tiny" in found.detail


def test_what_is_wrong_with_the_folder(known: FederationFolders, tmp_path: Path) -> None:
    folder = known.folders["eu"][0]
    folder.chmod(0o755)
    assert "chmod 0700" in checks(folder)["folder"].remedy
    folder.chmod(0o700)
    (folder / "tls.key").chmod(0o644)
    assert "others on this machine may read it" in checks(folder)["folder"].detail
    (folder / "tls.key").chmod(0o600)
    (folder / "hpke.keys").unlink()
    assert checks(folder)["folder"].status == "fail"
    assert "is a gateway's folder" in checks(known.gateway)["folder"].detail
    assert "slotz" in checks(folder, slotz=1)["settings"].detail


def test_too_little_memory(known: FederationFolders, start: Start) -> None:
    found = checks(known.folders["eu"][0], slots=64, limits={"held_bytes": 1 << 40})["memory"]
    assert found.status == "warn" and "fewer slots" in found.remedy
