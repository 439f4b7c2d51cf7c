"""Settings of the proxy itself: where it listens, who may ask, under which names."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class ProxySettings(BaseModel):
    """The part ``proxy:`` of the settings file, or MPC_PROXY_… of the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; texts come in plain here")
    port: int = Field(8089, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    key_file: Path | None = Field(None, description="file with the key that callers must send; none: no key")
    certificate: Path | None = Field(None, description="PEM chain: serve HTTPS, needed beyond this machine")
    certificate_key: Path | None = Field(None, description="its private key")
    allowed_hosts: tuple[str, ...] = Field((), description="further names by which callers reach it")
    aliases: Mapping[str, str] = Field(
        default_factory=dict, description="other names of the model, e.g. text-embedding-3-small: NAME"
    )
    auto_truncate: bool = Field(False, description="cut texts that are too long, instead of refusing them")
    max_inputs: int = Field(2048, ge=1, le=2048, description="texts in one request")
    max_body_bytes: int = Field(32 << 20, ge=1024, le=1 << 30, description="largest body of a request")
    max_requests: int = Field(64, ge=1, le=10_000, description="requests under way; more are answered 429")
    drain_s: float = Field(30.0, ge=0, le=600, description="time for requests under way when told to stop")

    @model_validator(mode="after")
    def _check(self) -> ProxySettings:
        if (self.certificate is None) != (self.certificate_key is None):
            raise ValueError("certificate and certificate_key belong together")
        if not _loopback(self.host) and (self.key_file is None or self.certificate is None):
            raise ValueError(
                f"host {self.host} is reached from other machines, and texts come in plain: give key_file, "
                "certificate and certificate_key, or listen on 127.0.0.1"
            )
        return self


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
