"""What a file for ``ray up`` may contain, as far as this project's cluster files go.

Ray checks the top level of such a file and its node types. What stands under ``provider`` and ``node_config`` it
hands to the cloud as it is: a typo like ``regoin`` is found when the machine is there, or never. These models
know every key that our files use and refuse all others. ``metadata.mpc_ray``, which Ray ignores, says who may
reach the cluster: ``mpc_ray.ops.firewall`` makes rules of it.
"""

# ruff: noqa: N815 - the clouds' own names
from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# What somebody still has to fill in stands in a file as FILL-ME, or as a word that contains it.
FILL_ME = "FILL-ME"


def _network(text: str) -> str:
    if FILL_ME not in text:
        ipaddress.ip_network(text)
    return text


Network = Annotated[str, AfterValidator(_network)]
Commands = list[str]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")]


class Strict(BaseModel):
    """Unknown keys are errors, and so is a number where a text belongs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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


# --- AWS -----------------------------------------------------------------------------------------------------------


class AwsKeyPair(Strict):
    key_name: str


class AwsProvider(Strict):
    """``security_group`` is left out on purpose: Ray adds port 22 for the whole world to whatever it says."""

    type: Literal["aws"]
    region: str
    availability_zone: str | None = None
    cache_stopped_nodes: bool
    use_internal_ips: bool = False
    key_pair: AwsKeyPair | None = None


class EbsVolume(Strict):
    VolumeSize: int = Field(ge=1)
    VolumeType: str = "gp3"
    Encrypted: bool = False
    KmsKeyId: str | None = None
    Iops: int | None = None
    Throughput: int | None = None
    DeleteOnTermination: bool = True


class BlockDevice(Strict):
    DeviceName: str
    Ebs: EbsVolume


class InstanceMetadata(Strict):
    HttpTokens: Literal["required", "optional"]
    HttpPutResponseHopLimit: int = Field(default=1, ge=1, le=64)
    HttpEndpoint: Literal["enabled", "disabled"] = "enabled"


class InstanceProfile(Strict):
    Arn: str | None = None
    Name: str | None = None


class Tag(Strict):
    Key: str
    Value: str


class TagSpecification(Strict):
    ResourceType: str
    Tags: list[Tag]


class AwsNode(Strict):
    """Arguments of RunInstances; ``SubnetIds`` is Ray's own."""

    InstanceType: str
    ImageId: str
    SecurityGroupIds: list[str] = Field(default_factory=list)
    SubnetIds: list[str] | None = None
    KeyName: str | None = None
    BlockDeviceMappings: list[BlockDevice] = Field(default_factory=list)
    MetadataOptions: InstanceMetadata | None = None
    IamInstanceProfile: InstanceProfile | None = None
    TagSpecifications: list[TagSpecification] = Field(default_factory=list)


# --- Google Cloud --------------------------------------------------------------------------------------------------


class GcpProvider(Strict):
    type: Literal["gcp"]
    region: str
    availability_zone: str
    project_id: str
    cache_stopped_nodes: bool = False
    use_internal_ips: bool = False


class GcpDiskSource(Strict):
    diskSizeGb: int = Field(ge=10)
    sourceImage: str
    diskType: str | None = None


class GcpDisk(Strict):
    boot: bool
    autoDelete: bool
    type: Literal["PERSISTENT"]
    initializeParams: GcpDiskSource


class GcpAccess(Strict):
    name: str
    type: Literal["ONE_TO_ONE_NAT"]


class GcpInterface(Strict):
    subnetwork: str
    accessConfigs: list[GcpAccess] = Field(default_factory=list)


class GcpTags(Strict):
    items: list[str] = Field(min_length=1)


class GcpScheduling(Strict):
    onHostMaintenance: Literal["TERMINATE", "MIGRATE"]


class GcpShielded(Strict):
    enableSecureBoot: bool = False
    enableVtpm: bool = True
    enableIntegrityMonitoring: bool = True


class GcpNode(Strict):
    """The body of instances.insert. Rules of the network's firewall select by ``tags``."""

    machineType: str
    disks: list[GcpDisk] = Field(min_length=1)
    networkInterfaces: list[GcpInterface] = Field(min_length=1)
    tags: GcpTags
    scheduling: list[GcpScheduling] = Field(default_factory=list)
    shieldedInstanceConfig: GcpShielded | None = None


# --- Azure ---------------------------------------------------------------------------------------------------------


class AzureProvider(Strict):
    type: Literal["azure"]
    location: str
    resource_group: str
    subscription_id: str | None = None
    unique_id: str | None = None
    availability_zone: str | None = None
    cache_stopped_nodes: bool
    use_internal_ips: bool = False
    use_external_head_ip: bool = False


class ArmParameters(Strict):
    vmSize: str
    imagePublisher: str
    imageOffer: str
    imageSku: str
    imageVersion: str
    osDiskSize: int = Field(default=0, ge=0)
    priority: Literal["Regular", "Spot"] = "Regular"
    enableAcceleratedNetworking: bool = False
    availability_zone: str | None = None


class AzureNode(Strict):
    """Parameters of Ray's template of a machine."""

    azure_arm_parameters: ArmParameters
    tags: dict[str, str] = Field(default_factory=dict)


# --- hosts that are there already ----------------------------------------------------------------------------------


class LocalProvider(Strict):
    """``external_head_ip``: where ``ray up`` reaches the head, if not at ``head_ip``."""

    type: Literal["local"]
    head_ip: str
    worker_ips: list[str]
    external_head_ip: str | None = None


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
