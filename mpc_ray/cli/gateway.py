"""``mpc-ray gateway``: the service that clients talk to. It forwards sealed bytes and can open none."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import opened

ConfigFile = Annotated[
    Path,
    typer.Option("--config", metavar="FILE", help="YAML settings; configs/gateway.example.yaml has them all"),
]
Standalone = Annotated[
    bool,
    typer.Option("--standalone", help="lead the triples in this process, without Ray (small deployments)"),
]
OneCluster = Annotated[
    bool,
    typer.Option(
        "--one-cluster",
        help="for development: also run the three parties whose folders lie beside the gateway's, as actors",
    ),
]
LogFile = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="write the log there too, as JSON lines")
]


def gateway(
    config: ConfigFile,
    standalone: Standalone = False,
    one_cluster: OneCluster = False,
    log: LogFile = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Serve private inference over HTTPS: uvicorn in front, one triple of parties behind each Ray Serve replica.

    SIGTERM and Ctrl-C drain it: it says "not ready", finishes what is under way and ends with exit code 0; a second
    one shortens this. `serve deploy configs/serve.yaml` hosts the same application on Ray Serve alone.

    `--one-cluster` puts all three parties into the gateway's own Ray: one person can then read everything.
    """
    from mpc_ray.errors import ConfigError
    from mpc_ray.serve.config import GatewayConfig
    from mpc_ray.telemetry import logs, traces

    if standalone and one_cluster:
        raise ConfigError("--one-cluster needs Ray", remedy="leave out --standalone")
    settings = GatewayConfig.load(config)
    logs.setup("gateway", file=log, level="DEBUG" if debug else "INFO")
    traces.setup("gateway")
    with opened(as_json, guarded=not standalone) as output:

        def started(url: str) -> None:
            if as_json:
                output.emit({"command": "gateway", "event": "serving", "url": url})
            else:
                output.console.print(f"serving {url}")

        if standalone:
            from mpc_ray.serve.host import serve

            serve(settings, None, started)
        else:
            from mpc_ray.serve.driver import LEADER, ONE_CLUSTER, serve_on_ray

            if one_cluster and not as_json:
                output.console.print("DEVELOPMENT ONLY: whoever runs this cluster can read texts and weights")
            serve_on_ray(settings, started, ONE_CLUSTER if one_cluster else LEADER)
    traces.shutdown()
