"""What is wrong at the start has a name within seconds, before any Ray or slot was started; and what is waited for."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster import (  # type: ignore[import-not-found]
    PROGRAM,
    FederationFolders,
    environ,
    free_ports,
    make_federation,
)

from mpc_ray.endpoint import front as front_module
from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.endpoint.front import Front
from mpc_ray.endpoint.standing import read
from mpc_ray.errors import CertificateError, ConfigError, MpcError, NotNow
from mpc_ray.trust.authority import FederationAuthority
from mpc_ray.trust.folder import install, request_party

DAY_S = 86_400


class NoHost:
    """No slots are started: these tests end before, or look at what is waited for."""

    said = why = ""

    def __init__(self, *given: Any) -> None:
        del given

    def lost(self, name: str) -> None:
        raise AssertionError

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "Hosting", NoHost)


@pytest.fixture
def known(tmp_path: Path) -> FederationFolders:
    return make_federation(tmp_path / "f")


def config(folder: Path, **changes: Any) -> PartyConfig:
    values: dict[str, Any] = {
        "folder": folder,
        "host": "process",
        "peer": {"host": "127.0.0.1", "port": 0},
        "gateway": {"host": "127.0.0.1", "port": 0},
    }
    return PartyConfig(**(values | changes))


@contextlib.contextmanager
def running(settings: PartyConfig) -> Iterator[Front]:
    front = Front(settings)
    try:
        yield front
    finally:
        front.close()


def fails(settings: PartyConfig, kind: type[MpcError], match: str) -> MpcError:
    began = time.monotonic()
    with pytest.raises(kind, match=match) as caught:
        Front(settings)
    assert time.monotonic() - began < 3
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("port", ["peer", "gateway"])
def test_a_port_in_use(known: FederationFolders, port: str) -> None:
    folder = known.folders["eu"][0]
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = {"host": "127.0.0.1", "port": server.getsockname()[1]}
        fails(config(folder, **{port: taken}), NotNow, f"port {taken['port']} on 127.0.0.1 is in use")
    with running(config(folder)):  # whatever was made before it failed was let go of
        pass


def test_a_party_whose_directory_has_expired_is_not_ready_until_there_is_a_newer_one(
    known: FederationFolders,
) -> None:
    with running(config(known.folders["eu"][0])) as front:
        assert not any("directory" in why for why in front.waiting())
        now = front._watch.now
        front._watch.now = replace(now, directory=replace(now.directory, expires=int(time.time())))
        assert any("its directory expired at" in why for why in front.waiting())
        assert front.status()["ready"] is False


def test_a_folder_in_use(known: FederationFolders) -> None:
    folder = known.folders["eu"][0]
    with running(config(folder)):
        again = fails(config(folder), NotNow, "another mpc-ray party runs on")
    assert again.exit_code == 75, "it may just be ending: who supervises this one starts it again"


def test_a_folder_that_others_may_enter(known: FederationFolders) -> None:
    folder = known.folders["eu"][0]
    folder.chmod(0o750)
    assert "chmod" in fails(config(folder), ConfigError, "mode 0750").remedy


def test_a_gateways_folder(known: FederationFolders) -> None:
    fails(config(known.gateway), ConfigError, "is a gateway's folder")


def test_no_certificate_yet(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    request(folder)
    assert "certs install" in fails(config(folder), ConfigError, "has no certificate yet").remedy


@pytest.mark.parametrize(("days", "how"), [(-200, "expired at"), (3, "is not valid before")])
def test_a_certificate_of_another_time(tmp_path: Path, days: int, how: str) -> None:
    """Made 200 days ago it has expired; made in three days, by this machine's clock, it is not valid yet."""
    now = time.time() + days * DAY_S
    authority = FederationAuthority.init(tmp_path / "ca", "test", now=now)
    folders = [tmp_path / name for name in ("a", "b", "c")]
    ports = free_ports(("eu",))
    requests = [request(folder, index, now, ports["eu", index][:2]) for index, folder in enumerate(folders)]
    directory = authority.sign(requests, now=now)
    for folder in folders:
        install(folder, directory, fingerprint=authority.fingerprint, now=now)
    error = fails(config(folders[0]), CertificateError, how)
    assert "clock" in error.remedy and "clock says" in error.cause
    assert read(folders[0], now).me == 0


def test_a_damaged_key_file(known: FederationFolders) -> None:
    folder = known.folders["eu"][0]
    (folder / "hpke.keys").write_text("{}")
    fails(config(folder), ConfigError, "hpke.keys")


def test_enrolled_clients_that_somebody_changed(known: FederationFolders) -> None:
    folder = known.folders["eu"][0]
    content = json.loads((folder / "clients.json").read_text())
    content["clients"][0]["name"] = "eve"
    (folder / "clients.json").write_text(json.dumps(content, separators=(",", ":"), sort_keys=True))
    fails(config(folder), ConfigError, "changed by somebody else")


def test_what_it_waits_for(known: FederationFolders) -> None:
    with running(config(known.folders["eu"][0])) as front:
        end = time.monotonic() + 5
        while "models: none here yet" not in " ".join(front.waiting()) and time.monotonic() < end:
            time.sleep(0.05)
        waits = front.waiting()
        assert waits[0] == "slots: starting" and waits[1].startswith("models: none here yet")
        assert [why[:7] for why in waits[2:]] == ["party 1", "party 2"]
        status = front.status()
        assert status["ready"] is False and status["waiting"] == waits and status["slots"]["total"] == 0


def test_the_program_says_it_in_one_line_and_an_exit_code(known: FederationFolders, tmp_path: Path) -> None:
    """As an operator sees it: an unknown setting, by name."""
    path = tmp_path / "party.yaml"
    path.write_text(f"folder: {known.folders['eu'][0]}\nslotz: 2\n")
    done = subprocess.run(
        [*PROGRAM, "party", "--config", str(path), "--json"],
        env=environ(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    said = json.loads(done.stdout)
    assert (said["error"], said["exit_code"]) == ("ConfigError", 2) and "slotz" in said["cause"]
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def request(
    folder: Path, index: int = 0, now: float | None = None, ports: tuple[int, int] = (50051, 50052)
) -> Any:
    return request_party(
        folder,
        set="eu",
        index=index,
        operator=folder.name,
        region="eu-west-1",
        jurisdiction="IE",
        peer=f"127.0.0.1:{ports[0]}",
        gateway=f"127.0.0.1:{ports[1]}",
        now=now,
    )
