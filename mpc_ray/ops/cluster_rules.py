"""What keys and types of a cluster file cannot say: open doors, missing tokens, labels that contradict."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mpc_ray.ops.clusters import (
    FILL_ME,
    AwsCluster,
    AzureCluster,
    Cluster,
    GatewayRole,
    GcpCluster,
    LocalCluster,
    PartyRole,
)

WIDEST_V4, WIDEST_V6 = 24, 56  # more than this is nobody's own address


@dataclass(frozen=True)
class Problem:
    """``where`` is a path in the file, ``provider.region``; ``warn`` does not keep ``ray up`` from being safe."""

    where: str
    what: str
    remedy: str = ""
    status: Literal["fail", "warn"] = "fail"


def rules(cluster: Cluster) -> Iterator[Problem]:
    """Everything that is unsafe or contradicts itself. What is still to be filled in is passed over."""
    role = cluster.metadata.mpc_ray
    yield from _addresses(role)
    yield from _starts(cluster)
    yield from _mounts(cluster)
    if isinstance(cluster, LocalCluster):
        yield from _local(cluster)
        return
    yield from _node_types(cluster, role)
    if isinstance(cluster, AwsCluster):
        yield from _aws(cluster)
    if isinstance(cluster, AzureCluster):
        yield Problem(
            "provider.type",
            "each `ray up` on Azure opens port 22 to the whole world again and drops other rules",
            "run what `mpc-ray cluster firewall FILE` prints after each `ray up`",
            "warn",
        )


def _addresses(role: PartyRole | GatewayRole) -> Iterator[Problem]:
    for name, networks in role.firewall:
        for number, text in enumerate(networks):
            if FILL_ME in text or (name == "clients"):
                continue
            network = ipaddress.ip_network(text)
            if network.prefixlen < (WIDEST_V4 if network.version == 4 else WIDEST_V6):
                yield Problem(
                    f"metadata.mpc_ray.firewall.{name}.{number}",
                    f"{text} lets in {network.num_addresses:,} addresses",
                    "name single addresses, as 203.0.113.7/32",
                )


# Assignments before the command count for it alone.
_START = re.compile(r"(?P<assigned>(?:\w+=\S+\s+)*)(?:\S*/)?ray start\b(?P<rest>[^;&|]*)")


def _starts(cluster: Cluster) -> Iterator[Problem]:
    """Ray lets everybody in who reaches its ports unless a token is asked for, each time it starts."""
    starts = 0
    for section in ("head_start_ray_commands", "worker_start_ray_commands"):
        for number, line in enumerate(getattr(cluster, section)):
            for match in _START.finditer(line):
                starts += 1
                where = f"{section}.{number}"
                assigned = dict(word.split("=", 1) for word in match["assigned"].split())
                if assigned.get("RAY_AUTH_MODE") != "token" or not assigned.get("RAY_AUTH_TOKEN_PATH"):
                    yield Problem(
                        where,
                        "starts Ray without asking for a token",
                        "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=… right before `ray start`",
                    )
                if "--dashboard-host=0.0.0.0" in match["rest"]:
                    yield Problem(
                        where, "shows Ray's dashboard on every interface", "--dashboard-host=127.0.0.1"
                    )
    if not starts:
        yield Problem(
            "head_start_ray_commands", "holds no `ray start` that this check can read", status="warn"
        )


_SECRET = re.compile(r"(\.keys?|record\.json|at-rest\S*)$")


def _mounts(cluster: Cluster) -> Iterator[Problem]:
    for remote, local in cluster.file_mounts.items():
        if _SECRET.search(local):
            yield Problem(
                f"file_mounts.{remote}",
                f"sends {local} to the cluster",
                "private keys are made where they stay: `mpc-ray certs request` on the head node",
            )


def _node_types(
    cluster: AwsCluster | GcpCluster | AzureCluster, role: PartyRole | GatewayRole
) -> Iterator[Problem]:
    if cluster.head_node_type not in cluster.available_node_types:
        yield Problem("head_node_type", f"{cluster.head_node_type} is none of the node types")
    region = cluster.provider.location if isinstance(cluster, AzureCluster) else cluster.provider.region
    party = str(role.party) if isinstance(role, PartyRole) else None
    for name, kind in cluster.available_node_types.items():
        where = f"available_node_types.{name}"
        if kind.labels.trust != role.operator:
            yield Problem(
                f"{where}.labels.trust",
                f"is {kind.labels.trust}, but the cluster is {role.operator}'s",
                "one cluster is one trust domain: three operators run three",
            )
        if kind.labels.party != party:
            yield Problem(
                f"{where}.labels.party",
                f"is {kind.labels.party}, but metadata.mpc_ray says {party}",
                "one cluster holds one party",
            )
        if kind.labels.region != region:
            yield Problem(
                f"{where}.labels.region", f"is {kind.labels.region}, but the cluster is in {region}"
            )
        if kind.min_workers > kind.max_workers:
            yield Problem(f"{where}.min_workers", f"{kind.min_workers} is more than max_workers")
    if sum(kind.min_workers for kind in cluster.available_node_types.values()) > cluster.max_workers:
        yield Problem("max_workers", "is less than all min_workers together")


def _aws(cluster: AwsCluster) -> Iterator[Problem]:
    region, zones = cluster.provider.region, cluster.provider.availability_zone
    for zone in (zones or "").split(",") if zones else []:
        if not re.fullmatch(re.escape(region) + "[a-z]", zone.strip()):
            yield Problem("provider.availability_zone", f"{zone.strip()} is no zone of {region}")
    head = cluster.available_node_types.get(cluster.head_node_type)
    if head is not None and head.node_config.IamInstanceProfile is None:
        yield Problem(
            f"available_node_types.{cluster.head_node_type}.node_config.IamInstanceProfile",
            "is missing: Ray would give the machine a role that may do everything in EC2 and S3",
            "{} for no role, or {Name: …} for one of yours",
        )
    groups = set()
    for name, kind in cluster.available_node_types.items():
        where, node = f"available_node_types.{name}.node_config", kind.node_config
        groups.add(tuple(node.SecurityGroupIds))
        if not node.SecurityGroupIds:
            yield Problem(
                f"{where}.SecurityGroupIds",
                "is missing: Ray would make a group with port 22 open to the whole world",
                "`mpc-ray cluster firewall FILE --apply` makes the group and prints its id",
            )
        if node.MetadataOptions is None or node.MetadataOptions.HttpTokens != "required":
            yield Problem(
                f"{where}.MetadataOptions", "lets IMDSv1 give the machine's role away", "HttpTokens: required"
            )
        if not node.BlockDeviceMappings or not all(disk.Ebs.Encrypted for disk in node.BlockDeviceMappings):
            yield Problem(f"{where}.BlockDeviceMappings", "leaves the disk unencrypted", "Encrypted: true")
        if cluster.auth.ssh_private_key and not node.KeyName:
            yield Problem(f"{where}.KeyName", "is missing, though auth.ssh_private_key is given")
    if len(groups) > 1:
        yield Problem(
            "available_node_types", "differ in SecurityGroupIds: nodes of one cluster need one group"
        )


def _local(cluster: LocalCluster) -> Iterator[Problem]:
    for name in ("ssh_user", "ssh_private_key"):
        if not getattr(cluster.auth, name):
            yield Problem(f"auth.{name}", "is missing")
    for section in ("head_start_ray_commands", "worker_start_ray_commands"):
        for number, line in enumerate(getattr(cluster, section)):
            for match in _START.finditer(line):
                role = cluster.metadata.mpc_ray
                wanted = {"trust": role.operator} | (
                    {"party": str(role.party)} if isinstance(role, PartyRole) else {}
                )
                labels = re.search(r"--labels=(\S+)", match["rest"])
                given = dict(pair.split("=", 1) for pair in labels[1].split(",")) if labels else {}
                for label, value in wanted.items():
                    if given.get(label) != value:
                        yield Problem(
                            f"{section}.{number}", f"label {label} is {given.get(label)}, not {value}"
                        )
