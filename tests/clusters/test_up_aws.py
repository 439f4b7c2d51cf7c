"""A region's file on AWS the whole way, with moto in the place of AWS and this machine in that of every instance."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from machine import BIN, Machine, filled, free_port, machine

boto3 = pytest.importorskip("boto3")

ROOT = Path(__file__).parents[2]
REGION = "eu-west-1"
AWS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": REGION}
IMAGE = "ami-12c6146b"  # one that moto has


@pytest.fixture
def host() -> Iterator[Machine]:
    with machine() as made:
        yield made


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    with (tmp_path / "moto").open("w") as log:
        server = subprocess.Popen(
            [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **AWS},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(lambda: "Running on" in (tmp_path / "moto").read_text(), 20)
        yield url
    finally:
        server.kill()
        server.wait()


def client(service: str, endpoint: str) -> Any:
    return boto3.client(
        service, region_name=REGION, endpoint_url=endpoint, aws_access_key_id="x", aws_secret_access_key="x"
    )


def instances(endpoint: str) -> list[dict[str, Any]]:
    answer = client("ec2", endpoint).describe_instances()
    return [one for reservation in answer["Reservations"] for one in reservation["Instances"]]


def tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance["Tags"]}


def _wait_for(what: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "too late"
        time.sleep(0.2)


@pytest.mark.clusters
@pytest.mark.timeout(150)
def test_a_region_goes_up_and_down(host: Machine, endpoint: str) -> None:
    environ = {**AWS, "AWS_ENDPOINT_URL": endpoint}
    role = client("iam", endpoint)
    role.create_instance_profile(InstanceProfileName="mpc-ray-autoscaler")
    text = filled((ROOT / "configs" / "clusters" / "europe.yaml").read_text(encoding="utf-8"), host)
    text = re.sub(r"ami-FILL-ME\S*", IMAGE, text)
    config = yaml.safe_load(text)
    assert config["provider"]["region"] == REGION
    config["available_node_types"]["gpu"]["min_workers"] = 1  # or no worker would be started
    # What is set up on a machine is test_up_local's subject: the commands are the same (test_files).
    config["file_mounts"] = {"~/.mpc-ray/token": config["file_mounts"]["~/.mpc-ray/token"]}
    config["setup_commands"] = config["head_setup_commands"] = ["true"]
    file = host.desk / "europe.yaml"
    file.write_text(yaml.safe_dump(config))
    # As the document has it: first the group, then its id in the file.
    made = subprocess.run(
        [str(BIN / "mpc-ray"), "cluster", "firewall", "europe.yaml", "--apply", "--json"],
        cwd=host.desk,
        env=host.environ(environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    group = json.loads(made.stdout)["applied"]["group"]
    file.write_text(file.read_text().replace("sg-FILL-ME", group))
    before = client("ec2", endpoint).describe_security_groups()["SecurityGroups"]
    # The autoscaler runs on the head node, and asks AWS from there.
    with (host.home / ".bashrc").open("a") as bashrc:
        often = {**environ, "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        bashrc.writelines(f"export {name}={value}\n" for name, value in often.items())

    up = host.ray("up", "-y", "--no-config-cache", "europe.yaml", timeout_s=90, **environ)
    assert up.returncode == 0, up.stdout + up.stderr
    assert "no party was started" in up.stdout
    _wait_for(lambda: len(instances(endpoint)) == 2, 40)
    _wait_for(lambda: re.search(r"^ray start --address", host.said(), re.MULTILINE), 40)

    head, worker = sorted(instances(endpoint), key=lambda one: tags(one)["ray-node-type"])
    assert [tags(one)["ray-node-type"] for one in (head, worker)] == ["head", "worker"]
    assert [one["InstanceType"] for one in (head, worker)] == ["m6i.2xlarge", "g5.2xlarge"]
    for one in (head, worker):
        assert tags(one)["ray-cluster-name"] == "mpc-alpha-europe"
        assert one["KeyName"] == "ray-autoscaler_eu-west-1"  # made by Ray: the file names none
        assert [there["GroupId"] for there in one["SecurityGroups"]] == [group]
        assert one["IamInstanceProfile"]["Arn"].endswith("/mpc-ray-autoscaler")
    # Ray has neither made a group nor added a rule: port 22 is still the operator's alone.
    assert client("ec2", endpoint).describe_security_groups()["SecurityGroups"] == before
    starts = [line for line in host.said().splitlines() if line.startswith("ray start")]
    assert len(starts) == 2
    for line in starts:
        assert "RAY_AUTH_MODE=token" in line
        assert all(part in line for part in ('"party":"0"', '"region":"eu-west-1"', '"trust":"alpha"'))

    down = host.ray("down", "-y", "europe.yaml", timeout_s=60, **environ)
    assert down.returncode == 0, down.stdout + down.stderr
    assert {one["State"]["Name"] for one in instances(endpoint)} == {"terminated"}


def test_no_role_is_no_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """`IamInstanceProfile: {}` of cluster.yaml: EC2 takes it, and the machine has no role."""
    moto = pytest.importorskip("moto")
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    with moto.mock_aws():
        ec2 = boto3.client("ec2", region_name=REGION)
        ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1, IamInstanceProfile={})
        (reservation,) = ec2.describe_instances()["Reservations"]
    assert "IamInstanceProfile" not in reservation["Instances"][0]
