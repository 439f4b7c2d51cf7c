"""Settings: one model, filled from defaults, then a YAML file, then MPC_* of the environment, then flags.

A later source wins over an earlier one. A key that nobody knows is an error, and so is one whose feature is
not built yet: a setting that is ignored in silence is a setting that somebody relies on.

Names are the same everywhere: field `timeout_s` is `timeout_s:` in the file, MPC_TIMEOUT_S in the environment
and `timeout_s=` as a flag. Two more spellings are understood for fields that are also known by another name:
`gpu_enabled` (true is device cuda, false is device cpu) and `tls_enabled` (tls).
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from mpc_ray import wording
from mpc_ray.cost.links import link_of
from mpc_ray.cost.tables import VARIANTS, choose
from mpc_ray.errors import ConfigError

PREFIX = "MPC_"
FILE_VARIABLE = "MPC_CONFIG"  # names the YAML file
TEST_PREFIX = "MPC_TEST_"  # switches of the test suite, no settings
# Of the gateway, client and proxy (mpc_ray.client.settings), and of the planner (mpc_ray.planner.settings).
OTHERS = (TEST_PREFIX, "MPC_GATEWAY_", "MPC_CLIENT_", "MPC_PROXY_", "MPC_PLANNER_")

Protocol = Literal["semi_honest_3pc", "aby3", "malicious_3pc"]
Variant = Literal["bytes", "rounds", "auto"]
EXPERIMENTAL = {
    "malicious_3pc": "malicious_3pc is experimental: nobody outside the project has reviewed the proof of its security"
}
# What only this protocol can do: weights that parties may see, and shares on a GPU.
PUBLIC_WEIGHTS = ON_CUDA = ("semi_honest_3pc",)
# A job that was interrupted is not computed again: it may have failed because a party cheats.
RUNS_ONCE = ("malicious_3pc",)
Launcher = Literal["threads", "processes", "ray"]
Device = Literal["cpu", "cuda"]
Prf = Literal["auto", "aes128ctr", "chacha20"]

# Known names whose feature is not built: key -> what it would need.
UNBUILT: Mapping[str, str] = {
    "audit_logging": "the audit log",
    "cache_size": "the answer cache",
    "compliance_frameworks": "compliance profiles",
    "encryption_at_rest": "encrypted storage of shares",
    "i18n_default_lang": "messages in several languages",
    "i18n_supported_langs": "messages in several languages",
    "max_concurrent_tasks": "the job queue",
    "region": "placement over several regions",
    "threat_detection": "threat detection",
    "worker_processes": "several triples",
}
ALIASES: Mapping[str, str] = {"gpu_enabled": "device", "tls_enabled": "tls"}
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
# What the three parties must agree on: it changes the messages of the protocol, or who may read them.
AGREED = (
    "protocol",
    "variant",
    "security_level",
    "quantum_planning",
    "tls",
    "buckets",
    "range_check",
    "shadow",
)


class Config(BaseModel):
    """Everything that a session can be told. Immutable; `load` makes one from all sources."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    protocol: Protocol = Field("semi_honest_3pc", description="how the parties compute on shares")
    variant: Variant = Field("bytes", description="fewest bytes, fewest rounds, or auto: by rtt_ms and mbit")
    rtt_ms: float = Field(
        0.0, ge=0, lt=60_000, description="round trip between the parties, for variant auto"
    )
    mbit: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="bandwidth between the parties, Mbit/s, for variant auto; none: no limit",
    )
    security_level: Literal[128] = Field(128, description="bits of computational security")
    launcher: Launcher = Field("ray", description="where the three parties run")
    device: Device = Field("cpu", description="what a party computes on")
    prf: Prf = Field("auto", description="cipher of the common streams; auto: AES, on cuda ChaCha20")
    gpu_memory_fraction: float = Field(1.0, gt=0, le=1, description="of a GPU's memory, for each process")
    num_gpus: float = Field(0.0, ge=0, allow_inf_nan=False, description="GPUs reserved in Ray for each party")
    tls: bool = Field(True, description="mutual TLS 1.3 between the parties, and to the client")
    buckets: tuple[int, ...] = Field(
        (16, 32, 64, 128, 256, 512), description="lengths in tokens to which texts are padded"
    )
    range_check: bool = Field(True, description="end in an error when a value leaves its calibrated window")
    shadow: bool = Field(False, description="compare every layer with the float model, at the client")
    timeout_s: float = Field(60.0, gt=0, le=86_400, description="longest wait for a peer in a step, seconds")
    threads: int = Field(1, ge=1, le=1024, description="compute threads of each party")
    ray_address: str | None = Field(None, min_length=1, description="cluster to join; none starts one here")
    name: str | None = Field(None, pattern=NAME, description="the session's name")
    detached: bool = Field(False, description="parties outlive the session and are found again by name")
    quantum_planning: Literal[False] = Field(False, description="not built: greedy places the parties")

    @field_validator("security_level", "quantum_planning", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        """The environment knows text only, and pydantic compares a literal as it is."""
        return yaml.safe_load(value) if isinstance(value, str) and value.isalnum() else value

    @field_validator("buckets", mode="before")
    @classmethod
    def _split_buckets(cls, value: object) -> object:
        """From the environment or a flag: "16,32,64"."""
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("buckets")
    @classmethod
    def _check_buckets(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value or value[0] < 1 or any(a >= b for a, b in pairwise(value)):
            raise ValueError("must be whole numbers from 1 upwards, each larger than the one before")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Config:
        if self.num_gpus > 0 and self.launcher != "ray":
            raise ValueError("num_gpus is a reservation in Ray; set launcher to ray")
        if not self.tls and self.launcher != "threads":
            raise ValueError(
                f"launcher {self.launcher} always uses TLS; leave tls on, or set launcher to threads"
            )
        if self.device == "cuda" and self.protocol not in ON_CUDA:
            raise ValueError(f"{self.protocol} has no kernels for cuda; set device to cpu")
        if self.gpu_memory_fraction < 1 and self.device != "cuda":
            raise ValueError("gpu_memory_fraction limits a GPU; set device to cuda")
        if self.ray_address is not None and self.launcher != "ray":
            raise ValueError("ray_address is given but the launcher is not ray")
        if self.detached and self.name is None:
            raise ValueError("a detached session can be found again by its name only; give a name")
        if self.detached and self.launcher != "ray":
            raise ValueError("detached needs launcher ray")
        if self.variant == "rounds" and self.protocol not in VARIANTS:
            raise ValueError(f"{self.protocol} has one variant; leave variant at bytes, or take auto")
        return self

    def chosen(self) -> Config:
        """The same with ``auto`` decided: by the cost model for links of ``rtt_ms`` and ``mbit``."""
        if self.variant != "auto":
            return self
        return self.model_copy(update={"variant": choose(self.protocol, link_of(self.rtt_ms, self.mbit))})

    @property
    def stream_cipher(self) -> str:
        """The cipher that ``prf`` means on this device: a GPU expands ChaCha20 itself, and AES not at all."""
        if self.prf != "auto":
            return self.prf
        return "chacha20" if self.device == "cuda" else "aes128ctr"

    def check_weights(self, weights: str) -> None:
        """Raises ConfigError where the protocol keeps weights secret and they are to be public: before anybody is
        given anything.
        """
        if weights == "public" and self.protocol not in PUBLIC_WEIGHTS:
            raise ConfigError(
                f"{self.protocol} keeps weights secret, and they are to be public",
                remedy="use semi_honest_3pc, or leave the weights secret",
            )

    def digest(self) -> bytes:
        """32 bytes that are equal at two parties if and only if they agree on all of `AGREED`. (HELLO compares the
        cipher apart from it.)

        SHA-256 over canonical JSON (sorted keys, no spaces) of these fields. HELLO compares it.
        """
        agreed = self.model_dump(mode="json", include=set(AGREED))
        return hashlib.sha256(json.dumps(agreed, sort_keys=True, separators=(",", ":")).encode()).digest()


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    **flags: object,
) -> Config:
    """Make a `Config` from all sources; a flag that is None was not given.

    `path` is the YAML file; where it is None, MPC_CONFIG names it, and where that is unset there is none.
    `environ` defaults to the process's environment.

    Raises:
        ConfigError: an unknown, unbuilt, malformed or contradictory setting; says which, and who set it.
    """
    environ = os.environ if environ is None else environ
    chosen = path if path is not None else environ.get(FILE_VARIABLE)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    given = {name: value for name, value in flags.items() if value is not None}
    layers: list[tuple[Mapping[str, object], str]] = [
        (_from_environ(environ), "environment"),
        (given, "argument"),
    ]
    if chosen is not None:
        layers.insert(0, (_from_file(Path(chosen)), f"file {chosen}"))
    for layer, source in layers:
        resolved = _resolve(layer, source)
        values |= resolved
        sources |= dict.fromkeys(resolved, source)
    try:
        return Config(**values)
    except ValidationError as error:
        raise _explain(error, sources) from None


def _from_file(path: Path) -> dict[str, object]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError(
            f"configuration file {path}: {reason}", remedy="check --config or MPC_CONFIG"
        ) from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(
            f"configuration file {path}{where}: not valid YAML", remedy="correct the file"
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(
            f"configuration file {path}: must hold `setting: value` lines", remedy="correct the file"
        )
    return cast(dict[str, object], content)


def _from_environ(environ: Mapping[str, str]) -> dict[str, object]:
    """Settings by key. An empty variable counts as not set, as shells and Compose files leave them."""
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in sorted(environ.items())
        if name.startswith(PREFIX) and not name.startswith(OTHERS) and name != FILE_VARIABLE and value
    }


def _resolve(layer: Mapping[str, object], source: str) -> dict[str, object]:
    """Turn a source's keys into fields; refuse those that are unknown or not built."""
    fields: dict[str, object] = {}
    for key, value in layer.items():
        shown = PREFIX + key.upper() if source == "environment" else key
        if key in UNBUILT:
            raise ConfigError(
                f"{shown} ({source}): {UNBUILT[key]} is not built yet, and a setting is never ignored",
                remedy=f"remove {shown}",
            )
        if key not in ALIASES and key not in Config.model_fields:
            raise _unknown(shown, key, source)
        field = ALIASES.get(key, key)
        setting = _device(shown, value) if key == "gpu_enabled" else value
        if field in fields:
            raise ConfigError(
                f"{shown} ({source}) sets {field}, which is set there already", remedy="keep one"
            )
        fields[field] = setting
    return fields


def _device(shown: str, value: object) -> Device:
    try:
        return "cuda" if TypeAdapter(bool).validate_python(value) else "cpu"
    except ValidationError:
        raise ConfigError(f"{shown}: must be true or false", remedy=f"correct {shown}") from None


def _unknown(shown: str, key: str, source: str) -> ConfigError:
    near = get_close_matches(key, [*Config.model_fields, *ALIASES], n=1)
    if not near:
        return ConfigError(f"{shown} ({source}) is not a setting", remedy=f"remove {shown}")
    meant = PREFIX + near[0].upper() if source == "environment" else near[0]
    return ConfigError(f"{shown} ({source}) is not a setting", remedy=f"did you mean {meant}?")


def _explain(error: ValidationError, sources: Mapping[str, str]) -> ConfigError:
    """One line for the first problem; pydantic's own text spans several and shows what was typed."""
    first = error.errors(include_url=False, include_input=False)[0]
    if not first["loc"]:
        text = first["msg"].removeprefix("Value error, ")
        return ConfigError(f"settings contradict each other: {text}", remedy="change one of them")
    name = str(first["loc"][0])
    source = sources.get(name, "default")
    shown = PREFIX + name.upper() if source == "environment" else name
    if name == "quantum_planning":
        return ConfigError(
            f"{shown} ({source}): the quantum-inspired solvers are not built yet",
            remedy="set it to false, or remove it",
        )
    return ConfigError(f"{shown} ({source}): {wording.plain(first)}", remedy=f"correct {shown}")


@functools.cache
def warn_if_experimental(protocol: str) -> None:
    """Say so in the log, once a process."""
    if protocol in EXPERIMENTAL:
        logging.getLogger("mpc_ray.config").warning("%s", EXPERIMENTAL[protocol])
