"""configs/clusters/local.yaml, brought up and taken down for real, over ssh on loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Machine, filled, machine

from mpc_ray.ops import cluster_checks

ROOT = Path(__file__).parents[2]

LOOK = """
import json, ray
ray.init(address="{address}", log_to_driver=False, logging_level="ERROR")
print(json.dumps([node["Labels"] for node in ray.nodes() if node["Alive"]]))
"""


@pytest.fixture
def host() -> Iterator[Machine]:
    with machine() as made:
        yield made


@pytest.mark.clusters
@pytest.mark.timeout(120)
def test_local_goes_up_and_down(host: Machine) -> None:
    text = filled((ROOT / "configs" / "clusters" / "local.yaml").read_text(encoding="utf-8"), host)
    file = host.desk / "local.yaml"
    file.write_text(text)
    assert cluster_checks.problems(cluster_checks.load(file)) == []

    (host.folder / "etc" / "party.yaml").touch()  # what the operator puts there before the party can start
    up = host.ray("up", "-y", "--no-config-cache", "local.yaml", timeout_s=90)
    assert up.returncode == 0, up.stdout + up.stderr
    said = host.said().splitlines()
    assert any(line.startswith("pip install") and line.endswith("py3-none-any.whl[server]") for line in said)
    assert (host.home / ".mpc-ray" / "token").stat().st_mode & 0o777 == 0o600
    assert "RAY_AUTH_MODE=token" in (host.folder / "profile.d" / "mpc-ray.sh").read_text()
    assert (host.folder / "systemd" / "mpc-ray-party.service").is_file()
    assert said[-1] == "systemctl restart mpc-ray-party"
    starts = [line for line in said if line.startswith("ray start")]
    assert len(starts) == 1
    assert "RAY_AUTH_MODE=token" in starts[0]

    # Ray turns away whoever does not know the token …
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel(f"127.0.0.1:{host.ray_port}") as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
        with pytest.raises(grpc.RpcError) as refused:
            ask(b"", timeout=10)
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        assert ask(b"", timeout=10, metadata=[("authorization", f"Bearer {'ab' * 32}")])
    # … and takes whoever does. The node says whose it is.
    look = LOOK.format(address=f"127.0.0.1:{host.ray_port}")
    labels = subprocess.run(
        [sys.executable, "-c", look],
        env=host.environ({}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert labels.returncode == 0, labels.stderr
    assert all(part in labels.stdout for part in ('"trust": "alpha"', '"party": "0"', '"region": "home"'))

    done = host.ray("exec", "local.yaml", "ray --version")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "version 2." in done.stdout

    down = host.ray("down", "-y", "local.yaml", timeout_s=60)
    assert down.returncode == 0, down.stdout + down.stderr
    assert host.said().splitlines()[-1].startswith("ray stop")
    left = [one for one in host.processes() if "sshd" not in " ".join(one.cmdline())]
    assert left == []
