"""``mpc-ray party``: one party of a federation, on its operator's machine."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import Output, opened, write

if TYPE_CHECKING:
    from mpc_ray.endpoint.front import Front

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
    from mpc_ray.endpoint.scrape import exposed

    if ready_file is not None:
        ready_file.unlink(missing_ok=True)
    try:
        with contextlib.closing(Front(settings)) as front, exposed(settings.metrics_port):
            with opened(as_json, guarded=False) as output:
                _until_ready(front, output)
                said = _ready(front)
                if as_json:
                    output.emit({"command": "party", "event": "ready", **said})
                else:
                    output.console.print(_line(said))
                if ready_file is not None:
                    write(ready_file, (json.dumps(said) + "\n").encode())
            front.failed.wait()
            if front.error is not None:
                raise front.error
    except KeyboardInterrupt:  # Ctrl-C or SIGTERM is how a service ends
        return
    finally:
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)
        traces.shutdown()


def _until_ready(front: Front, output: Output) -> None:
    """Wait for slots, models and peers, and say what for: at every change, and every few seconds."""
    told, last = 0.0, ""
    while waits := ", ".join(front.waiting()):
        if waits != last or time.monotonic() - told > TELL_S:
            output.notes.print(f"party {front.me} of set {front.set} waits for {waits}")
            told, last = time.monotonic(), waits
        if front.failed.wait(0.1) and front.error is not None:
            raise front.error


def _ready(front: Front) -> dict[str, Any]:
    return {
        "party": front.me,
        "set": front.set,
        "operator": front.standing.records[front.me].operator,
        "peer": "{}:{}".format(*front.peers.address),
        "gateway": "{}:{}".format(*front.gateways.address),
        "models": [known.info.name for known in front.models.list()],
        "slots": front.slots.counts()[0],
        "host": front.hosting.said,
        "pid": os.getpid(),
    }


def _line(said: dict[str, Any]) -> str:
    return (
        f"party {said['party']} of set {said['set']} ready: peer {said['peer']}, gateway {said['gateway']}, "
        f"models {', '.join(said['models'])}; slots are {said['host']}; operator {said['operator']}"
    )
