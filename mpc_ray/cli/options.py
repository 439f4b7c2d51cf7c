"""Options that several commands take, and the settings they make."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mpc_ray.config import Config
    from mpc_ray.models.export import Visibility

_SETTINGS = "Settings (flags win over MPC_* in the environment, which wins over the file)"
DEFAULT_MODEL = "all-MiniLM-L6-v2"

Texts = Annotated[list[str] | None, typer.Argument(metavar="[TEXT]...", help="texts, each one argument")]
TextFile = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", metavar="FILE", help="one text a line; - is standard input; blank lines are left out"
    ),
]
Truncate = Annotated[
    bool, typer.Option("--truncate", help="cut texts to the model's limit instead of refusing them")
]
ModelPath = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="PATH", help="a folder in Hugging Face layout, or a packaged model's name"
    ),
]
CalibrateFile = Annotated[
    Path | None,
    typer.Option(
        "--calibrate", metavar="FILE", help="your own texts, one a line, to widen the calibration with"
    ),
]
PublicWeights = Annotated[
    bool,
    typer.Option(
        "--public-weights/--secret-weights",
        help="give the parties the weights as they are, for an open model: less time and memory; texts stay secret",
        show_default=False,
    ),
]
SEEN = "public weights: every party sees the model; texts and results stay secret"
Json = Annotated[bool, typer.Option("--json", help="one JSON object on standard output, for machines")]
Debug = Annotated[bool, typer.Option("--debug", help="show the traceback of an error")]

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="YAML file of settings [MPC_CONFIG]", rich_help_panel=_SETTINGS
    ),
]
Launcher = Annotated[
    str | None,
    typer.Option(
        "--launcher",
        metavar="ray|processes|threads",
        help="where the three parties run",
        rich_help_panel=_SETTINGS,
    ),
]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol",
        metavar="NAME",
        help="semi_honest_3pc, aby3 or malicious_3pc (experimental)",
        rich_help_panel=_SETTINGS,
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(
        "--variant",
        metavar="bytes|rounds|auto",
        help="of semi_honest_3pc: fewest bytes, fewest rounds, or by --rtt-ms and --mbit",
        rich_help_panel=_SETTINGS,
    ),
]
RttMs = Annotated[
    float | None,
    typer.Option(
        "--rtt-ms",
        metavar="MS",
        help="round trip between the parties, for auto; bench emulates it",
        rich_help_panel=_SETTINGS,
    ),
]
Mbit = Annotated[
    float | None,
    typer.Option(
        "--mbit",
        metavar="MBIT/S",
        help="bandwidth between two parties, for auto; bench emulates it",
        rich_help_panel=_SETTINGS,
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="cpu|cuda", help="what a party computes on", rich_help_panel=_SETTINGS),
]
NumGpus = Annotated[
    float | None,
    typer.Option(
        "--num-gpus", metavar="N", help="GPUs that Ray reserves for each party", rich_help_panel=_SETTINGS
    ),
]
Tls = Annotated[
    bool | None,
    typer.Option("--tls/--no-tls", help="mutual TLS 1.3", rich_help_panel=_SETTINGS, show_default=False),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="compute threads of each party", rich_help_panel=_SETTINGS),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", help="longest wait for a peer in a step", rich_help_panel=_SETTINGS
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="cluster to join; without it one is started here",
        rich_help_panel=_SETTINGS,
    ),
]


@dataclass(frozen=True)
class Settings:
    """What the flags of a command that runs parties said; ``with_settings`` adds them to it."""

    config: ConfigFile = None
    launcher: Launcher = None
    protocol: ProtocolName = None
    variant: Variant = None
    rtt_ms: RttMs = None
    mbit: Mbit = None
    device: Device = None
    num_gpus: NumGpus = None
    tls: Tls = None
    threads: Threads = None
    timeout: Timeout = None
    ray_address: RayAddress = None

    def load(self, **more: Any) -> Config:
        """The configuration of a run; ``more`` are settings with flags of the command's own. Raises ConfigError."""
        flags = vars(self) | more
        return settings(flags.pop("config"), timeout_s=flags.pop("timeout"), **flags)


def visibility(public_weights: bool) -> Visibility:
    """The flag as the library names it."""
    return "public" if public_weights else "secret"


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """For typer: ``command``, whose first argument is its ``Settings``, with a flag for each of them instead."""
    own = list(signature(command, eval_str=True).parameters.values())[1:]
    added = list(signature(Settings, eval_str=True).parameters.values())

    @wraps(command)
    def run(**given: Any) -> None:
        command(Settings(**{flag.name: given.pop(flag.name) for flag in added}), **given)

    run.__signature__ = Signature([*own, *added])  # type: ignore[attr-defined]  # what inspect reads first
    run.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    return run


def settings(config: Path | None, **flags: Any) -> Config:
    """The configuration of a run. Raises ConfigError that says which setting is wrong, and who set it."""
    from mpc_ray.config import load

    return load(config, **flags)
