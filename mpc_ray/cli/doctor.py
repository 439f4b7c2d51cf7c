"""``mpc-ray doctor``: what this machine can and cannot do, and what to do about it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpc_ray.cli import checks, options
from mpc_ray.cli.checks import Check
from mpc_ray.cli.cluster import looked_at
from mpc_ray.cli.output import Output, opened

if TYPE_CHECKING:
    from mpc_ray.config import Config

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}

ClusterFile = Annotated[
    Path | None,
    typer.Option("--cluster", metavar="FILE", help="look at a file for `ray up`, and at nothing else"),
]
PartyFile = Annotated[
    Path | None,
    typer.Option(
        "--party", metavar="FILE", help="look at a party's settings, folder and peers, nothing else"
    ),
]
GatewayFile = Annotated[
    Path | None,
    typer.Option(
        "--gateway",
        metavar="FILE",
        help="look at a gateway's settings, folder, sets and their parties, nothing else",
    ),
]
Ray = Annotated[bool, typer.Option("--ray", help="start three parties on Ray too (takes some seconds)")]


def doctor(
    ray: Ray = False,
    cluster: ClusterFile = None,
    party: PartyFile = None,
    gateway: GatewayFile = None,
    model: options.ModelPath = options.DEFAULT_MODEL,
    as_json: options.Json = False,
    debug: options.Debug = False,
    config: options.ConfigFile = None,
    device: options.Device = None,
    ray_address: options.RayAddress = None,
) -> None:
    """Check this machine: packages, processor, memory, ports, TLS, model, Ray. Exit code 1 if a check fails."""
    del debug  # read by main
    with opened(as_json, guarded=ray) as out:
        found = []
        if cluster is not None:
            checked: Iterator[Check] = iter(looked_at(cluster))
        elif party is not None:
            from mpc_ray.cli import party_checks

            checked = party_checks.looked_at(party)
        elif gateway is not None:
            from mpc_ray.cli import gateway_checks

            checked = gateway_checks.looked_at(gateway)
        else:
            checked = _all(ray, model, config, device, ray_address)
        for check in checked:
            found.append(check)
            if not as_json:
                _show(out, check)
        failed = [check.name for check in found if check.status == "fail"]
        if as_json:
            out.emit({"command": "doctor", "ok": not failed, "checks": [asdict(check) for check in found]})
        else:
            warned = sum(check.status == "warn" for check in found)
            named = ", ".join(dict.fromkeys(failed))
            verdict = f"{len(failed)} failed: {named}" if failed else "nothing stands in the way"
            out.console.print(f"\n{verdict}" + (f" ({warned} warnings)" if warned else ""))
    if failed:
        raise typer.Exit(1)


def _all(
    ray: bool, model: str, config: Path | None, device: str | None, ray_address: str | None
) -> Iterator[Check]:
    """One check after the other. What would need a package that is missing is left out: that one failed already."""

    def load() -> Config:
        return options.settings(config, device=device, ray_address=ray_address)

    yield checks.python()
    yield from checks.packages()
    if _there("pydantic", "yaml"):
        yield checks.settings(load)
    native = checks.imports()
    yield native
    if native.status == "ok" and _there("pydantic", "yaml", "numpy"):
        yield checks.cpu()
        yield checks.gpu(_device(load))
        yield from checks.model(model)
    if _there("psutil"):
        yield checks.memory()
    alone: tuple[Callable[[], Check], ...] = (
        checks.disk,
        checks.shared_memory,
        checks.loopback,
        checks.files,
        checks.tls,
        checks.clock,
    )
    for check in alone:
        yield check()
    if ray and native.status == "ok" and _there("ray"):
        yield checks.ray_starts(lambda: _start(load()))


def _start(config: Config) -> str:
    """Three parties on Ray, asked once; where they ran, and whom one has to trust there."""
    from mpc_ray.config import load
    from mpc_ray.session import Session

    given = config.model_dump(exclude_unset=True) | {"launcher": "ray"}
    with Session(config=load(environ={}, **given)) as session:
        session.stats()
        return session.trust.removeprefix("trust: ")


def _device(load: Callable[[], Config]) -> str:
    from mpc_ray.errors import ConfigError

    try:
        return load().device
    except ConfigError:  # has its own line already
        return "cpu"


def _there(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) is not None for module in modules)


def _show(out: Output, check: Check) -> None:
    from rich.table import Table
    from rich.text import Text

    line = Table.grid(padding=(0, 2), expand=False)
    line.add_column(width=4)
    line.add_column(width=12)
    line.add_column(overflow="fold")
    line.add_row(Text(check.status, style=STYLES[check.status]), Text(check.name, style="bold"), check.detail)
    if check.remedy:
        line.add_row("", "", Text(f"what to do: {check.remedy}", style="dim"))
    out.console.print(line)
