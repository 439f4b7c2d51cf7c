"""Who may reach a cluster: rules from ``metadata.mpc_ray.firewall``, made on AWS, printed for other clouds.

On AWS ``apply`` makes a security group with exactly these rules, and one more: nodes of the group reach one
another on all ports, as Ray needs. Ray's own way (``provider.security_group``) always adds port 22 for the whole
world, so node types name the finished group instead; a file in which the group's id is not filled in does not start.
"""

from __future__ import annotations

import ipaddress
import shlex
from dataclasses import dataclass
from typing import Any

from mpc_ray.errors import ConfigError, MpcError
from mpc_ray.ops.clusters import (
    FILL_ME,
    AwsCluster,
    AzureCluster,
    Cluster,
    GatewayRole,
    GcpCluster,
    PartyRole,
)

SSH_PORT, PEER_PORT, GATEWAY_PORT = 22, 50051, 50052


@dataclass(frozen=True, order=True)
class Rule:
    """TCP to ``port`` from ``network`` (CIDR), and for whom."""

    port: int
    network: str
    whom: str


@dataclass(frozen=True)
class Applied:
    """What ``apply`` found and did: the group's id, whether it was made now, how many rules came and went."""

    group: str
    made: bool
    added: int
    removed: int


def rules(cluster: Cluster) -> tuple[Rule, ...]:
    """All that may come in from outside. Raises ConfigError where an address is still to be filled in."""
    role = cluster.metadata.mpc_ray
    open_to: dict[tuple[int, str], list[str]] = {(SSH_PORT, "operator"): role.firewall.ssh}
    if isinstance(role, PartyRole):
        open_to[PEER_PORT, "peer"] = role.firewall.peers
        open_to[GATEWAY_PORT, "gateway"] = role.firewall.gateways
    elif isinstance(role, GatewayRole):
        open_to[role.port, "client"] = role.firewall.clients
    found = []
    for (port, whom), networks in open_to.items():
        for network in networks:
            if FILL_ME in network:
                raise ConfigError(
                    f"metadata.mpc_ray.firewall: {network} is still to be filled in",
                    remedy="an address or network, as 203.0.113.7/32",
                )
            found.append(Rule(port, str(ipaddress.ip_network(network)), whom))
    return tuple(sorted(set(found)))


def group_name(cluster: Cluster) -> str:
    """The name of the security group, network tag or set of rules."""
    return f"mpc-ray-{cluster.cluster_name}"


# --- AWS -----------------------------------------------------------------------------------------------------------


def apply(cluster: AwsCluster, *, vpc: str | None = None) -> Applied:
    """Make the cluster's security group, or change it until it has exactly the rules of the file.

    ``vpc``: id of the network; None is the region's default one. Asks EC2 five times or fewer. Raises MpcError:
    boto3 is missing, EC2 refuses, there is no such network.
    """
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise MpcError("boto3 is missing, which speaks to AWS", remedy="pip install boto3") from error
    try:
        return _applied(boto3.client("ec2", region_name=cluster.provider.region), cluster, vpc)
    except (BotoCoreError, ClientError) as error:
        raise MpcError(
            f"EC2 in {cluster.provider.region} refuses: {error}",
            remedy="credentials as for `aws ec2 describe-vpcs`; rights to describe and change security groups",
        ) from error


def _applied(ec2: Any, cluster: AwsCluster, vpc: str | None) -> Applied:
    network = vpc or _default_vpc(ec2, cluster.provider.region)
    wanted = rules(cluster)
    name = group_name(cluster)
    there = ec2.describe_security_groups(
        Filters=[{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [network]}]
    )["SecurityGroups"]
    if there:
        group, permissions = there[0]["GroupId"], there[0]["IpPermissions"]
    else:
        tags = [
            {"Key": "ray-cluster-name", "Value": cluster.cluster_name},
            {"Key": "mpc-ray", "Value": "true"},
        ]
        group = ec2.create_security_group(
            GroupName=name,
            Description=f"mpc-ray: {cluster.metadata.mpc_ray.operator}, {cluster.metadata.mpc_ray.runs}",
            VpcId=network,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
        )["GroupId"]
        permissions = []
    want = {_key(item): item for item in [_within(group), *map(_permission, wanted)]}
    have = {_key(item): item for whole in permissions for item in _split(whole)}
    if surplus := [item for key, item in have.items() if key not in want]:
        ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=surplus)
    if lacking := [item for key, item in want.items() if key not in have]:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=lacking)
    return Applied(group, not there, len(lacking), len(surplus))


def _default_vpc(ec2: Any, region: str) -> str:
    found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise MpcError(f"{region} has no default VPC", remedy="--vpc vpc-… names the one to use")
    return str(found[0]["VpcId"])


def _permission(rule: Rule) -> dict[str, Any]:
    entry = {"Description": rule.whom}
    if ipaddress.ip_network(rule.network).version == 4:
        source: dict[str, Any] = {"IpRanges": [{"CidrIp": rule.network, **entry}]}
    else:
        source = {"Ipv6Ranges": [{"CidrIpv6": rule.network, **entry}]}
    return {"IpProtocol": "tcp", "FromPort": rule.port, "ToPort": rule.port, **source}


