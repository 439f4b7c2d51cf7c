"""What a party is told before it starts, and what it checks about its machine and process."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import mpc_ray
from mpc_ray.channel import Digests, Hello, digest
from mpc_ray.channel.link import DEFAULT_MAX_BYTES
from mpc_ray.errors import ConfigError, DeviceError
from mpc_ray.trust.secret import no_core_dumps

SWITCH_INTERVAL_S = 0.0005  # a busy Python thread would otherwise hold a round up by 5 ms, twice


@dataclass(frozen=True)
class PartySettings:
    """What a party is told before it starts; all of it public, and JSON.

    ``session`` names the triple (16 bytes, hex, new for each) and ``digest`` its configuration (32 bytes,
    hex): every pair compares them in HELLO. ``host`` empty means this node's own address. ``step_timeout_s``
    bounds each wait for a peer and must exceed the longest computation between two rounds. ``executor`` is
    ``module:attribute``; empty means the protocol's own. ``shadow`` lets the client ask for every layer's rows.
    ``variant``: of the protocol; part of what HELLO compares. ``emulate``, for benchmarks: this party's links are as
    slow as ``rtt_ms`` and ``mbit`` (0: no limit) say, and as its client's jobs say after that: "clock" waits,
    "processor" reckons (``channel.wrappers``).
    """

    me: int
    host: str = "127.0.0.1"
    port: int = 0
    protocol: str = "semi_honest_3pc"
    executor: str = ""
    session: str = ""
    digest: str = ""
    threads: int = 1
    device: str = "cpu"
    prf: str = "aes128ctr"
    gpu_memory_fraction: float = 1.0
    step_timeout_s: float = 60.0
    max_message_bytes: int = DEFAULT_MAX_BYTES
    detached: bool = False
    shadow: bool = False
    debug: bool = False
    variant: str = "bytes"
    emulate: str = ""
    rtt_ms: float = 0.0
    mbit: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> PartySettings:
        """Inverse of ``to_json``. Raises ConfigError for a key that is not a setting."""
        known = {field.name for field in fields(PartySettings)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                f"party settings: unknown key {unknown[0]!r}", remedy="use one version everywhere"
            )
        return PartySettings(**values)

    @property
    def hello(self) -> Hello:
        """What this party states to its peers and its client."""
        return hello_of(self.session, self.digest, self.shadow, self.prf, self.variant)

    @property
    def device_options(self) -> dict[str, Any]:
        """What an Executor is told of its device where it is not the default: an Executor of its own need not know."""
        options: dict[str, Any] = {}
        if self.prf != PartySettings.prf:
            options["prf"] = self.prf
        if self.gpu_memory_fraction != PartySettings.gpu_memory_fraction:
            options["memory_fraction"] = self.gpu_memory_fraction
        return options

    @property
    def agreed(self) -> bytes:
        """32 bytes that depend on all that was compared in HELLO: they go into the seeds."""
        return digest(self.hello.session, self.hello.digests.pack())


def hello_of(
    session: str, configuration: str, shadow: bool, prf: str = "aes128ctr", variant: str = "bytes"
) -> Hello:
    """HELLO of a triple (both in hex): this release, its PRF, the session's configuration, and whether layers may be
    traced and by which variant of the protocol is computed, which each party states from its own setting.
    """
    return Hello(
        bytes.fromhex(session),
        Digests(
            version=digest(mpc_ray.__version__.encode()),
            prf=digest(prf.encode()),
            configuration=digest(
                bytes.fromhex(configuration),
                b"shadow" if shadow else b"",
                *([f"variant {variant}".encode()] if variant != "bytes" else []),
            ),
        ),
    )


def check_device(device: str) -> None:
    """Raise DeviceError when this machine lacks ``device`` (``cpu``, ``cuda`` or ``cuda:N``)."""
    if device == "cpu":
        return
    import torch

    if not device.startswith("cuda"):
        raise DeviceError(f"unknown device {device!r}", remedy="use cpu or cuda")
    if not torch.cuda.is_available():
        raise DeviceError("cuda was asked for, but this machine has no usable GPU", remedy="use device cpu")
    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise DeviceError(f"there is no {device} here ({torch.cuda.device_count()} GPU)", remedy="use cuda:0")


def prepare_process(settings: PartySettings) -> None:
    """Process-wide settings of a party, once its Executor is imported.

    Core dumps are off. An Executor that does without torch is not made to wait for it.
    """
    no_core_dumps()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(settings.threads)
