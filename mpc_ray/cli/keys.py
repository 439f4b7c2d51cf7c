"""``mpc-ray keys``: signing keys of clients, enrolled with each operator; API keys of a gateway.

A client's signing key says which jobs it wants: each party checks it for itself. An API key only says who may talk to
a gateway.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mpc_ray.cli import api_keys, options
from mpc_ray.cli.output import opened

app = typer.Typer(
    help="Signing keys of clients: signing, enroll, list, revoke. API keys of a gateway: create, list-api, revoke-api.",
    no_args_is_help=True,
)
api_keys.add_to(app)

PartyFolder = Annotated[
    Path, typer.Option("--party", metavar="FOLDER", help="the party's folder, made by mpc-ray certs request")
]


@app.command()
def signing(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="where the key goes, mode 0600")],
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make a client's signing key; show its public half, which each of the three operators enrols.

    A key that is there already is kept, and shown again.
    """
    del debug  # read by main
    from mpc_ray.trust.authorisation import SigningKey

    made = not out.exists()
    key = SigningKey.generate() if made else SigningKey.load(out)
    if made:
        key.save(out)
    with opened(as_json, guarded=False) as output:
        if as_json:
            said = {"file": str(out), "made": made, "id": key.id, "public": key.public.hex()}
            output.emit({"command": "keys signing", **said})
        else:
            kept = "" if made else " was there already"
            output.console.print(
                f"{out}: signing key {key.id}{kept}; send its public half to all three operators:"
            )
            print(key.public.hex(), file=output.stream)


@app.command()
def enroll(
    public: Annotated[str, typer.Argument(metavar="PUBLIC", help="64 hexadecimal digits, from keys signing")],
    party: PartyFolder,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="whose key it is, to know it again")],
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Accept jobs that this key signs, at this party. A running party does from its next job on."""
    del debug  # read by main
    from mpc_ray.trust.clients import parse_public
    from mpc_ray.trust.folder import open_folder

    key = open_folder(party).clients().enrol(name, parse_public(public))
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": "keys enroll", **asdict(key)})
        else:
            output.console.print(f"{key.name}: signing key {key.id} is enrolled")


@app.command("list")
def list_keys(party: PartyFolder, as_json: options.Json = False, debug: options.Debug = False) -> None:
    """List the signing keys enrolled at a party, revoked ones too."""
    del debug  # read by main
    from mpc_ray.trust.folder import open_folder

    keys = open_folder(party).clients().list()
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": "keys list", "keys": [asdict(key) for key in keys]})
            return
        for key in keys:
            output.console.print(f"{key.id}  {'revoked' if key.revoked else 'valid':8}  {key.name}")
        if not keys:
            output.notes.print("no signing key is enrolled yet: mpc-ray keys enroll")


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME_OR_ID", help="as keys list shows them")],
    party: PartyFolder,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Refuse a signing key from the next job on, and for ever."""
    del debug  # read by main
    from mpc_ray.trust.folder import open_folder

    key = open_folder(party).clients().revoke(name)
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": "keys revoke", **asdict(key)})
        else:
            output.console.print(f"{key.name}: signing key {key.id} is revoked")