def _within(group: str) -> dict[str, Any]:
    return {
        "IpProtocol": "-1",
        "UserIdGroupPairs": [{"GroupId": group, "Description": "nodes of this cluster"}],
    }


_SOURCES = {
    "IpRanges": "CidrIp",
    "Ipv6Ranges": "CidrIpv6",
    "PrefixListIds": "PrefixListId",
    "UserIdGroupPairs": "GroupId",
}


def _split(permission: dict[str, Any]) -> list[dict[str, Any]]:
    """One item a source: EC2 gives all sources of one port together."""
    plain = {key: permission[key] for key in ("IpProtocol", "FromPort", "ToPort") if key in permission}
    return [plain | {kind: [source]} for kind in _SOURCES for source in permission.get(kind, [])]


def _key(permission: dict[str, Any]) -> tuple[Any, ...]:
    """What two rules must share to be the same; descriptions do not count."""
    kind = next(kind for kind in _SOURCES if permission.get(kind))
    ports = (
        (None, None) if permission["IpProtocol"] == "-1" else (permission["FromPort"], permission["ToPort"])
    )
    return (permission["IpProtocol"], *ports, kind, permission[kind][0][_SOURCES[kind]])


# --- elsewhere -----------------------------------------------------------------------------------------------------


def commands(cluster: Cluster) -> list[str]:
    """Shell commands that set the same rules where this program does not speak to the provider itself."""
    wanted = rules(cluster)
    if isinstance(cluster, GcpCluster):
        return _gcloud(cluster, wanted)
    if isinstance(cluster, AzureCluster):
        return _az(cluster, wanted)
    if isinstance(cluster, AwsCluster):
        raise ConfigError("on AWS the group is made, not printed", remedy="--apply")
    nodes = sorted({cluster.provider.head_ip, *cluster.provider.worker_ips})
    allowed = [f"sudo ufw allow proto tcp from {rule.network} to any port {rule.port}" for rule in wanted]
    within = [f"sudo ufw allow from {node}" for node in nodes] if len(nodes) > 1 else []
    return ["sudo ufw default deny incoming", *allowed, *within, "sudo ufw enable"]


def _by_port(wanted: tuple[Rule, ...]) -> dict[tuple[int, str], list[str]]:
    """Networks by port and a name; the clouds want the two families of addresses in rules of their own."""
    ports: dict[tuple[int, str], list[str]] = {}
    for rule in wanted:
        family = "" if ipaddress.ip_network(rule.network).version == 4 else "-v6"
        ports.setdefault((rule.port, f"{rule.whom}{family}"), []).append(rule.network)
    return ports


def _gcloud(cluster: GcpCluster, wanted: tuple[Rule, ...]) -> list[str]:
    """A network of its own, where nothing is open that is not named here."""
    name, project, region = group_name(cluster), cluster.provider.project_id, cluster.provider.region
    tail = f"--project={shlex.quote(project)}"
    lines = [
        f"gcloud compute networks create {name} --subnet-mode=custom {tail}",
        f"gcloud compute networks subnets create {name} --network={name} --region={region} --range=10.77.0.0/20 {tail}",
        f"gcloud compute firewall-rules create {name}-within --network={name} --allow=tcp,udp,icmp"
        f" --source-tags={name} --target-tags={name} {tail}",
    ]
    return lines + [
        f"gcloud compute firewall-rules create {name}-{whom} --network={name} --allow=tcp:{port}"
        f" --source-ranges={','.join(networks)} --target-tags={name} {tail}"
        for (port, whom), networks in _by_port(wanted).items()
    ]


def _az(cluster: AzureCluster, wanted: tuple[Rule, ...]) -> list[str]:
    """Ray's network group is made anew by each `ray up`, so its name is looked up and its rules are set again."""
    group = shlex.quote(cluster.provider.resource_group)
    lines = [
        f"NSG=$(az network nsg list --resource-group {group} --output tsv"
        f" --query \"[?starts_with(name, 'ray-{cluster.cluster_name}-')].name\")"
    ]
    ports = _by_port(wanted)
    if (SSH_PORT, "operator") not in ports:  # nobody may come over IPv4
        lines.append(f'az network nsg rule delete --name SSH --resource-group {group} --nsg-name "$NSG"')
    for number, ((port, whom), networks) in enumerate(ports.items()):
        if (port, whom) == (SSH_PORT, "operator"):  # Ray's own rule, which lets everybody in
            what = "update --name SSH"
        else:
            what = (
                f"create --name mpc-ray-{whom} --priority {1010 + number} --direction Inbound --access Allow"
            )
        lines.append(
            f'az network nsg rule {what} --resource-group {group} --nsg-name "$NSG" --protocol Tcp'
            f" --source-address-prefixes {' '.join(networks)} --destination-port-ranges {port}"
        )
    return lines
