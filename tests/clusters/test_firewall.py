"""Who may reach a cluster: the rules of a file, as a security group on AWS (moto) and as commands elsewhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_cluster_files import content, filled

from mpc_ray.cli.main import run
from mpc_ray.errors import ConfigError, MpcError
from mpc_ray.ops import cluster_checks, firewall
from mpc_ray.ops.clusters import AwsCluster, Cluster

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto")

WALLS = {
    "ssh": ["198.51.100.7/32", "2001:db8::7/128"],
    "peers": ["203.0.113.1/32", "203.0.113.2/32"],
    "gateways": ["203.0.113.9/32"],
}


def cluster(name: str = "cluster.yaml", **walls: list[str]) -> Cluster:
    config = filled(content(name))
    if "peers" in config["metadata"]["mpc_ray"]["firewall"]:
        config["metadata"]["mpc_ray"]["firewall"] = WALLS | walls
    return cluster_checks.parsed(config)


def aws(**walls: list[str]) -> AwsCluster:
    made = cluster(**walls)
    assert isinstance(made, AwsCluster)
    return made


@pytest.fixture
def ec2(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    with moto.mock_aws():
        yield boto3.client("ec2", region_name="eu-west-1")


def rules_of(ec2: Any, group: str) -> set[tuple[str, int | None, str]]:
    """(protocol, port, source) of everything that a group lets in."""
    (found,) = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    return {
        (permission["IpProtocol"], permission.get("FromPort"), source)
        for permission in found["IpPermissions"]
        for source in [
            *[one["CidrIp"] for one in permission.get("IpRanges", [])],
            *[one["CidrIpv6"] for one in permission.get("Ipv6Ranges", [])],
            *[one["GroupId"] for one in permission.get("UserIdGroupPairs", [])],
        ]
    }


def expected(group: str) -> set[tuple[str, int | None, str]]:
    return {
        ("-1", None, group),
        ("tcp", 22, "198.51.100.7/32"),
        ("tcp", 22, "2001:db8::7/128"),
        ("tcp", 50051, "203.0.113.1/32"),
        ("tcp", 50051, "203.0.113.2/32"),
        ("tcp", 50052, "203.0.113.9/32"),
    }


def test_the_group_has_exactly_these_rules(ec2: Any) -> None:
    made = firewall.apply(aws())
    assert made.made
    found = {
        (proto, None if proto == "-1" else port, source) for proto, port, source in rules_of(ec2, made.group)
    }
    assert found == expected(made.group)
    again = firewall.apply(aws())
    assert again == firewall.Applied(made.group, made=False, added=0, removed=0)


def test_what_is_not_in_the_file_goes_away(ec2: Any) -> None:
    """A peer moved, somebody opened port 22 to the world by hand, and a range of ports."""
    made = firewall.apply(aws(peers=["203.0.113.1/32", "203.0.113.3/32"]))
    for first, last in ((22, 22), (50051, 50052)):
        ec2.authorize_security_group_ingress(
            GroupId=made.group,
            IpPermissions=[
                {
                    "IpProtocol": "tcp",
                    "FromPort": first,
                    "ToPort": last,
                    "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
                }
            ],
        )
    mended = firewall.apply(aws())
    assert (mended.made, mended.added, mended.removed) == (False, 1, 3)
    assert {(p, None if p == "-1" else n, s) for p, n, s in rules_of(ec2, made.group)} == expected(made.group)


def test_rays_own_group_is_open_to_the_world(ec2: Any) -> None:
    """Why this exists. If Ray should change, the rule against provider.security_group can go."""
    config = pytest.importorskip("ray.autoscaler._private.aws.config")
    group = config._create_default_inbound_rules({"sg-1"}, [])
    assert {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]} in group


def test_another_network_and_none(ec2: Any) -> None:
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    made = firewall.apply(aws(), vpc=vpc)
    assert ec2.describe_security_groups(GroupIds=[made.group])["SecurityGroups"][0]["VpcId"] == vpc
    (default,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    for subnet in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [default["VpcId"]]}])["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=default["VpcId"])
    with pytest.raises(MpcError, match="eu-west-1 has no default VPC"):
        firewall.apply(aws())


def test_aws_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(MpcError, match="EC2 in eu-west-1 refuses"):
        firewall.apply(aws())


def test_gaps_are_refused() -> None:
    with pytest.raises(ConfigError, match="FILL-ME-operator/32 is still to be filled in"):
        firewall.rules(cluster_checks.parsed(content("cluster.yaml")))


def test_a_gateway_opens_its_port_to_its_clients() -> None:
    found = firewall.rules(cluster("gateway.yaml"))
    assert {(rule.port, rule.whom) for rule in found} == {(22, "operator"), (8443, "client")}
    assert {rule.network for rule in found if rule.port == 8443} == {"0.0.0.0/0", "::/0"}


def test_commands_for_google() -> None:
    lines = [shlex.split(line) for line in firewall.commands(cluster("gcp.yaml"))]
    assert all(words[:2] == ["gcloud", "compute"] for words in lines)
    allowed: dict[str, set[str]] = {}
    for words in lines:
        options = dict(word.split("=", 1) for word in words if word.startswith("--"))
        if "--source-ranges" in options:
            allowed.setdefault(options["--allow"], set()).update(options["--source-ranges"].split(","))
            assert options["--target-tags"] == "mpc-ray-mpc-alpha"
    assert allowed == {
        "tcp:22": set(WALLS["ssh"]),
        "tcp:50051": set(WALLS["peers"]),
        "tcp:50052": set(WALLS["gateways"]),
    }
    # The file's machines stand in the network that the commands make.
    node = content("gcp.yaml")["available_node_types"]["cpu"]["node_config"]
    assert node["networkInterfaces"][0]["subnetwork"].endswith("/subnetworks/mpc-ray-mpc-alpha")
    assert node["tags"]["items"] == ["mpc-ray-mpc-alpha"]


def test_commands_for_azure_narrow_rays_rule() -> None:
    lines = firewall.commands(cluster("azure.yaml"))
    assert any("rule update --name SSH" in line and "198.51.100.7/32" in line for line in lines)
    assert not any(
        "." in line and "::" in line.split("prefixes")[1] for line in lines[1:]
    )  # never both families
    assert sum("--destination-port-ranges 50051" in line for line in lines) == 1
    priorities = [line.split("--priority ")[1].split()[0] for line in lines if "--priority" in line]
    assert len(set(priorities)) == len(priorities) == 3  # one of them for IPv6


def test_azure_without_ipv4_loses_rays_rule() -> None:
    lines = firewall.commands(cluster("azure.yaml", ssh=["2001:db8::7/128"]))
    assert any("rule delete --name SSH" in line for line in lines)
    assert not any("rule update" in line for line in lines)


def test_commands_for_a_host_of_ones_own() -> None:
    lines = firewall.commands(cluster("local.yaml"))
    assert lines[0] == "sudo ufw default deny incoming"
    assert lines[-1] == "sudo ufw enable"
    assert "sudo ufw allow proto tcp from 203.0.113.1/32 to any port 50051" in lines
    assert len(lines) == 2 + 5


def test_the_command_line(ec2: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = filled(content("cluster.yaml"))
    config["metadata"]["mpc_ray"]["firewall"] = WALLS
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(config))
    before = len(ec2.describe_security_groups()["SecurityGroups"])
    assert run(["cluster", "firewall", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "nothing was changed" in shown
    assert "TCP 50051" in shown
    assert len(ec2.describe_security_groups()["SecurityGroups"]) == before
    assert run(["cluster", "firewall", str(path), "--apply"]) == 0
    assert "sed -i 's/sg-FILL-ME/sg-" in capsys.readouterr().out
    assert run(["cluster", "firewall", str(path), "--apply", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["applied"]["added"] == 0
    assert len(answer["rules"]) == 5
    path.write_text(yaml.safe_dump(filled(content("gcp.yaml"))))
    assert run(["cluster", "firewall", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["commands"]
    assert run(["cluster", "firewall", str(path), "--apply"]) == 2
    assert "does not speak to gcp" in capsys.readouterr().err
