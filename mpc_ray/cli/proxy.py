"""``mpc-ray proxy``: OpenAI's and TEI's protocols on this machine; beyond it only shares and sealed bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import opened
from mpc_ray.errors import ConfigError

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="YAML settings; configs/proxy.example.yaml has them all"),
]
LogFile = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="write the log there too, as JSON lines")
]


def proxy(
    config: ConfigFile = None,
    log: LogFile = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make existing programs private: point their OpenAI or TEI client at this proxy (base URL …/v1).

    Texts are tokenized, shared and sealed here; MPC_GATEWAY_…, MPC_CLIENT_… and MPC_PROXY_… of the environment win over
    the file. SIGTERM and Ctrl-C end it once the requests under way are answered, with exit code 0.
    """
    try:
        import fastapi  # noqa: F401 - the extra is there
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"the proxy needs {error.name}, which is not installed", remedy="pip install 'mpc-ray[proxy]'"
        ) from None
    from mpc_ray.client.proxy.host import serve
    from mpc_ray.client.settings import ClientSettings
    from mpc_ray.telemetry import logs, traces
    from mpc_ray.trust.secret import no_core_dumps

    no_core_dumps()  # texts are here in the clear
    settings = ClientSettings.load(config)
    logs.setup("proxy", file=log, level="DEBUG" if debug else "INFO")
    try:
        traces.setup("proxy")
        with opened(as_json, guarded=False) as output:

            def started(url: str) -> None:
                if as_json:
                    output.emit({"command": "proxy", "event": "serving", "url": url})
                else:
                    output.console.print(f"serving {url}/v1 (OpenAI) and {url} (TEI)")

            serve(settings, started)
    finally:
        traces.shutdown()
