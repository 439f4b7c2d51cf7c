"""Settings of one party endpoint: `mpc-ray party --config FILE`. configs/party.example.yaml has them all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mpc_ray import wording
from mpc_ray.config import ON_CUDA
from mpc_ray.errors import ConfigError
from mpc_ray.trust.policy import Policy


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Listen(_Part):
    """Where one port listens. What others dial stands in the signed directory."""

    host: str = Field("0.0.0.0", min_length=1, description="address to listen on")
    port: int = Field(ge=0, le=65_535, description="port; 0 takes any free one")


class RayOptions(_Part):
    """The operator's Ray: one that is started here, or one that runs already on this machine."""

    address: str | None = Field(None, min_length=1, description="host:port of a cluster; none starts one")
    token: Path | None = Field(None, description="file with its token; needed with an address")
    num_cpus: float = Field(0, ge=0, description="of a Ray of our own; 0: what the slots need")

    @model_validator(mode="after")
    def _check(self) -> RayOptions:
        if self.address is not None and self.token is None:
            raise ValueError("ray.address needs ray.token: an open cluster is refused")
        return self


class Limits(_Part):
    """What a gateway may ask of this party."""

    links: int = Field(256, ge=4, le=4096, description="connections of gateways")
    gateway_links: int = Field(64, ge=4, le=4096, description="connections of one gateway")
    gateway_slots: int = Field(
        0,
        ge=0,
        le=64,
        description="slots that one gateway may hold; 0: all but one for each other gateway of the directory",
    )
    held_bytes: int = Field(1 << 30, ge=1 << 20, description="memory for jobs that wait for their run")
    envelope_bytes: int = Field(64 << 20, ge=1 << 16, description="largest envelope")
    receiving_bytes: int = Field(
        256 << 20, ge=1 << 20, description="memory for what gateways are sending, of all links together"
    )
    run_timeout_s: float = Field(300.0, gt=0, le=3600, description="longest run of one batch")


class PartyConfig(_Part):
    """Everything that a party endpoint can be told. Unknown keys are errors; paths are relative to the file."""

    folder: Path = Field(description="the party's folder, made by mpc-ray certs request")
    peer: Listen = Field(
        default_factory=lambda: Listen.model_validate({"port": 50051}),
        description="for the two other parties",
    )
    gateway: Listen = Field(
        default_factory=lambda: Listen.model_validate({"port": 50052}), description="for gateways"
    )
    host: Literal["ray", "process"] = Field("ray", description="what slots are: Ray actors, or processes")
    slots: int = Field(1, ge=1, le=64, description="triples that this party can be part of at once")
    threads: int = Field(1, ge=1, le=1024, description="compute threads of a slot")
    device: Literal["cpu", "cuda"] = Field("cpu", description="what a slot computes on")
    num_gpus: float = Field(0.0, ge=0, description="GPUs that Ray reserves for a slot")
    protocol: Literal["semi_honest_3pc", "aby3", "malicious_3pc"] = Field(
        "semi_honest_3pc", description="how parties compute"
    )
    variant: Literal["bytes", "rounds"] = Field(
        "bytes",
        description="of semi_honest_3pc: fewest bytes, or fewest rounds; the same at all three parties",
    )
    executor: str = Field("", description="module:attribute in place of the protocol's own; for tests")
    step_timeout_s: float = Field(60.0, gt=0, le=3600, description="longest wait for a peer within a step")
    ray: RayOptions = Field(default_factory=lambda: RayOptions.model_validate({}))
    policy: Policy = Field(default_factory=lambda: Policy.model_validate({}))
    limits: Limits = Field(default_factory=lambda: Limits.model_validate({}))
    metrics_port: int = Field(0, ge=0, le=65_535, description="Prometheus on the loopback; 0: none")
    trace_file: Path | None = Field(
        None, description="spans as JSON lines; OTEL_EXPORTER_OTLP_ENDPOINT sends them"
    )
    log_file: Path | None = Field(None, description="the log as JSON lines, instead of standard error")

    @model_validator(mode="after")
    def _check_device(self) -> PartyConfig:
        if self.device == "cuda" and self.protocol not in ON_CUDA:
            raise ValueError(f"{self.protocol} has no kernels for cuda; set device to cpu")
        return self

    @staticmethod
    def load(path: str | os.PathLike[str]) -> PartyConfig:
        """Read FILE. ConfigError names the first key that is unknown or does not fit."""
        file = Path(path)
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
            raise ConfigError(f"{file}: {reason}", remedy="give the party's settings with --config") from None
        except yaml.YAMLError:
            raise ConfigError(f"{file} is no YAML", remedy="see configs/party.example.yaml") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{file} holds no settings", remedy="see configs/party.example.yaml")
        try:
            made = PartyConfig(**content)
        except ValidationError as error:
            raise _explain(file, error) from None
        except TypeError:
            raise ConfigError(
                f"{file}: keys must be words", remedy="see configs/party.example.yaml"
            ) from None
        base = file.resolve().parent
        ray = made.ray
        if ray.token is not None:
            ray = ray.model_copy(update={"token": base / ray.token})
        changed: dict[str, object] = {"folder": base / made.folder, "ray": ray}
        for name in ("trace_file", "log_file"):
            if (value := getattr(made, name)) is not None:
                changed[name] = base / value
        return made.model_copy(update=changed)

    def agreed(self) -> bytes:
        """32 bytes that must be the same at all three parties: HELLO compares them."""
        return hashlib.sha256(f"mpc-ray endpoint|{self.protocol}".encode()).digest()


def _explain(file: Path, error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False, include_input=False)[0]
    parts: tuple[type[BaseModel], ...] = (PartyConfig, Listen, RayOptions, Policy, Limits)
    near = wording.meant(first, [name for part in parts for name in part.model_fields])
    remedy = f"did you mean {near}?" if near else "see configs/party.example.yaml"
    return ConfigError(f"{file}: {wording.after(wording.where(first) or 'settings', first)}", remedy=remedy)
