"""The cluster files hold together: Ray takes them, our models take them, and what is wrong in one is found."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mpc_ray.cli.main import run
from mpc_ray.errors import ConfigError
from mpc_ray.ops import clouds, cluster_checks
from mpc_ray.ops.cluster_checks import Problem, problems
from mpc_ray.ops.clusters import FILL_ME

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "configs" / "clusters"
FILES = [ROOT / "cluster.yaml", *sorted(FOLDER.glob("*.yaml"))]
REGIONS = {
    "americas": ("us-east-1", "us-west-2"),
    "europe": ("eu-west-1", "eu-central-1"),
    "apac": ("ap-northeast-1", "ap-southeast-1"),
}


def content(name: str) -> dict[str, Any]:
    return cluster_checks.load(ROOT / name if name == "cluster.yaml" else FOLDER / name)


def filled(value: Any) -> Any:
    """A file with something in every gap."""
    if isinstance(value, dict):
        return {key: filled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item) for item in value]
    if isinstance(value, str) and FILL_ME in value:
        return "203.0.113.7/32" if value.endswith("/32") else re.sub(r"FILL-ME[\w.-]*", "0123abcd", value)
    return value


def at(config: Any, path: str) -> Any:
    for part in path.split(".") if path else []:
        config = config[int(part)] if isinstance(config, list) else config[part]
    return config


def failures(config: dict[str, Any]) -> list[Problem]:
    return [problem for problem in problems(config) if problem.status == "fail"]


def test_the_files_that_were_promised_are_there() -> None:
    names = {path.name for path in FILES}
    regional = {f"{name}{kind}.yaml" for name in REGIONS for kind in ("", "-secondary")}
    assert names >= regional | {"cluster.yaml", "gcp.yaml", "azure.yaml", "local.yaml", "gateway.yaml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_right_once_it_is_filled_in(path: Path) -> None:
    ray_schema = pytest.importorskip("mpc_ray.ops.ray_schema")
    config = cluster_checks.load(path)
    assert ray_schema.refusal(config) is None
    gaps = cluster_checks.unfilled(config)
    assert gaps, "nothing to fill in, not even who may log in?"
    assert {problem.where for problem in failures(config)} == set(gaps)
    assert failures(filled(config)) == []
    assert ray_schema.refusal(filled(config)) is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_says_what_a_cluster_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name != "gateway.yaml":
        assert "ONE CLUSTER IS ONE TRUST DOMAIN. RUN THREE" in text
    starts = re.findall(r"^.*ray start\b", re.sub(r"\n {4,}(?=\S)", " ", text), re.MULTILINE)
    starts = [line for line in starts if not line.lstrip().startswith("#")]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=~/.mpc-ray/token" in line for line in starts)
    assert "0.0.0.0" not in text or path.name == "gateway.yaml"


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("second", [False, True])
def test_regions_differ_in_place_and_name_alone(name: str, second: bool) -> None:
    """What is mended in one file must be mended in all."""
    config = content(f"{name}-secondary.yaml" if second else f"{name}.yaml")
    region = REGIONS[name][second]
    assert config["provider"]["region"] == region
    model, here = content("europe.yaml"), copy.deepcopy(config)
    for one in (model, here):
        del one["cluster_name"], one["metadata"]["mpc_ray"]["set"]
        for kind in one["available_node_types"].values():
            assert kind["labels"].pop("region") == one["provider"]["region"]
        del one["provider"]["region"], one["provider"]["availability_zone"]
    assert here == model
    kinds = config["available_node_types"]
    assert kinds["cpu"]["node_config"]["InstanceType"] == "m6i.2xlarge"  # 8 cores, 32 GB
    assert kinds["gpu"]["node_config"]["InstanceType"] == "g5.2xlarge"  # a GPU with 24 GB
    assert config["max_workers"] > 0
    assert config["idle_timeout_minutes"] > 0


def test_all_machines_are_set_up_alike() -> None:
    """But for what a cloud's own images need, and for what runs there. test_up_local runs these commands for real."""

    def commands(name: str) -> list[str]:
        config = content(name)
        lines = config["setup_commands"] + config["head_setup_commands"] + config["head_start_ray_commands"]
        own = (
            "cloud-init",
            "pip install --quiet 'boto3",
            "pip install --quiet google",
            "pip install --quiet azure",
        )
        kept = [
            re.sub(r" --(autoscaling-config|labels)=\S+", "", line)
            for line in lines
            if not re.search("|".join(own), line)
        ]
        return [line.replace("gateway", "party") for line in kept]

    for path in FILES:
        assert commands(path.name) == commands("local.yaml"), path.name
        assert content(path.name)["rsync_exclude"] == content("local.yaml")["rsync_exclude"]
        assert content(path.name)["file_mounts"] == content("local.yaml")["file_mounts"]


