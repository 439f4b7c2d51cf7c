"""Settings of a gateway: one YAML file. Unknown keys are errors; paths in it are relative to its own folder.

``folder`` is what ``mpc-ray certs request`` made for the gateway: ``tls.key``, ``tls.pem`` and ``ca.pem`` with which
it meets the parties, ``directory.json``, and beside them the gateway's own state (``keys.sqlite``).
"""

from __future__ import annotations

import hashlib
import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from mpc_ray import wording
from mpc_ray.errors import ConfigError
from mpc_ray.trust import canonical

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
SetName = Annotated[str, StringConstraints(pattern=rf"^(?:{canonical.NAME.pattern})$")]
Model = Annotated[str, StringConstraints(pattern=rf"^(?:{canonical.MODEL.pattern})$")]
Jurisdiction = Annotated[str, StringConstraints(pattern=rf"^(?:{canonical.JURISDICTION.pattern})$")]
LOCAL_NETWORKS = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")


def _network(text: str) -> IPv4Network | IPv6Network:
    return IPv6Network(text) if ":" in text else IPv4Network(text)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Https(_Part):
    """The certificate that clients see. Without it they see the gateway's own of the federation."""

    certificate: Path = Field(description="PEM, the chain from the server's certificate upwards")
    key: Path = Field(description="PEM, its private key, readable by its owner alone")


class SetSettings(_Part):
    """One set of three operators that this gateway leads triples of. Their order is the order of preference."""

    name: SetName = Field(description="the set's name in the directory")
    models: tuple[Model, ...] = Field(
        default=(), description="models to load; none: all that the three parties share"
    )
    min_triples: int = Field(
        default=1, ge=1, le=64, description="triples kept ready (under Ray Serve: replicas)"
    )
    max_triples: int = Field(default=1, ge=1, le=64, description="triples under load")

    @model_validator(mode="after")
    def _check(self) -> SetSettings:
        if self.max_triples < self.min_triples:
            raise ValueError("max_triples is below min_triples")
        return self


class Limits(_Part):
    """What one process of the gateway takes on. Everything that a caller can send has a bound."""

    body_bytes: int = Field(
        default=32 << 20, ge=1024, le=1 << 30, description="largest request body, chunked or not"
    )
    bodies_bytes: int = Field(
        default=256 << 20,
        ge=1024,
        le=1 << 34,
        description="memory for the bodies of all requests under way; more are answered 429",
    )
    header_bytes: int = Field(
        default=16 << 10, ge=1024, le=1 << 20, description="largest request line with headers"
    )
    header_s: float = Field(default=5.0, gt=0, le=60, description="a request's headers must be there within")
    body_s: float = Field(default=20.0, gt=0, le=600, description="a request's body must be there within")
    keep_alive_s: float = Field(default=20.0, gt=0, le=3600, description="an idle connection is kept for")
    connections: int = Field(default=512, ge=1, le=100_000, description="open connections")
    concurrent: int = Field(
        default=64, ge=1, le=10_000, description="inference requests under way; more are answered 429"
    )
    batch: int = Field(default=64, ge=1, le=4096, description="texts in one request")
    timeout_s: float = Field(default=30.0, gt=0, le=600, description="deadline of a request that names none")
    max_timeout_s: float = Field(
        default=60.0, gt=0, le=600, description="latest deadline that a request may name"
    )
    clock_skew_s: float = Field(default=5.0, ge=0, le=300, description="how far a client's clock may be off")
    idempotency_s: float = Field(
        default=600.0, ge=1, le=86_400, description="an answer is kept for its Idempotency-Key for"
    )
    idempotency_bytes: int = Field(
        default=64 << 20, ge=1 << 20, le=1 << 34, description="memory for such answers"
    )
    drain_s: float = Field(
        default=3.0, ge=0, le=600, description="time between 'not ready' and the end of listening"
    )

    @model_validator(mode="after")
    def _check(self) -> Limits:
        if self.timeout_s > self.max_timeout_s:
            raise ValueError("timeout_s is above max_timeout_s")
        if self.body_bytes > self.bodies_bytes:
            raise ValueError("body_bytes is above bodies_bytes")
        return self


class Batching(_Part):
    """How a leader puts jobs together (``serve.triple``)."""

    delay_ms: float = Field(
        default=5.0, ge=0, le=1000, description="longest wait for jobs on their way, while nothing runs"
    )
    wait_share: float = Field(
        default=0.05,
        ge=0,
        le=0.5,
        description="of a run's time: longest wait for callers to come back after it",
    )
    max_tokens: int = Field(
        default=512, ge=16, le=1 << 20, description="tokens in one batch, padding included"
    )
    max_queue: int = Field(default=64, ge=1, le=10_000, description="jobs that wait; more are answered 429")
    run_timeout_s: float = Field(default=120.0, gt=0, le=3600, description="longest run of one batch")
    patience_s: float = Field(
        default=25.0, ge=0, le=600, description="longest wait of jobs that were taken for another triple"
    )


