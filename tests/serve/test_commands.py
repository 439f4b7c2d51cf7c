"""``mpc-ray gateway`` and the API keys' commands, as an operator uses them."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import typer
from gateways import Federation, api_key, body, federation

from mpc_ray.cli.api_keys import add_to


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federation(tmp_path_factory.mktemp("federation"), ("eu",))


def keys(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    """Run a command of ``mpc-ray keys``: what it wrote to each stream."""
    app = typer.Typer()
    add_to(app)
    typer.main.get_command(app).main(args=list(words), standalone_mode=False)
    said = capsys.readouterr()
    return said.out, said.err


def test_keys_are_made_listed_and_revoked(made: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ("--gateway", str(made.folder))
    bearer, notes = keys(capsys, "create", *folder, "--name", "search", "--tenant", "acme")
    assert bearer.startswith("mpck_") and bearer.count("\n") == 1, "the key alone, to be piped somewhere"
    assert "once" in notes and bearer.strip() not in notes
    said = keys(
        capsys,
        "create",
        *folder,
        "--name",
        "few",
        "--per-minute",
        "2",
        "--days",
        "1",
        "--model",
        "m",
        "--json",
    )
    second = json.loads(said[0])
    assert (
        second["per_minute"] == 2
        and second["models"] == ["m"]
        and second["expires"]
        and second["revoked"] is None
    )
    listed = json.loads(keys(capsys, "list-api", *folder, "--json")[0])["keys"]
    assert [one["name"] for one in listed] == ["search", "few"]
    assert all("bearer" not in one and "mac" not in one for one in listed)
    revoked = json.loads(keys(capsys, "revoke-api", *folder, second["id"], "--json")[0])
    assert revoked["state"] == "revoked"
    table = keys(capsys, "list-api", *folder)[0]
    assert "valid" in table and "revoked" in table and "acme" in table


def test_a_standalone_gateway_from_start_to_drain(made: Federation, tmp_path: Path) -> None:
    """Parties that are down are "not ready", never a hang or a crash; SIGTERM ends with exit code 0."""
    settings = tmp_path / "gateway.yaml"
    settings.write_text(json.dumps({"folder": str(made.folder), "port": 0, "limits": {"drain_s": 0.5}}))
    program = [sys.executable, "-P", "-c", "from mpc_ray.cli.main import main; main()"]
    command = [*program, "gateway", "--config", str(settings), "--standalone", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        log: list[str] = []
        reader = threading.Thread(target=lambda: log.extend(process.stderr or ()))
        reader.start()
        try:
            said = json.loads(process.stdout.readline())
            assert said["event"] == "serving"
            context = ssl.create_default_context(cafile=str(made.folder / "ca.pem"))
            context.check_hostname = False
            headers = {"authorization": f"Bearer {api_key(made)}"}
            with httpx.Client(base_url=said["url"], verify=context, headers=headers, timeout=10) as http:
                assert http.get("/v2/health/live").status_code == 200
                assert http.get("/v2/health/ready").status_code == 503
                assert http.post("/v1/private/infer", json=body(made)).status_code == 503
                begun = time.monotonic()
                process.send_signal(signal.SIGTERM)
                time.sleep(0.1)
                assert http.get("/v2/health/ready").json()["code"] == "draining"
            assert process.wait(15) == 0
            assert time.monotonic() - begun < 10
        finally:
            process.kill()
            reader.join(5)
    assert "Traceback" not in "".join(log)


def test_a_wrong_setting_ends_in_one_line(tmp_path: Path) -> None:
    settings = tmp_path / "gateway.yaml"
    settings.write_text("folder: gw\nprot: 1\n")
    program = [sys.executable, "-P", "-c", "from mpc_ray.cli.main import main; main()"]
    ended = subprocess.run(
        [*program, "gateway", "--config", str(settings)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 2
    assert "prot is not a setting" in ended.stderr and "did you mean port?" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_one_cluster_needs_ray(tmp_path: Path) -> None:
    program = [sys.executable, "-P", "-c", "from mpc_ray.cli.main import main; main()"]
    ended = subprocess.run(
        [*program, "gateway", "--config", str(tmp_path / "none.yaml"), "--standalone", "--one-cluster"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2 and "--one-cluster needs Ray" in ended.stderr
