"""The host of the slots is started again whatever was wrong; the party ends where nothing can be started any more."""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cluster import wait_until  # type: ignore[import-not-found]

from mpc_ray.endpoint import host
from mpc_ray.endpoint import hosting as hosting_module
from mpc_ray.endpoint.config import PartyConfig
from mpc_ray.endpoint.hosting import Hosting
from mpc_ray.errors import ChannelError, DeviceError, MpcError


def slots_at(path: Path) -> Any:
    path.touch()
    return SimpleNamespace(path=path, drop_all=lambda: None, overdue=lambda after_s: [])


def test_a_host_that_cannot_be_started_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[object] = []

    def no_process(*given: Any, **named: Any) -> None:
        tries.append(named)
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    monkeypatch.setattr(hosting_module, "SHORTEST_S", 0.01)
    failed: list[MpcError] = []
    made = Hosting(
        PartyConfig(folder=tmp_path, host="process"),
        "eu",
        0,
        tmp_path,
        slots_at(tmp_path / "s"),
        failed.append,
    )
    assert wait_until(lambda: len(tries) >= 3, 10)
    assert "temporarily unavailable" in made.why and not failed
    made.close()


def test_no_other_token_than_its_own_reaches_the_partys_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray prefers RAY_AUTH_TOKEN to a file: the launcher's token would open the party's own cluster."""
    given: list[dict[str, str]] = []

    def no_process(*_: Any, env: dict[str, str], **named: Any) -> None:
        given.append(env)
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "ab" * 32)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    slots = slots_at(tmp_path / "s")
    made = Hosting(PartyConfig(folder=tmp_path, host="ray"), "eu", 0, tmp_path, slots, lambda error: None)
    assert wait_until(lambda: bool(given), 5)
    made.close()
    assert given[0]["RAY_AUTH_MODE"] == "token" and given[0]["RAY_AUTH_TOKEN_PATH"].endswith("/h0/token")
    assert not {"RAY_AUTH_TOKEN", "RAY_ADDRESS"} & given[0].keys()


def test_a_party_whose_temporary_folder_was_removed_ends(tmp_path: Path) -> None:
    """Nothing can reach its socket any more: who supervises it starts it again."""
    home = tmp_path / "home"
    home.mkdir()
    slots = slots_at(home / "slots")
    shutil.rmtree(home)
    failed: list[MpcError] = []
    made = Hosting(PartyConfig(folder=tmp_path, host="process"), "eu", 0, home, slots, failed.append)
    assert wait_until(lambda: bool(failed), 5)
    assert isinstance(failed[0], ChannelError) and failed[0].exit_code not in (0, 2, 3, 6)
    made.close()


@pytest.mark.parametrize("kind", ["process", "ray"])
def test_a_device_that_is_not_here_is_refused_before_any_slot(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="no usable GPU"):
        host._host({"kind": kind, "device": "cuda", "address": ""})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_party_without_its_device_ends(tmp_path: Path) -> None:
    """Its processes would otherwise end one by one, and be started again for ever."""
    failed: list[MpcError] = []
    settings = PartyConfig(folder=tmp_path, host="process", device="cuda")
    made = Hosting(settings, "eu", 0, tmp_path, slots_at(tmp_path / "s"), failed.append)
    assert wait_until(lambda: bool(failed), 60)
    made.close()
    assert isinstance(failed[0], DeviceError) and failed[0].exit_code == 6
