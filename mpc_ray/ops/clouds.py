"""What the clouds may be told: `provider` and `node_config` of a file for ``ray up``, one section a cloud."""

# ruff: noqa: N815 - the clouds' own names
from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """Unknown keys are errors, and so is a number where a text belongs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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