def test_regions_name_no_cluster_twice() -> None:
    names = [
        content(path.name)["cluster_name"]
        for path in FOLDER.glob("*.yaml")
        if path.stem.split("-")[0] in REGIONS
    ]
    assert len(set(names)) == len(names) == 6


# One typo a section: (file, path of the section, right key, wrong key).
TYPOS = [
    ("cluster.yaml", "", "max_workers", "max_worker"),
    ("cluster.yaml", "", "head_start_ray_commands", "head_start_ray_command"),
    ("cluster.yaml", "provider", "region", "regoin"),
    ("cluster.yaml", "provider", "cache_stopped_nodes", "cache_stoped_nodes"),
    ("cluster.yaml", "auth", "ssh_user", "ssh_usr"),
    ("cluster.yaml", "metadata", "mpc_ray", "mpcray"),
    ("cluster.yaml", "metadata.mpc_ray", "party", "partie"),
    ("cluster.yaml", "metadata.mpc_ray.firewall", "peers", "peer"),
    ("cluster.yaml", "available_node_types.party", "labels", "lables"),
    ("cluster.yaml", "available_node_types.party.labels", "trust", "thrust"),
    ("cluster.yaml", "available_node_types.party.node_config", "InstanceType", "InstanceTyp"),
    ("cluster.yaml", "available_node_types.party.node_config", "SecurityGroupIds", "SecurityGroupId"),
    ("cluster.yaml", "available_node_types.party.node_config.MetadataOptions", "HttpTokens", "HttpToken"),
    ("cluster.yaml", "available_node_types.party.node_config.BlockDeviceMappings.0", "DeviceName", "Device"),
    (
        "cluster.yaml",
        "available_node_types.party.node_config.BlockDeviceMappings.0.Ebs",
        "Encrypted",
        "Encrypt",
    ),
    ("europe.yaml", "available_node_types.gpu", "min_workers", "min_worker"),
    ("europe.yaml", "available_node_types.gpu.node_config.IamInstanceProfile", "Name", "name"),
    ("gateway.yaml", "metadata.mpc_ray.firewall", "clients", "client"),
    ("gcp.yaml", "provider", "project_id", "projectid"),
    ("gcp.yaml", "available_node_types.cpu.node_config", "machineType", "machine_type"),
    ("gcp.yaml", "available_node_types.cpu.node_config.networkInterfaces.0", "subnetwork", "subnet"),
    ("gcp.yaml", "available_node_types.cpu.node_config.disks.0.initializeParams", "diskSizeGb", "diskSizeGB"),
    ("azure.yaml", "provider", "resource_group", "resource_gruop"),
    ("azure.yaml", "available_node_types.cpu.node_config.azure_arm_parameters", "vmSize", "vmsize"),
    ("local.yaml", "provider", "head_ip", "haed_ip"),
    ("local.yaml", "auth", "ssh_private_key", "ssh_privat_key"),
]


