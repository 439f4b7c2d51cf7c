"""``mpc-ray doctor``: what it finds, and what it says when something is missing."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mpc_ray.cli import checks, doctor

ROOT = Path(__file__).parents[2]


def test_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least, pinned = {}, {}
    for line in [*project["dependencies"], *project["optional-dependencies"]["server"]]:
        match = re.fullmatch(r"([\w-]+)(?:\[[\w,]+\])?(>=|==)([\d.]+)", line)
        assert match is not None, line
        (least if match[2] == ">=" else pinned)[match[1]] = match[3]
    assert least == checks.LEAST
    assert pinned == {"ray": checks.PINNED_RAY}
    assert set(checks.MODULES) == {*least, *pinned}
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"torch=={checks.TESTED_TORCH}\n" in constraints


def test_json(cli: Any, tiny: Path) -> None:
    ended = cli("doctor", "--json", "--model", tiny)
    said = ended.json
    statuses = {check["name"]: check["status"] for check in said["checks"]}
    assert {"Python", "torch", "settings", "CPU", "model", "calibration", "memory", "disk"} <= set(statuses)
    assert {"/dev/shm", "ports", "TLS", "clock"} <= set(statuses)
    assert set(statuses.values()) <= {"ok", "warn", "fail"}
    assert said["ok"] is ("fail" not in statuses.values())
    assert ended.code == (0 if said["ok"] else 1)
    for check in said["checks"]:
        assert check["status"] == "ok" or check["remedy"], check


def test_what_fails_is_said_and_is_the_exit_code(
    cli: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPC_LAUNCHR", "ray")
    ended = cli("doctor", "--model", tiny)
    assert ended.code == 1
    assert "fail" in ended.out
    assert "did you mean MPC_LAUNCHER?" in ended.out
    assert "1 failed: settings" in ended.out or "failed: packages, settings" in ended.out
    assert "Traceback" not in ended.err


def test_missing_and_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    right = importlib.metadata.version

    def version(name: str) -> str:
        if name == "tokenizers":
            raise importlib.metadata.PackageNotFoundError(name)
        return {"numpy": "1.20.1", "torch": "2.12.0+cpu", "ray": "2.50.0"}.get(name) or right(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = {check.detail: check for check in checks.packages()}
    details = " | ".join(found)
    assert "missing: tokenizers" in details
    assert "numpy 1.20.1 (needs 1.26)" in details
    assert found["2.12.0+cpu; the tests ran with 2.13.0"].status == "warn"
    assert all(check.remedy for check in found.values())


def test_a_package_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("libcudart.so.13: cannot open\nshared object file")

    monkeypatch.setattr("importlib.import_module", fail)
    check = checks.imports()
    assert check.status == "fail"
    assert "libcudart.so.13: cannot open shared object file" in check.detail


def test_the_model(broken: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh"))
    stored = broken / "mpc_ray_calibration.json"
    stored.unlink(missing_ok=True)
    fits, calibration = checks.model(str(broken))
    assert fits.status == "ok"
    assert "2 layers" in fits.detail
    assert calibration.status == "ok"
    assert "none stored" in calibration.detail
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert checks.model(str(broken))[1].status == "fail"
    stored.write_text("{}")
    assert "stored in" in checks.model(str(broken))[1].detail
    (broken / "config.json").unlink()
    (missing,) = checks.model(str(broken))
    assert (missing.status, bool(missing.remedy)) == ("warn", True)


def test_cuda_asked_for_where_there_is_none() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert checks.gpu("cpu").status == "ok"
    assert checks.gpu("cuda").status == "fail"


def test_little_memory_disk_and_a_wrong_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    class Little:
        available = 1 << 30

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    assert checks.memory().status == "fail"

    class Usage:
        total, used, free = 100 << 30, 99 << 30, 1 << 30

    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage)
    assert checks.disk().status == "warn"
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert checks.clock().status == "fail"


def test_a_loopback_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **named: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr("socket.create_server", refuse)
    check = checks.loopback()
    assert check.status == "fail"
    assert "Address already in use" in check.detail


def test_ray_is_tried_when_asked_for(cli: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpc_ray.errors import PlacementError

    pytest.importorskip("ray")

    def fail(config: object) -> str:
        raise PlacementError("the cluster cannot hold three parties", remedy="add a node")

    monkeypatch.setattr(doctor, "_start", fail)
    ended = cli("doctor", "--ray", "--model", tiny, "--json")
    assert ended.code == 1
    assert ended.json["checks"][-1] == {
        "name": "Ray",
        "status": "fail",
        "detail": "the cluster cannot hold three parties",
        "remedy": "add a node",
    }


def test_version_numbers() -> None:
    assert checks._numbers("2.13.0+cpu") == (2, 13, 0)
    assert checks._numbers("0.60rc1") == (0,)
    assert checks._numbers("10.2") > checks._numbers("9.9")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe", "cannot be read: is not UTF-8"),
        (b"a: [", "is no YAML (line 1)"),
        (b"- a", "holds no mapping"),
        (b"a: 1\na: 2\n", "line 2: a is given twice"),
        (b"a: 1\n", "provider.type names no provider"),
    ],
)
def test_a_file_that_is_no_cluster_has_a_remedy(
    cli: Any, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "cluster.yaml"
    if content is not None:
        path.write_bytes(content)
    ended = cli("doctor", "--cluster", path, "--json")
    assert ended.code == 1
    failed = [check for check in ended.json["checks"] if check["status"] == "fail"]
    assert said in failed[0]["detail"]
    assert all(check["remedy"] for check in failed)
    assert not [
        check for check in failed if "Errno" in check["detail"] or check["detail"].strip("'") == "provider"
    ]
