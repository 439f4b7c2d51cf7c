"""``mpc-ray model``: an owner shares a model with a federation; each party imports, lists and removes its shares."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mpc_ray.cli import options
from mpc_ray.cli.output import opened
from mpc_ray.cli.steps import Steps

if TYPE_CHECKING:
    from mpc_ray.endpoint.store import ModelInfo

app = typer.Typer(
    help="Share a model with three parties; keep its shares at one of them.", no_args_is_help=True
)

PartyFolder = Annotated[
    Path, typer.Option("--party", metavar="FOLDER", help="the party's folder, made by mpc-ray certs request")
]


@app.command()
def share(
    model: Annotated[
        str, typer.Argument(metavar="DIR", help="a folder in Hugging Face layout, or a packaged model's name")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="the federation's directory.json")],
    party_set: Annotated[
        str, typer.Option("--set", metavar="NAME", help="the set of three parties, such as eu")
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="where the files go")],
    name: Annotated[
        str,
        typer.Option(
            "--name", metavar="NAME", help="what clients call the model; its folder's name unless given"
        ),
    ] = "",
    fingerprint: Annotated[
        str,
        typer.Option(
            "--fingerprint",
            metavar="HEX",
            help="SHA-256 of the federation's authority, got from it by another channel",
        ),
    ] = "",
    calibrate: options.CalibrateFile = None,
    public_weights: options.PublicWeights = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Make three sealed share files, one a party, and the bundle that clients get.

    Each file opens at its own party alone. The bundle holds the tokenizer and the embedding tables in the clear:
    give it to clients, not to parties. With --public-weights each file holds the encoder's weights as they are.
    """
    del debug  # read by main
    from mpc_ray.trust.directory import Directory

    directory = Directory.load(to).verify(fingerprint=fingerprint or None)
    records = directory.parties(party_set)
    with opened(as_json, guarded=False) as output:
        from mpc_ray.model import DEMO_MODEL, prepare
        from mpc_ray.models.shares import share_model
        from mpc_ray.models.texts import file_texts

        began = time.perf_counter()
        texts = file_texts(calibrate) if calibrate is not None else None
        with Steps(output.notes) as steps:
            if not fingerprint:
                steps.note(
                    f"authority {directory.fingerprint}: compare it with the federation's by another channel"
                )
            if public_weights:
                steps.note(options.SEEN)
            ready = prepare(
                model, options.settings(None).buckets, texts, steps, options.visibility(public_weights)
            )
            called = name or (DEMO_MODEL if model == DEMO_MODEL else "")
            made = share_model(
                ready.bert, ready.export, directory, party_set, out, name=called, progress=steps
            )
        sizes = [path.stat().st_size for path in made.shares]
        bundle_bytes = sum(path.stat().st_size for path in made.bundle.iterdir())
        if as_json:
            output.emit(
                {
                    "command": "model share",
                    "model": made.name,
                    "digest": made.digest,
                    "federation": directory.federation,
                    "authority": directory.fingerprint,
                    "set": party_set,
                    "lengths": list(ready.lengths),
                    "public_weights": public_weights,
                    "shares": [
                        {"path": str(path.resolve()), "operator": record.operator, "bytes": size}
                        for path, record, size in zip(made.shares, records, sizes, strict=True)
                    ],
                    "bundle": {
                        "path": str(made.bundle.resolve()),
                        "digest": made.bundle_digest,
                        "bytes": bundle_bytes,
                    },
                    "seconds": time.perf_counter() - began,
                }
            )
            return
        output.console.print(f"model {made.name}, record {made.digest}")
        for path, record, size in zip(made.shares, records, sizes, strict=True):
            output.console.print(f"{path}  {_size(size)}  for {record.operator} ({record.region}) alone")
        output.console.print(
            f"{made.bundle}/  {_size(bundle_bytes)}  for clients, bundle {made.bundle_digest}"
        )


@app.command("import")
def import_share(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="NAME.partyN.share, as the owner made it for this party")
    ],
    party: PartyFolder,
    replace: Annotated[
        bool, typer.Option("--replace", help="take the place of a model of that name")
    ] = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Check a share file and keep it, encrypted under this party's own key."""
    del debug
    from mpc_ray.endpoint.store import ModelStore

    began = time.perf_counter()
    info = ModelStore(party).import_file(file, replace=replace)
    with opened(as_json, guarded=False) as output:
        if as_json:
            said = {"command": "model import", **asdict(info), "seconds": time.perf_counter() - began}
            output.emit(said)
        else:
            output.console.print(f"imported {_line(info)}")


@app.command("list")
def list_models(party: PartyFolder, as_json: options.Json = False, debug: options.Debug = False) -> None:
    """The models that a party holds shares of."""
    del debug
    from mpc_ray.endpoint.store import ModelStore, open_party

    models = ModelStore(open_party(party)[0].path).list()
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": "model list", "models": [asdict(info) for info in models]})
        for info in () if as_json else models:
            output.console.print(_line(info))
        if not models and not as_json:
            output.console.print("no model yet: mpc-ray model import FILE --party FOLDER")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(metavar="NAME", help="as mpc-ray model list shows it")],
    party: PartyFolder,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Delete a party's shares of a model. Nothing can be computed with it any more until it is imported again."""
    del debug
    from mpc_ray.endpoint.store import ModelStore, open_party

    ModelStore(open_party(party)[0].path).remove(name)
    with opened(as_json, guarded=False) as output:
        if as_json:
            output.emit({"command": "model remove", "model": name})
        else:
            output.console.print(f"removed {name}")


def _line(info: ModelInfo) -> str:
    lengths = ", ".join(map(str, info.lengths))
    return (
        f"{info.name}  {_size(info.bytes)}  hidden {info.hidden}  {info.weights} weights  lengths {lengths}  "
        f"record {info.digest}"
    )


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
