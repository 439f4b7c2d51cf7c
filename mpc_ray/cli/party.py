"""``mpc-ray party``: one party of a federation, on its operator's machine."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import opened, write

ConfigFile = Annotated[
    Path,
    typer.Option("--config", metavar="FILE", help="YAML settings; configs/party.example.yaml has them all"),
]
ReadyFile = Annotated[
    Path | None, typer.Option("--ready-file", metavar="FILE", help="written once the party is ready")
]
TELL_S = 10.0


def party(
    config: ConfigFile,
    ready_file: ReadyFile = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Run one party: its ports, its own Ray, and the slots that compute. Ends with SIGTERM or Ctrl-C.

    It decides for itself which jobs it takes part in: see policy in the settings.
    """
    from mpc_ray.endpoint.config import PartyConfig
    from mpc_ray.telemetry import logs, traces

    settings = PartyConfig.load(config)
    logs.setup("party", file=settings.log_file, level="DEBUG" if debug else "INFO")
    traces.setup("party", file=settings.trace_file)
    from mpc_ray.endpoint.front import Front
    from mpc_ray.endpoint.gateways import Gateways
    from mpc_ray.endpoint.scrape import exposed

    front = Front(settings)
    gateways = None
    try:
        gateways = Gateways(front)
        with opened(as_json, guarded=False) as output, exposed(settings.metrics_port):
            told, last = 0.0, ""
            while waits := ", ".join(front.waiting()):
                if front.fatal.wait(0.1) and front.error is not None:
                    raise front.error
                if waits != last or time.monotonic() - told > TELL_S:
                    output.notes.print(f"party {front.me} of set {front.record.set} waits for {waits}")
                    told, last = time.monotonic(), waits
            models = ", ".join(model.name for model in front.models())
            peer, gateway = (f"{h}:{p}" for h, p in (front.peer_port.address, gateways.address))
            if as_json:
                said = {"command": "party", "event": "ready", "party": front.me, "set": front.record.set}
                output.emit(
                    {
                        **said,
                        "peer": peer,
                        "gateway": gateway,
                        "models": models.split(", "),
                        "pid": os.getpid(),
                    }
                )
            else:
                where = front.hosting.said if front.hosting is not None else ""
                output.console.print(
                    f"party {front.me} of set {front.record.set} ready: peers at {peer}, gateways at {gateway}, "
                    f"models {models}; slots are {where}; operator {front.record.operator}"
                )
            if ready_file is not None:
                write(ready_file, b"ready\n")
            front.fatal.wait()
            if front.error is not None:
                raise front.error
    finally:
        if gateways is not None:
            gateways.close()
        front.close()
        traces.shutdown()