class RegionSettings(_Part):
    """Which sets callers are sent to, and where their data must stay (``serve.regions``)."""

    here: SetName | None = Field(default=None, description="the region whose callers this gateway serves")
    prefer: dict[SetName, tuple[SetName, ...]] = Field(
        default_factory=dict, description="by region: sets to try first; without: those of that region"
    )
    fail_over: tuple[SetName, ...] = Field(
        default=(), description="sets to try next; none: in the order of `sets`"
    )
    residency: dict[SetName, tuple[Jurisdiction, ...]] = Field(
        default_factory=dict, description="by region: where its data must stay, whatever a job allows"
    )
    failures: int = Field(default=3, ge=1, le=1000, description="in a row, after which a set is left alone")
    pause_s: float = Field(default=1.0, gt=0, le=3600, description="first pause; doubled each time")
    max_pause_s: float = Field(default=8.0, gt=0, le=86_400, description="longest pause")


class RaySettings(_Part):
    """The Ray of the gateway, with Serve. Never a party's."""

    address: str | None = Field(
        default=None, min_length=1, description="host:port of a running cluster; none starts one"
    )
    token: Path | None = Field(default=None, description="file with its token of 64 hexadecimal digits")
    namespace: Name = Field(default="mpc-ray", description="namespace of the state's actor")


class GatewayConfig(_Part):
    """Everything that a gateway can be told."""

    folder: Path = Field(description="the gateway's folder: its identity and its state")
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(default=8443, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    https: Https | None = Field(default=None, description="the certificate that clients see")
    sets: tuple[SetSettings, ...] = Field(
        default=(), description="in order of preference; none: all of the directory"
    )
    known_clients_only: bool = Field(
        default=False,
        description="refuse signing keys that are not enrolled with this gateway (clients.json)",
    )
    metrics_networks: tuple[IPv4Network | IPv6Network, ...] = Field(
        default=tuple(map(_network, LOCAL_NETWORKS)),
        description="who may read /metrics",
    )
    regions: RegionSettings = Field(default_factory=RegionSettings, description="which sets, in which order")
    limits: Limits = Field(default_factory=Limits, description="bounds on what is taken on")
    batching: Batching = Field(default_factory=Batching, description="how jobs are put together")
    ray: RaySettings = Field(default_factory=RaySettings, description="the gateway's own Ray")

    @model_validator(mode="after")
    def _check_together(self) -> GatewayConfig:
        names = [one.name for one in self.sets]
        if len(set(names)) != len(names):
            raise ValueError("sets: a set is named twice")
        return self

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GatewayConfig:
        """Read a YAML file. Raises ConfigError: says which setting, and never what was typed there."""
        file = Path(path)
        content = _read(file)
        try:
            config = cls(**content)
        except ValidationError as error:
            raise _explain(file, error) from None
        return config.beside(file.resolve().parent)

    def beside(self, base: Path) -> GatewayConfig:
        """The same with relative paths counted from ``base``."""
        changed: dict[str, Any] = {"folder": base / self.folder}
        if self.https is not None:
            changed["https"] = Https(certificate=base / self.https.certificate, key=base / self.https.key)
        if self.ray.token is not None:
            changed["ray"] = self.ray.model_copy(update={"token": base / self.ray.token})
        return self.model_copy(update=changed)

    @property
    def certificate(self) -> tuple[Path, Path]:
        """Files of the certificate and key that clients see."""
        if self.https is not None:
            return self.https.certificate, self.https.key
        return self.folder / "tls.pem", self.folder / "tls.key"

    def digest(self) -> str:
        """32 hexadecimal digits that differ where a setting differs."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:32]


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"gateway configuration {file}: {error.strerror}", remedy="check --config"
        ) from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise ConfigError(
            f"gateway configuration {file}: not valid YAML in UTF-8", remedy="correct the file"
        ) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(
            f"gateway configuration {file}: must hold `setting: value` lines", remedy="correct the file"
        )
    return content


def _explain(file: Path, error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False, include_input=False)[0]
    where = wording.where(first) or "settings"
    remedy = f"correct {where}; configs/gateway.example.yaml has every setting"
    if first["type"] == "extra_forbidden":
        parts = (GatewayConfig, RegionSettings, Limits, Batching, RaySettings, SetSettings, Https)
        near = wording.meant(first, [name for part in parts for name in part.model_fields])
        remedy = f"did you mean {near}?" if near else f"remove {where}"
    return ConfigError(f"gateway configuration {file}: {wording.after(where, first)}", remedy=remedy)
