"""What a file for ``ray up`` may contain, as far as this project's cluster files go.

Ray checks the top level of such a file and its node types. What stands under ``provider`` and ``node_config`` it
hands to the cloud as it is: a typo like ``regoin`` is found when the machine is there, or never. These models
know every key that our files use and refuse all others. ``metadata.mpc_ray``, which Ray ignores, says who may
reach the cluster: ``mpc_ray.ops.firewall`` makes rules of it.
"""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, Field

from mpc_ray.ops.clouds import (
    AwsNode,
    AwsProvider,
    AzureNode,
    AzureProvider,
    GcpNode,
    GcpProvider,
    LocalProvider,
    Strict,
)

# What somebody still has to fill in stands in a file as FILL-ME, or as a word that contains it.
FILL_ME = "FILL-ME"


def _network(text: str) -> str:
    if FILL_ME not in text:
        ipaddress.ip_network(text)
    return text


Network = Annotated[str, AfterValidator(_network)]
Commands = list[str]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")]


# --- whom the cluster serves ---------------------------------------------------------------------------------------


class PartyFirewall(Strict):
    """Networks in CIDR form that may reach a party: ``ssh`` 22, ``peers`` 50051, ``gateways`` 50052."""

    ssh: list[Network] = Field(min_length=1)
    peers: list[Network] = Field(min_length=2)
    gateways: list[Network] = Field(min_length=1)


class GatewayFirewall(Strict):
    """Networks in CIDR form that may reach a gateway: ``ssh`` 22, ``clients`` its HTTPS port."""

    ssh: list[Network] = Field(min_length=1)
    clients: list[Network] = Field(min_length=1)


class PartyRole(Strict):
    """One party of one set; ``operator`` is the trust domain."""

    runs: Literal["party"]
    operator: Name
    party: Literal[0, 1, 2]
    set: Name
    firewall: PartyFirewall


class GatewayRole(Strict):
    """A gateway, which holds no share in the clear."""

    runs: Literal["gateway"]
    operator: Name
    port: int = Field(default=8443, ge=1, le=65535)
    firewall: GatewayFirewall


class Metadata(Strict):
    """The one key of ``metadata`` is ours."""

    mpc_ray: PartyRole | GatewayRole = Field(discriminator="runs")


# --- the whole file ------------------------------------------------------------------------------------------------

Node = TypeVar("Node", bound=Strict)


class Labels(Strict):
    """Texts, also the party's index: Ray takes nothing else. A gateway's nodes belong to no party."""

    region: str
    trust: Name
    party: Literal["0", "1", "2"] | None = None


class NodeType(Strict, Generic[Node]):
    """One kind of machine. ``resources`` are whole numbers; GPU counts devices."""

    node_config: Node
    resources: dict[Annotated[str, Field(min_length=1)], int]
    labels: Labels
    min_workers: int = Field(default=0, ge=0)
    max_workers: int = Field(default=0, ge=0)
    idle_timeout_s: float | None = Field(default=None, gt=0)


class Auth(Strict):
    ssh_user: str
    ssh_private_key: str | None = None
    ssh_public_key: str | None = None
    ssh_proxy_command: str | None = None


class ClusterFile(Strict):
    """What files of every provider have in common."""

    cluster_name: Name
    metadata: Metadata
    max_workers: int = Field(ge=0)
    idle_timeout_minutes: float = Field(default=5, gt=0)
    upscaling_speed: float = Field(default=1.0, gt=0)
    auth: Auth
    file_mounts: dict[str, str] = Field(default_factory=dict)
    rsync_exclude: list[str] = Field(default_factory=list)
    # Given in every file, empty or not: what is left out, Ray fills with commands that install another Ray.
    initialization_commands: Commands
    setup_commands: Commands
    head_setup_commands: Commands
    worker_setup_commands: Commands
    head_start_ray_commands: Commands = Field(min_length=1)
    worker_start_ray_commands: Commands


class AwsCluster(ClusterFile):
    provider: AwsProvider
    available_node_types: dict[str, NodeType[AwsNode]] = Field(min_length=1)
    head_node_type: str


class GcpCluster(ClusterFile):
    provider: GcpProvider
    available_node_types: dict[str, NodeType[GcpNode]] = Field(min_length=1)
    head_node_type: str


class AzureCluster(ClusterFile):
    provider: AzureProvider
    available_node_types: dict[str, NodeType[AzureNode]] = Field(min_length=1)
    head_node_type: str


class LocalCluster(ClusterFile):
    """Ray refuses node types here: labels are arguments of ``ray start``."""

    provider: LocalProvider
    min_workers: int = Field(default=0, ge=0)


Cluster = AwsCluster | GcpCluster | AzureCluster | LocalCluster
MODELS: dict[str, type[ClusterFile]] = {
    "aws": AwsCluster,
    "gcp": GcpCluster,
    "azure": AzureCluster,
    "local": LocalCluster,
}


def model_of(config: dict[str, Any]) -> type[ClusterFile] | None:
    """The model for the provider that a file names; None where it names none that we know."""
    provider = config.get("provider")
    kind = provider.get("type") if isinstance(provider, dict) else None
    return MODELS.get(kind) if isinstance(kind, str) else None
