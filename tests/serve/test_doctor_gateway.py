"""``mpc-ray doctor --gateway``: what is wrong with a gateway or its parties has a name and a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gateways import MODEL, federation, public_certificate

from mpc_ray.channel.link import Message
from mpc_ray.cli import gateway_checks
from mpc_ray.cli.checks import Check
from mpc_ray.cli.main import app
from mpc_ray.errors import CertificateError
from mpc_ray.serve.apikeys import KeyStore


def checks(root: Path, **settings: Any) -> dict[str, Check]:
    path = root / "gateway.yaml"
    path.write_text(json.dumps({"folder": "gw", **settings}))
    return {check.name: check for check in gateway_checks.looked_at(path)}


class Fronts:
    """What each party answers to ``status``; an error is raised."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says: dict[str, Any] = {}
        monkeypatch.setattr(gateway_checks, "dial_endpoint", self.dial)
        monkeypatch.setattr(gateway_checks, "ask", lambda link, message, timeout: link.answer)

    def dial(self, record: Any, *_: Any, **__: Any) -> Any:
        said = self.says.get(record.place, {})
        if isinstance(said, Exception):
            raise said
        known = {"party": record.index, "set": record.set, "ready": True, "version": "1", "models": [MODEL]}

        class Link:
            answer = Message(known | said)

            def close(self) -> None:
                pass

        return Link()


def test_nobody_is_there_and_no_key_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_checks, "REACH_S", 0.5)
    made = federation(tmp_path, ("eu",))
    found = checks(tmp_path)
    assert [found[name].status for name in ("certificate", "folder", "directory")] == ["ok"] * 3
    assert "gateway/one of example" in found["folder"].detail
    assert found["API keys"].status == "warn" and "keys create" in found["API keys"].remedy
    assert not (made.folder / "keys.hmac").exists(), "looking leaves nothing"
    for index in range(3):
        party = found[f"party eu/{index}"]
        assert party.status == "fail" and "operator-eu-" in party.remedy and "firewall" in party.remedy
    KeyStore(made.folder)
    assert checks(tmp_path)["API keys"].status == "ok"


def test_what_parties_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    federation(tmp_path)
    fronts = Fronts(monkeypatch)
    assert {check.status for name, check in checks(tmp_path).items() if name != "API keys"} == {"ok"}
    fronts.says["eu/0"] = {"ready": False, "waiting": ["slots: starting"]}
    fronts.says["eu/1"] = {"models": [MODEL | {"digest": "1" * 64}]}
    fronts.says["us/2"] = CertificateError("another authority", remedy="compare")
    found = checks(tmp_path)
    assert found["party eu/0"].status == "warn" and "slots: starting" in found["party eu/0"].detail
    assert found["set eu"].status == "fail" and "no model in common" in found["set eu"].detail
    assert found["party us/2"] == Check("party us/2", "fail", "another authority", "compare")
    assert "set us" not in found, "of two parties nothing is said of the three"
    fronts.says["eu/1"] = {"models": [MODEL, MODEL | {"name": "more"}]}
    both = [check for check in _all(tmp_path) if check.name == "set eu"]
    assert [check.status for check in both] == ["warn", "ok"] and "more" in both[0].detail


def _all(root: Path) -> list[Check]:
    return list(gateway_checks.looked_at(root / "gateway.yaml"))


def test_certificates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Fronts(monkeypatch)
    federation(tmp_path / "own", expired=("gateway/one", "eu/0"))
    found = checks(tmp_path / "own")
    assert found["certificate"].status == "fail" and "certs rotate" in found["certificate"].remedy
    assert found["set eu"].status == "fail" and "party eu/0 has expired" in found["set eu"].detail
    assert found["set us"].status == "warn" and "party us/0" not in found
    made = federation(tmp_path / "https", ("eu",))
    good, old = public_certificate(tmp_path, "good", 60), public_certificate(tmp_path, "old", -1)
    for (certificate, key), status in ((good, "ok"), (old, "fail"), ((good[0], old[1]), "fail")):
        https = {"certificate": str(certificate), "key": str(key)}
        assert checks(tmp_path / "https", https=https)["https"].status == status
    certificate.write_text("none")
    assert "holds no certificate" in checks(tmp_path / "https", https=https)["https"].detail
    made.folder.chmod(0o755)
    assert "chmod 0700" in checks(tmp_path / "https")["folder"].remedy


def test_settings(tmp_path: Path) -> None:
    federation(tmp_path, ("eu",))
    assert "prot is not a setting" in checks(tmp_path, prot=1)["settings"].detail
    assert "folder of party eu/0" in checks(tmp_path, folder="eu0")["folder"].detail
    assert "no whole set mars" in checks(tmp_path, sets=[{"name": "mars"}])["sets"].detail


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import typer

    Fronts(monkeypatch)
    federation(tmp_path, ("eu",))
    checks(tmp_path)
    command = typer.main.get_command(app)
    assert command.main(
        ["doctor", "--gateway", str(tmp_path / "gateway.yaml"), "--json"], standalone_mode=False
    ) in (0, None)
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] and {check["name"] for check in said["checks"]} >= {"set eu", "party eu/2"}
