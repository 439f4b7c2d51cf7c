"""``mpc-ray certs``: a federation's authority, the folders of its parties and gateways, and their renewal.

Private keys are made in the folder where they are used and never leave it: ``request`` makes them and writes a
request, ``sign`` answers all requests with one signed directory, ``install`` takes that directory in.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from mpc_ray.cli import certs_show, options
from mpc_ray.cli.output import opened
from mpc_ray.errors import ConfigError

app = typer.Typer(
    help="Certificates of a federation: its authority, parties and gateways.", no_args_is_help=True
)
app.command()(certs_show.show)

FolderOption = Annotated[
    Path, typer.Option("--folder", metavar="FOLDER", help="the party's or gateway's folder")
]
Days = Annotated[int, typer.Option("--days", metavar="N", help="how long the certificate is to be valid")]


@app.command()
def init(
    federation: Annotated[str, typer.Option("--federation", metavar="NAME", help="its name, for ever")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="the authority's folder, made here")],
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make the authority of a federation. Its key stays in the folder: keep that folder off every party's host."""
    del debug  # read by main
    from mpc_ray.trust.authority import FederationAuthority

    made = FederationAuthority.init(out, federation)
    with opened(as_json, guarded=False) as output:
        if as_json:
            said = {"federation": federation, "folder": str(out), "fingerprint": made.fingerprint}
            output.emit({"command": "certs init", **said})
        else:
            output.console.print(f"federation {federation}: authority in {out}")
            output.console.print(f"fingerprint {made.fingerprint}")
            output.notes.print("tell this fingerprint to every operator and client by another channel")


@app.command()
def request(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="the new party's or gateway's folder")],
    party: Annotated[
        int | None, typer.Option("--party", metavar="0|1|2", min=0, max=2, help="a party: its index")
    ] = None,
    gateway: Annotated[bool, typer.Option("--gateway", help="a gateway, not a party")] = False,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="a gateway's name")] = "gateway",
    party_set: Annotated[
        str, typer.Option("--set", metavar="NAME", help="the set of three parties that it belongs to")
    ] = "",
    operator: Annotated[str, typer.Option("--operator", metavar="NAME", help="who runs it")] = "",
    region: Annotated[str, typer.Option("--region", metavar="NAME", help="where, such as eu-west-1")] = "",
    jurisdiction: Annotated[
        str, typer.Option("--jurisdiction", metavar="CC", help="under which law, such as IE")
    ] = "",
    peer: Annotated[
        str, typer.Option("--peer", metavar="HOST:PORT", help="where the other two parties reach it")
    ] = "",
    endpoint: Annotated[
        str, typer.Option("--endpoint", metavar="HOST:PORT", help="where gateways reach it")
    ] = "",
    days: Days = 90,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make the keys of a party or gateway, which stay in the folder, and a request for the authority."""
    del debug  # read by main
    from mpc_ray.trust.folder import request_gateway, request_party

    if gateway == (party is not None):
        raise ConfigError(
            "a request is for a party or for a gateway", remedy="give --party INDEX or --gateway"
        )
    if party is not None:
        given = {
            "--set": party_set, "--operator": operator, "--region": region,
            "--jurisdiction": jurisdiction, "--peer": peer, "--endpoint": endpoint,
        }  # fmt: skip
        if missing := [option for option, value in given.items() if not value]:
            raise ConfigError(
                f"a party's request lacks {', '.join(missing)}", remedy="see mpc-ray certs request --help"
            )
        made = request_party(
            out, set=party_set, index=party, operator=operator, region=region, jurisdiction=jurisdiction,
            peer=peer, gateway=endpoint, days=days,
        )  # fmt: skip
    else:
        made = request_gateway(out, name=name, days=days)
    _say_request("certs request", out, made.record.place, as_json)


@app.command()
def sign(
    requests: Annotated[
        list[Path] | None, typer.Argument(metavar="[REQUEST]...", help="request.json files, each as it came")
    ] = None,
    ca: Annotated[Path, typer.Option("--ca", metavar="FOLDER", help="the authority's folder")] = Path("ca"),
    replace: Annotated[
        bool, typer.Option("--replace", help="give a place of the federation to another operator")
    ] = False,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="PLACE", help="take a place out: SET/INDEX or gateway/NAME"),
    ] = None,
    days: Annotated[int, typer.Option("--days", metavar="N", help="how long the directory is valid")] = 90,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Answer requests with a new directory: directory.json in the authority's folder, to be sent to everybody.

    Look at who asks first: the authority says who is who. Without a request the directory is only issued anew.
    """
    del debug  # read by main
    from mpc_ray.trust.authority import DIRECTORY, FederationAuthority, load_request

    authority = FederationAuthority.load(ca)
    asked = [load_request(path) for path in requests or []]
    made = authority.sign(asked, replace=replace, remove=remove or (), days=days)
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": "certs sign", "directory": str(ca / DIRECTORY), **certs_show.shown(made)})
        else:
            for entry in asked:
                output.console.print(f"signed {entry.record.place}")
            output.console.print(f"directory {made.serial}: {ca / DIRECTORY}")


@app.command()
def install(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="directory.json from the authority")],
    folder: FolderOption,
    fingerprint: Annotated[
        str, typer.Option("--fingerprint", metavar="HEX", help="the authority's, got by another channel")
    ] = "",
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Take a signed directory in, and with it this party's or gateway's own certificate.

    Refused: a directory of another authority, an older one, and one that describes this party otherwise than it did
    itself. A running party uses it for new connections and keeps those it has.
    """
    del debug  # read by main
    from mpc_ray.trust.directory import Directory
    from mpc_ray.trust.folder import install as take_in

    done = take_in(folder, Directory.load(directory), fingerprint=fingerprint or None)
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": "certs install", **asdict(done)})
            return
        output.console.print(f"{done.place}: directory {done.serial} installed in {folder}")
        if done.rotated:
            output.console.print("its new keys are in use; the old ones still open envelopes for a week")
        if done.pending:
            output.notes.print("new keys still wait for their certificate: have request.json signed")
        if done.trusted_first_use:
            output.notes.print(
                f"authority {done.authority}: compare it with the federation's by another channel"
            )


@app.command()
def rotate(
    folder: FolderOption,
    days: Days = 90,
    again: Annotated[bool, typer.Option("--again", help="drop new keys that were not installed yet")] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make new keys beside the present ones and a new request. They take over at ``install``, nothing stops."""
    del debug  # read by main
    from mpc_ray.trust.folder import rotate as new_keys

    made = new_keys(folder, days=days, again=again)
    _say_request("certs rotate", folder, made.record.place, as_json)


def _say_request(command: str, folder: Path, place: str, as_json: bool) -> None:
    path = folder / "request.json"
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": command, "place": place, "request": str(path)})
        else:
            output.console.print(f"{place}: keys made in {folder}; send {path} to the federation's authority")