@pytest.mark.parametrize(("name", "section", "right", "wrong"), TYPOS, ids=lambda value: str(value) or "top")
def test_a_typo_is_found(name: str, section: str, right: str, wrong: str) -> None:
    config = filled(content(name))
    part = at(config, section)
    part[wrong] = part.pop(right)
    found = {problem.where: problem for problem in failures(config)}
    where = f"{section}.{wrong}".lstrip(".")
    assert where in found, list(found)
    assert found[where].remedy in ("", f"{right} is meant?")


def test_what_ray_alone_would_miss() -> None:
    """The reason for all this: Ray takes a typo under provider."""
    ray_schema = pytest.importorskip("mpc_ray.ops.ray_schema")
    config = filled(content("cluster.yaml"))
    config["provider"]["regoin"] = config["provider"].pop("region")
    assert ray_schema.refusal(config) is None
    assert [problem.remedy for problem in failures(config) if problem.where == "provider.regoin"] == [
        "region is meant?"
    ]


def test_ray_refuses_too() -> None:
    ray_schema = pytest.importorskip("mpc_ray.ops.ray_schema")
    config = filled(content("cluster.yaml"))
    config["available_node_types"]["party"]["labels"]["party"] = 0
    assert "is not of type 'string'" in str(ray_schema.refusal(config))
    local = filled(content("local.yaml"))
    local["available_node_types"] = {"a": {"resources": {}, "node_config": {}}}
    assert "not supported" in str(ray_schema.refusal(local))


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def do(config: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        part = at(config, ".".join(parents))
        part[int(last) if isinstance(part, list) else last] = value

    return do


def without(path: str) -> Callable[[dict[str, Any]], None]:
    def do(config: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        del at(config, ".".join(parents))[last]

    return do


NODE = "available_node_types.party.node_config"
DANGERS = [
    (
        "a door for everybody",
        change("metadata.mpc_ray.firewall.ssh", ["0.0.0.0/0"]),
        "firewall.ssh.0",
        "4,294,967,296",
    ),
    (
        "half the world",
        change("metadata.mpc_ray.firewall.peers", ["203.0.113.1/32", "10.0.0.0/8"]),
        "peers.1",
        "addresses",
    ),
    (
        "one peer",
        change("metadata.mpc_ray.firewall.peers", ["203.0.113.1/32"]),
        "firewall.peers",
        "at least 2",
    ),
    (
        "no network",
        change("metadata.mpc_ray.firewall.ssh", ["203.0.113.300/32"]),
        "firewall.ssh.0",
        "does not appear",
    ),
    ("no group", without(f"{NODE}.SecurityGroupIds"), "SecurityGroupIds", "whole world"),
    (
        "Ray's group",
        change("provider.security_group", {"GroupName": "x"}),
        "provider.security_group",
        "whole world",
    ),
    ("Ray's role", without(f"{NODE}.IamInstanceProfile"), "IamInstanceProfile", "everything in EC2"),
    ("IMDSv1", without(f"{NODE}.MetadataOptions"), "MetadataOptions", "IMDSv1"),
    (
        "plain disk",
        change(f"{NODE}.BlockDeviceMappings.0.Ebs.Encrypted", False),
        "BlockDevice",
        "unencrypted",
    ),
    (
        "no token",
        change("head_start_ray_commands.1", "ray start --head"),
        "head_start_ray_commands.1",
        "token",
    ),
    (
        "no token path",
        change("worker_start_ray_commands.1", "RAY_AUTH_MODE=token /opt/mpc-ray/bin/ray start --address=x:1"),
        "worker_start_ray_commands.1",
        "token",
    ),
    (
        "token of another command",
        change(
            "head_start_ray_commands.1", "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=t true; ray start --head"
        ),
        "head_start_ray_commands.1",
        "token",
    ),
    (
        "dashboard",
        change(
            "head_start_ray_commands.1",
            "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=t ray start --head --dashboard-host=0.0.0.0",
        ),
        "head_start_ray_commands.1",
        "every interface",
    ),
    ("key sent", change("file_mounts", {"~/party": "alpha/tls.key"}), "file_mounts", "alpha/tls.key"),
    ("another's node", change("available_node_types.party.labels.trust", "beta"), "labels.trust", "beta"),
    ("two parties", change("available_node_types.party.labels.party", "1"), "labels.party", "1"),
    ("label as number", change("available_node_types.party.labels.party", 0), "labels.party", "'0'"),
    (
        "another region",
        change("available_node_types.party.labels.region", "us-east-1"),
        "labels.region",
        "us-east-1",
    ),
    ("zone elsewhere", change("provider.availability_zone", "eu-west-2a"), "availability_zone", "eu-west-2a"),
    ("no head", change("head_node_type", "gpu"), "head_node_type", "gpu"),
    ("a cloud unknown", change("provider.type", "awz"), "provider.type", "no provider"),
    ("fourth party", change("metadata.mpc_ray.party", 3), "metadata.mpc_ray.party", "0, 1 or 2"),
    ("commands left to Ray", without("setup_commands"), "setup_commands", "missing"),
]


@pytest.mark.parametrize(("alter", "where", "what"), [d[1:] for d in DANGERS], ids=[d[0] for d in DANGERS])
def test_a_danger_is_found(alter: Callable[[dict[str, Any]], None], where: str, what: str) -> None:
    config = filled(content("cluster.yaml"))
    alter(config)
    found = failures(config)
    assert any(where in problem.where and what in problem.what for problem in found), found


def test_local_labels_are_held_against_the_role() -> None:
    config = filled(content("local.yaml"))
    config["head_start_ray_commands"][1] = config["head_start_ray_commands"][1].replace("party=0", "party=1")
    assert [(problem.where, problem.what) for problem in failures(config)] == [
        ("head_start_ray_commands.1", "label party is 1, not 0")
    ]


def test_a_key_given_twice_is_found(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("metadata:\n  firewall:\n    ssh: [a]\n    ssh: [b]\n")
    with pytest.raises(ConfigError, match="line 4: ssh is given twice"):
        cluster_checks.load(path)


@pytest.mark.parametrize(
    ("text", "what"), [("a: [", "is no YAML"), ("- a", "holds no mapping"), ("", "holds no mapping")]
)
def test_what_is_no_file_of_settings(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=what):
        cluster_checks.load(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        cluster_checks.load(tmp_path / "none.yaml")


def test_our_aws_keys_are_ec2s() -> None:
    """A key that our model takes and EC2 does not would be a typo of ours."""
    session = pytest.importorskip("botocore.session")
    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape

    def compare(model: Any, shape: Any, where: str) -> None:
        for name, field in model.model_fields.items():
            if name == "SubnetIds":  # Ray's own
                continue
            assert name in shape.members, f"{where}.{name}"
            inner = shape.members[name]
            inner = inner.member if inner.type_name == "list" else inner
            for nested in cluster_checks._models(field.annotation):
                compare(nested, inner, f"{where}.{name}")

    compare(clouds.AwsNode, shape, "RunInstances")


def test_our_azure_keys_are_those_of_rays_template() -> None:
    azure = pytest.importorskip("ray.autoscaler._private._azure")
    template = json.loads(Path(azure.__file__).with_name("azure-vm-template.json").read_text())
    ours = set(clouds.ArmParameters.model_fields) - {"availability_zone"}  # Ray makes `zones` of it
    assert ours <= set(template["parameters"])


def test_doctor_names_what_is_to_be_filled_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--cluster", str(ROOT / "cluster.yaml"), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    gaps = [check["detail"] for check in answer["checks"] if "filled in" in check["detail"]]
    assert any("firewall.ssh.0" in gap for gap in gaps)
    assert any("ImageId" in gap for gap in gaps)
    assert {check["name"] for check in answer["checks"]} == {"cluster file", "Ray's schema"}


def test_doctor_has_nothing_to_say_of_a_good_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(filled(content("cluster.yaml"))))
    assert run(["doctor", "--cluster", str(path)]) == 0
    assert "nothing stands in the way" in capsys.readouterr().out
    assert run(["doctor", "--cluster", str(tmp_path / "none.yaml")]) == 1
