"""A gateway looks at itself before it serves: its folder is a gateway's, its certificates are valid."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateways import DAY_S, Fake, Running, config, federation, public_certificate, renew

from mpc_ray.errors import CertificateError, ConfigError
from mpc_ray.serve import driver
from mpc_ray.serve.config import GatewayConfig, Https
from mpc_ray.serve.host import Server, application, tls_context
from mpc_ray.serve.leaders import leaders, sets_to_lead
from mpc_ray.serve.published import Published
from mpc_ray.trust.folder import request_gateway


def on_ray(settings: GatewayConfig) -> Any:
    with driver.triples_on_ray(settings):
        raise AssertionError


def build(settings: GatewayConfig) -> Any:
    with warnings.catch_warnings():  # Ray's own, about its own
        warnings.simplefilter("ignore")
        from mpc_ray.serve.deployments import build as serve_build

    file = settings.folder.parent / "gateway.yaml"
    file.write_text(json.dumps({"folder": str(settings.folder)}))
    return serve_build({"config": str(file)})


STARTS = (application, leaders, on_ray, build)


@pytest.mark.parametrize("start", STARTS)
def test_an_expired_certificate(tmp_path: Path, start: Callable[[GatewayConfig], Any]) -> None:
    made = federation(tmp_path, ("eu",), expired=("gateway/one",))
    with pytest.raises(
        CertificateError, match=r"of this gateway \(gateway/one\) expired at .* clock says"
    ) as caught:
        start(config(made))
    assert "certs rotate" in caught.value.remedy
    assert not (made.folder / "keys.sqlite").exists()
    renew(tmp_path, "gw")
    assert [one.name for one in sets_to_lead(config(made))] == ["eu"]


@pytest.mark.parametrize("start", STARTS)
def test_a_partys_folder(tmp_path: Path, start: Callable[[GatewayConfig], Any]) -> None:
    made = federation(tmp_path, ("eu",))
    before = sorted((tmp_path / "eu0").iterdir())
    wrong = config(made).model_copy(update={"folder": tmp_path / "eu0"})
    with pytest.raises(ConfigError, match="is the folder of party eu/0") as caught:
        start(wrong)
    assert "gateway's folder" in caught.value.remedy
    assert sorted((tmp_path / "eu0").iterdir()) == before, "nothing is left there"
    with pytest.raises(ConfigError, match="is the folder of party eu/0"):
        Published.load(tmp_path / "eu0")


def test_no_certificate_yet(tmp_path: Path) -> None:
    request_gateway(tmp_path / "gw", name="one")
    with pytest.raises(ConfigError, match=r"has no ca\.pem yet"):
        sets_to_lead(GatewayConfig(folder=tmp_path / "gw"))


@pytest.mark.parametrize("days", [-1, 1])
def test_the_certificate_that_clients_see(tmp_path: Path, days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = federation(tmp_path, ("eu",))
    files = public_certificate(tmp_path, "public", days)
    seen = config(made).model_copy(update={"https": Https(certificate=files[0], key=files[1])})
    app = application(seen, {"eu": Fake("eu")})
    if days > 0:
        assert Server(seen, app)
        return
    for start in (lambda: Server(seen, app), lambda: tls_context(*files)):
        with pytest.raises(CertificateError, match=r"that clients see, .* expired at"):
            start()
    monkeypatch.setattr(driver, "joined", lambda _: pytest.fail("before any Ray is started"))
    with pytest.raises(CertificateError, match="that clients see"):
        driver.serve_on_ray(seen, print)


def test_metrics_say_when_what_ends(tmp_path: Path) -> None:
    """Three certificates of its own, each by its name, and every party's, also of a set that does not answer."""
    made = federation(tmp_path, expired=("eu/0",))
    files = public_certificate(tmp_path, "public", 7)
    settings = config(made).model_copy(update={"https": Https(certificate=files[0], key=files[1])})

    class Said(Fake):
        async def status(self) -> Any:
            parties = [{"party": 1, "certificate_not_after": time.time() + 20 * DAY_S}, {"party": 2}]
            return {**await super().status(), "parties": parties}

    async def test() -> dict[str, float]:
        async with Running(made, {"eu": Fake("eu", ready=False), "us": Said("us")}, settings) as gateway:
            text = (await gateway.client.get("/metrics")).text
        found = re.findall(r'certificate_seconds_left\{certificate="([^"]+)"\} (\S+)', text)
        return {name: float(value) / DAY_S for name, value in found}

    days = asyncio.run(test())
    expected = {
        "https": 7,
        "federation": 50,
        "directory": 50,
        "eu/0": -10,
        "eu/1": 50,
        "us/1": 20,
        "us/2": 50,
    }
    for name, value in expected.items():
        assert days[name] == pytest.approx(value, abs=0.1), name


@pytest.mark.parametrize(
    ("folder", "code", "text"), [("gw", 5, "expired at"), ("eu0", 2, "folder of party eu/0")]
)
def test_the_program_says_it_in_one_line(tmp_path: Path, folder: str, code: int, text: str) -> None:
    federation(tmp_path, ("eu",), expired=("gateway/one",))
    settings = tmp_path / "gateway.yaml"
    settings.write_text(f"folder: {folder}\nport: 0\n")
    program = [sys.executable, "-P", "-c", "from mpc_ray.cli.main import main; main()"]
    ended = subprocess.run(
        [*program, "gateway", "--config", str(settings), "--standalone"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == code and text in ended.stderr and "serving" not in ended.stdout
    assert ended.stderr.startswith("error: ") and "Traceback" not in ended.stderr
