"""``mpc-ray cluster``: what stands around ``ray up``. ``mpc-ray doctor --cluster`` looks at the same files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpc_ray.cli import options
from mpc_ray.cli.checks import Check
from mpc_ray.cli.output import opened

if TYPE_CHECKING:
    from mpc_ray.cli.output import Output
    from mpc_ray.ops.clusters import AwsCluster
    from mpc_ray.ops.firewall import Rule

app = typer.Typer(
    help="Machines for a party or a gateway, by `ray up`: who may reach them.", no_args_is_help=True
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="a file for `ray up`, as cluster.yaml")]


@app.callback()
def group() -> None:
    """Machines for a party or a gateway, by `ray up`: who may reach them."""


@app.command()
def firewall(
    file: File,
    apply: Annotated[
        bool, typer.Option("--apply", help="AWS: make the security group, or bring it to these rules")
    ] = False,
    vpc: Annotated[
        str | None, typer.Option("--vpc", metavar="ID", help="AWS: the network, if not the default one")
    ] = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show who may reach the cluster, and set it: on AWS with --apply, elsewhere by the commands printed."""
    del debug  # read by main
    from mpc_ray.errors import ConfigError
    from mpc_ray.ops import cluster_checks
    from mpc_ray.ops import firewall as walls
    from mpc_ray.ops.clusters import AwsCluster

    cluster = cluster_checks.parsed(cluster_checks.load(file))
    wanted = walls.rules(cluster)
    with opened(as_json, guarded=False) as out:
        if isinstance(cluster, AwsCluster):
            _aws(out, file, cluster, wanted, apply, vpc)
            return
        if apply or vpc:
            raise ConfigError(
                f"this program does not speak to {cluster.provider.type}",
                remedy="leave out --apply and --vpc, and run the commands that are printed then",
            )
        lines = walls.commands(cluster)
        if as_json:
            out.emit({"command": "cluster firewall", "ok": True, **_said(wanted), "commands": lines})
            return
        _show(out, wanted)
        out.console.print("\n".join(["", *lines]), soft_wrap=True)


def _aws(
    out: Output, file: Path, cluster: AwsCluster, wanted: tuple[Rule, ...], apply: bool, vpc: str | None
) -> None:
    from mpc_ray.ops import firewall as walls

    applied = walls.apply(cluster, vpc=vpc) if apply else None
    if out.as_json:
        done = asdict(applied) if applied else {}
        out.emit({"command": "cluster firewall", "ok": True, **_said(wanted), "applied": done})
        return
    _show(out, wanted)
    if applied is None:
        out.console.print("\nnothing was changed; --apply makes the security group")
        return
    verb = "made" if applied.made else "there already"
    out.console.print(f"\n{applied.group}: {verb}, {applied.added} rules added, {applied.removed} removed")
    named = {
        group for kind in cluster.available_node_types.values() for group in kind.node_config.SecurityGroupIds
    }
    if named != {applied.group}:
        out.console.print(
            f"now name it in the file:  sed -i 's/sg-FILL-ME/{applied.group}/' {file}", soft_wrap=True
        )


def _said(wanted: tuple[Rule, ...]) -> dict[str, object]:
    return {"rules": [asdict(rule) for rule in wanted]}


def _show(out: Output, wanted: tuple[Rule, ...]) -> None:
    for rule in wanted:
        out.console.print(f"TCP {rule.port:<5} from {rule.network:<20} {rule.whom}")
    out.console.print("and nothing else from outside")


def looked_at(file: Path) -> list[Check]:
    """What doctor says of a file for ``ray up``. Nothing is asked of any cloud."""
    from mpc_ray.errors import MpcError
    from mpc_ray.ops import cluster_checks

    try:
        config = cluster_checks.load(file)
    except MpcError as error:
        return [Check("cluster file", "fail", error.cause, error.remedy)]
    found = [
        Check("cluster file", problem.status, f"{problem.where} {problem.what}", problem.remedy)
        for problem in cluster_checks.problems(config)
    ]
    found.append(_rays(config))
    if all(check.status == "ok" for check in found):
        found.insert(0, Check("cluster file", "ok", f"{file}: every setting is known and filled in"))
    return found


def _rays(config: dict[str, object]) -> Check:
    try:
        from mpc_ray.ops.ray_schema import refusal

        refused = refusal(config)
    except ImportError as error:
        return Check("Ray's schema", "warn", f"not looked at: {error}", "pip install 'mpc-ray[server]'")
    if refused:
        return Check("Ray's schema", "fail", refused, "docs.ray.io: cluster YAML configuration options")
    return Check("Ray's schema", "ok", "Ray takes the file")
