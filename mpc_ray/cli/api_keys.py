"""``mpc-ray keys create | list-api | revoke-api``: the API keys of a gateway, which say who may ask and how much.

They open nothing: what a job may do is said by the client's signing key, which the gateway does not have.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import opened

if TYPE_CHECKING:
    from mpc_ray.serve.apikeys import ApiKey

GatewayFolder = Annotated[
    Path,
    typer.Option("--gateway", metavar="FOLDER", help="the gateway's folder, made by mpc-ray certs request"),
]
DAY_MS = 86_400_000


def create(
    gateway: GatewayFolder,
    name: Annotated[str, typer.Option("--name", help="what the key is for, to know it again")],
    tenant: Annotated[str, typer.Option("--tenant", help="who is charged")] = "default",
    per_minute: Annotated[int, typer.Option("--per-minute", metavar="N", help="requests a minute")] = 600,
    tokens_per_day: Annotated[
        int, typer.Option("--tokens-per-day", metavar="N", help="tokens a day with padding; 0: no limit")
    ] = 0,
    models: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="only this model; may be given again")
    ] = None,
    purposes: Annotated[
        list[str] | None,
        typer.Option("--purpose", metavar="NAME", help="only this purpose; may be given again"),
    ] = None,
    days: Annotated[int, typer.Option("--days", metavar="N", help="valid for so long; 0: until revoked")] = 0,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make an API key of a gateway. It is shown once; the gateway keeps only a keyed hash of it."""
    del debug  # read by main
    from mpc_ray.serve.apikeys import KeyStore

    expires = time.time_ns() // 1_000_000 + days * DAY_MS if days else None
    made = KeyStore(gateway).create(
        name,
        tenant=tenant,
        per_minute=per_minute,
        tokens_per_day=tokens_per_day,
        models=tuple(models or ()),
        purposes=tuple(purposes or ()),
        expires_ms=expires,
    )
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": "keys create", "bearer": made.bearer, **_shown(made.key)})
        else:
            output.notes.print(f"API key {made.key.id} for {name}: shown this once, keep it as a password")
            print(made.bearer, file=output.stream)


def list_api(gateway: GatewayFolder, as_json: options.Json = False, debug: options.Debug = False) -> None:
    """List a gateway's API keys, revoked and expired ones too."""
    del debug  # read by main
    from mpc_ray.serve.apikeys import KeyStore

    keys = KeyStore(gateway).list()
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": "keys list-api", "keys": [_shown(key) for key in keys]})
            return
        for key in keys:
            quota = f"{key.tokens_per_day:,} tokens/day" if key.tokens_per_day else "any number of tokens"
            output.console.print(
                f"{key.id}  {_state(key):8}  {key.name}  ({key.tenant}; {key.per_minute:,}/min, {quota})"
            )
        if not keys:
            output.notes.print("no API key yet: mpc-ray keys create")


def revoke_api(
    gateway: GatewayFolder,
    id: Annotated[
        str, typer.Argument(metavar="ID", help="16 hexadecimal digits, as keys list-api shows them")
    ],
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Refuse an API key from now on; a running gateway does within two or three seconds."""
    del debug  # read by main
    from mpc_ray.serve.apikeys import KeyStore

    key = KeyStore(gateway).revoke(id)
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": "keys revoke-api", **_shown(key)})
        else:
            output.console.print(f"{key.id} ({key.name}) is revoked")


def add_to(app: typer.Typer) -> None:
    """Put the three commands into the group ``keys``."""
    app.command("create")(create)
    app.command("list-api")(list_api)
    app.command("revoke-api")(revoke_api)


def _state(key: ApiKey) -> str:
    if key.revoked_ms is not None:
        return "revoked"
    return "valid" if key.valid(time.time_ns() // 1_000_000) else "expired"


def _shown(key: ApiKey) -> dict[str, Any]:
    """A key as JSON; times in ISO 8601."""
    shown = asdict(key) | {"models": list(key.models), "purposes": list(key.purposes), "state": _state(key)}
    for name in ("created", "expires", "revoked"):
        milliseconds = shown.pop(f"{name}_ms")
        shown[name] = (
            datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
            if milliseconds
            else None
        )
    return shown
