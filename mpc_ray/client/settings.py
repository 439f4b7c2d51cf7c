"""Settings of a client and its proxy: a YAML file, then the environment, the later winning. Unknown ones are errors.

``gateway`` is MPC_GATEWAY_URL in the environment, ``gateway_ca`` and ``gateway_name`` MPC_GATEWAY_CA and
MPC_GATEWAY_NAME, the API key MPC_GATEWAY_API_KEY; ``set`` is MPC_CLIENT_SET, and so are the others; ``proxy.port`` is
MPC_PROXY_PORT. Lists are separated by commas there. Paths in a file are relative to its own folder. Keys are never in
the file: it names files of their own, which others may not read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mpc_ray import wording
from mpc_ray.client.http import FEDERATION
from mpc_ray.client.parties import FIRST_USE, Trust
from mpc_ray.client.proxy.settings import ProxySettings
from mpc_ray.errors import ConfigError
from mpc_ray.trust import files
from mpc_ray.trust.secret import Secret

API_KEY_VARIABLE = "MPC_GATEWAY_API_KEY"
FILE_VARIABLE = "MPC_CLIENT_CONFIG"  # names the YAML file
_SPECIAL = {"gateway": "MPC_GATEWAY_URL", "gateway_ca": "MPC_GATEWAY_CA", "gateway_name": "MPC_GATEWAY_NAME"}
_REMEDY = "configs/proxy.example.yaml has every setting"


class ClientSettings(BaseModel):
    """Everything that a client and its proxy can be told. Immutable; ``load`` makes one."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    gateway: str = Field(min_length=1, description="the gateway's URL, https://HOST[:PORT]")
    gateway_ca: str | None = Field(
        None, min_length=1, description="PEM file of the authority of its HTTPS certificate, or: federation"
    )
    gateway_name: str | None = Field(None, min_length=1, description="the name in it, if not the URL's host")
    api_key_file: Path | None = Field(None, description="file with the gateway's API key, mode 0600")
    bundle: Path = Field(description="the model's client bundle, a folder")
    signing_key: Path = Field(description="file of mpc-ray keys signing, enrolled with each operator")
    trust: str = Field(
        min_length=1, description="the federation's authority: PEM file, SHA-256 fingerprint, or: tofu"
    )
    pin: Path | None = Field(
        None, description="file that keeps what was seen of the directory; tofu needs it"
    )
    pin_parties: bool = Field(False, description="keep the parties' keys there too")
    set: str | None = Field(None, min_length=1, description="this set of parties and no other")
    regions: tuple[str, ...] = Field((), description="sets or regions in order of preference")
    jurisdictions: tuple[str, ...] = Field(
        (), description="where all three operators must be; none: anywhere"
    )
    purpose: str = Field("inference", min_length=1, description="the purpose signed in every job")
    retention: str = Field("job", min_length=1, description="what may be kept afterwards; job: nothing")
    protocol: Literal["semi_honest_3pc", "aby3", "malicious_3pc"] = Field(
        "semi_honest_3pc", description="how the parties must compute"
    )
    timeout_s: float = Field(120.0, gt=0, le=3600, description="for all of a request")
    attempt_timeout_s: float = Field(60.0, gt=0, le=600, description="for one sending of a job")
    retries: int = Field(8, ge=0, le=100, description="further tries of a job")
    concurrency: int = Field(4, ge=1, le=256, description="jobs under way at once")
    proxy: ProxySettings = Field(ProxySettings.model_validate({}), description="the proxy itself")

    @field_validator("regions", "jurisdictions", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> ClientSettings:
        if self.trust == FIRST_USE and self.pin is None:
            raise ValueError("trust: tofu needs `pin`, the file that keeps what was seen first")
        if self.pin_parties and self.pin is None:
            raise ValueError("pin_parties needs `pin`, the file that keeps them")
        return self

    @classmethod
    def load(
        cls, path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
    ) -> ClientSettings:
        """From ``path`` (None: MPC_CLIENT_CONFIG, else no file) and ``environ``. ConfigError says which setting is
        wrong, and never what was typed there."""
        environ = os.environ if environ is None else environ
        chosen = path if path is not None else environ.get(FILE_VARIABLE) or None
        given: dict[str, Any] = {} if chosen is None else _read(Path(chosen))
        base = Path() if chosen is None else Path(chosen).expanduser().resolve().parent
        given, proxy = _placed(given, base), given.get("proxy")
        if isinstance(proxy, dict):
            given["proxy"] = _placed(proxy, base)
        for name, value in _environment(environ).items():
            if name.startswith("proxy."):
                given["proxy"] = {**(given.get("proxy") or {}), name.partition(".")[2]: value}
            else:
                given[name] = value
        try:
            return cls(**given)
        except ValidationError as error:
            raise _explain(error) from None

    def api_key(self, environ: Mapping[str, str] | None = None) -> Secret | None:
        """The gateway's API key, from the environment or its file; None where neither is given."""
        environ = os.environ if environ is None else environ
        if text := environ.get(API_KEY_VARIABLE):
            return Secret(text.strip().encode())
        return None if self.api_key_file is None else read_key(self.api_key_file)

    def arguments(self, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """What ``AsyncClient`` and ``Client`` take, but for the URL, which is ``gateway``."""
        same = (
            "bundle",
            "signing_key",
            "set",
            "regions",
            "jurisdictions",
            "purpose",
            "retention",
            "protocol",
        )
        numbers = ("timeout_s", "attempt_timeout_s", "retries", "concurrency")
        return {name: getattr(self, name) for name in (*same, *numbers)} | {
            "api_key": self.api_key(environ),
            "trust": Trust.of(self.trust, self.pin, pin_parties=self.pin_parties),
            "verify": self.gateway_ca,
            "server_name": self.gateway_name,
        }


def read_key(path: Path) -> Secret:
    """A key that is text, from a file of its own. ConfigError if others may read it, or it holds no such key."""
    text = files.read_private(path, 4096).strip()
    if not text or not text.isascii() or len(text.split()) != 1:
        raise ConfigError(f"{path} holds no key", remedy="one line of visible ASCII characters, nothing else")
    return Secret(text)


_PATHS = ("api_key_file", "bundle", "signing_key", "pin", "key_file", "certificate", "certificate_key")


def _placed(given: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """With paths counted from ``base``."""
    placed = {
        k: base / Path(v).expanduser() if k in _PATHS and isinstance(v, str) else v for k, v in given.items()
    }
    for name, words in (("gateway_ca", (FEDERATION,)), ("trust", (FIRST_USE,))):
        value = placed.get(name)
        if isinstance(value, str) and value not in words and (base / Path(value).expanduser()).exists():
            placed[name] = str(base / Path(value).expanduser())
    return placed


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Settings by name; an empty variable counts as not set. ConfigError for one that is none."""
    names = {
        _SPECIAL.get(f, f"MPC_CLIENT_{f.upper()}"): f for f in ClientSettings.model_fields if f != "proxy"
    }
    names |= {f"MPC_PROXY_{f.upper()}": f"proxy.{f}" for f in ProxySettings.model_fields if f != "aliases"}
    found = {}
    for variable, value in sorted(environ.items()):
        if not variable.startswith(("MPC_GATEWAY_", "MPC_CLIENT_", "MPC_PROXY_")) or not value:
            continue
        if variable in (API_KEY_VARIABLE, FILE_VARIABLE):
            continue
        if variable not in names:
            near = get_close_matches(variable, names, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"remove it; {_REMEDY}"
            raise ConfigError(f"{variable} (environment) is not a setting", remedy=remedy)
        found[names[variable]] = value
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"client settings {file}: {error.strerror}", remedy="check --config") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise ConfigError(f"client settings {file}: not valid YAML in UTF-8", remedy=_REMEDY) from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"client settings {file}: must hold `setting: value` lines", remedy=_REMEDY)
    return content


def _explain(error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False, include_input=False)[0]
    where, remedy = wording.where(first) or "settings", _REMEDY
    if first["type"] == "missing":
        remedy = f"set it in the file, or {_SPECIAL.get(where, f'MPC_CLIENT_{where.upper()}')}"
    if first["type"] == "extra_forbidden":
        near = wording.meant(first, [*ClientSettings.model_fields, *ProxySettings.model_fields])
        remedy = f"did you mean {near}?" if near else f"remove it; {_REMEDY}"
    return ConfigError(f"client settings: {wording.after(where, first)}", remedy=remedy)
